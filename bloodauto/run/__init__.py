"""The run directory: the schema of each file, atomic writes, attributes of the study."""

# First, so that every order of imports of its modules works: artifacts and directories name each other.
from bloodauto.run import artifacts as artifacts
