"""The run directory: the schema of each file, atomic writes, attributes of the study."""
