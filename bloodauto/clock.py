"""Time as an argument: training, evaluation and tuning take a clock instead of calling ``time``."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time. The system's clock and a simulated one have the same two methods."""

    def now(self) -> float:
        """Seconds since an arbitrary moment.

        The value never decreases. It is comparable within one process only.
        """
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC.

        The value is comparable between machines. It jumps when somebody sets the machine's clock.
        """
        ...


class SystemClock:
    """The clock of this machine.

    Example:
        >>> clock = SystemClock()
        >>> earlier = clock.now()
        >>> clock.now() >= earlier
        True
    """

    def now(self) -> float:
        """As ``Clock.now``."""
        return time.monotonic()

    def wall(self) -> float:
        """As ``Clock.wall``."""
        return time.time()


class SimulatedClock:
    """A clock that stands still until it is moved; ``now`` and ``wall`` are the same.

    Args:
        seconds: The time at the start.

    Example:
        >>> clock = SimulatedClock()
        >>> clock.advance(90.0)
        >>> clock.now()
        90.0
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def now(self) -> float:
        """As ``Clock.now``."""
        return self._seconds

    def wall(self) -> float:
        """As ``Clock.wall``."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Moves the time forward.

        Args:
            seconds: How far, 0 or more.
        """
        assert seconds >= 0, f"expected 0 or more seconds, got {seconds}"
        self._seconds += seconds

    def move_to(self, seconds: float) -> None:
        """Moves the time forward to a moment.

        Args:
            seconds: The new time, not before the present one.
        """
        assert seconds >= self._seconds, f"expected a time from {self._seconds} on, got {seconds}"
        self._seconds = seconds


#: The clock of whoever is given none.
SYSTEM_CLOCK = SystemClock()
