"""``python -m bloodauto`` is the command line."""

import sys
from pathlib import Path

# Python puts the working folder first on the module path, where a user's own random.py would hide the library's.
_package_root = str(Path(__file__).resolve().parent.parent)
if not sys.flags.safe_path and sys.path and Path(sys.path[0]).resolve() == Path.cwd() and sys.path[0] != _package_root:
    del sys.path[0]

from bloodauto.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
