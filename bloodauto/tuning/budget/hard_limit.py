"""The last line of the budget: what still runs when it is spent is given up, wherever it is."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

#: Should the first be lost in code that swallows everything.
_REPEAT_SECONDS = 1.0
_MIN_TIMER_SECONDS = 1e-3


class OutOfBudget(BaseException):
    """The budget is spent. As with ``KeyboardInterrupt``, nothing that only handles errors should catch it."""


@contextlib.contextmanager
def hard_time_limit(seconds: float) -> Iterator[None]:
    """Raises ``OutOfBudget`` inside the block after so many wall seconds, between two instructions of Python.

    Works in the main thread, by the operating system's alarm; elsewhere the block is not bounded.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfBudget

    before, started = signal.signal(signal.SIGALRM, ring), time.monotonic()
    rang = signal.setitimer(signal.ITIMER_REAL, max(seconds, _MIN_TIMER_SECONDS), _REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if rang[0] > 0:
            # Somebody else's alarm goes on where it was.
            signal.setitimer(
                signal.ITIMER_REAL, max(rang[0] - (time.monotonic() - started), _MIN_TIMER_SECONDS), rang[1]
            )
