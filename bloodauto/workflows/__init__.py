"""The workflows: the only place where data, training, ensemble, export and report meet."""
