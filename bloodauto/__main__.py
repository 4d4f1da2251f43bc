"""``python -m bloodauto`` is the command line."""

from bloodauto.cli.main import main

if __name__ == "__main__":
    main()
