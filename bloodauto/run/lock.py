"""The lock of a run directory: one process at a time works in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import filelock

from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory


@contextlib.contextmanager
def run_lock(run: RunDirectory) -> Iterator[None]:
    """Holds a run for this process; its directory is created if it is not there.

    The lock is the operating system's, so that a killed process leaves none behind.

    Args:
        run: The run.

    Raises:
        RunError: Another process holds it, or nothing can be written there.
    """
    lock = filelock.FileLock(run.lock, timeout=0)
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise RunError(
            f"{run.root}: another search is running in it. Wait for it, end it, or take another --run."
        ) from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(
            f"{run.root}: expected a folder that a run can be written to, got: {reason}. Take another --run."
        ) from error
    try:
        yield
    finally:
        lock.release()
