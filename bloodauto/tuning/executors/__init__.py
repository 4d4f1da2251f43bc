"""Executors that run the assignments of the scheduler: Ray Tune, and a simulator."""
