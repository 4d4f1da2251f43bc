"""From trained networks to files that work without this project."""
