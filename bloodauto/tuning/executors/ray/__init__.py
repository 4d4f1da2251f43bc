"""The Ray Tune executor: the only package that imports Ray."""

from __future__ import annotations

import os

_VARIABLE = "RAY_DEDUP_LOGS_SKIP_REGEX"
# Ray would report every worker that is killed on purpose, over many lines. It reads the variable when it is imported, so that
# this has no effect in a process that has imported Ray before.
_earlier = os.environ.get(_VARIABLE)
os.environ[_VARIABLE] = "A worker died or was killed" if _earlier is None else _earlier
try:
    import ray  # noqa: F401
finally:
    if _earlier is None:
        del os.environ[_VARIABLE]
