"""Commands, options and progress of the command line."""
