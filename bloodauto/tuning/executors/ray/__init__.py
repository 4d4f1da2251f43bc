"""The Ray Tune executor: the only package that imports Ray."""

from __future__ import annotations

import os

#: Ray reads these when it is imported, so that they have no effect in a process that has imported Ray before.
_IMPORT_ENVIRONMENT = {
    # Ray would report every worker that is killed on purpose, over many lines.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
    # Under "uv run" Ray would pack the working folder, images included, and start its workers through uv.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

_earlier = {name: os.environ.get(name) for name in _IMPORT_ENVIRONMENT}
os.environ.update(_IMPORT_ENVIRONMENT)
try:
    import ray  # noqa: F401
finally:
    for _name, _value in _earlier.items():
        if _value is None:
            del os.environ[_name]
        else:
            os.environ[_name] = _value
