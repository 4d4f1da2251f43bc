"""Trainings side by side: the published systems, and ablations of one recipe."""
