"""The search: a scheduler that decides, and executors that run trainings for it."""
