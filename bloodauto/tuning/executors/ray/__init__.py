"""Runs trainings with Ray Tune. The only package that imports Ray."""

import os

# Ray reads this variable once, when it is imported. Without it Ray prints several lines for every worker that a search ends.
_VARIABLE = "RAY_DEDUP_LOGS_SKIP_REGEX"
_previous = os.environ.get(_VARIABLE)
os.environ.setdefault(_VARIABLE, "A worker died or was killed")
import ray  # noqa: E402, F401

if _previous is None:
    del os.environ[_VARIABLE]
