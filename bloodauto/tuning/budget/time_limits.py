"""The time limits of a search: of one training, of its silence, and of a block of the driver's own code.

A training's own limits are ``TimeLimits``, which the trainer, the scheduler and the simulated executor share.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.recipe import Recipe
from bloodauto.training.limits import TimeLimits
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.constants import BUDGET_CONSTANTS, BudgetConstants

__all__ = ["OutOfBudget", "TimeLimits", "hard_time_limit", "heartbeat_timeout_seconds"]

#: The alarm is repeated, should code that catches every exception swallow the first.
_REPEAT_SECONDS = 1.0
#: A timer of zero seconds would be none.
_MIN_TIMER_SECONDS = 1e-3


def heartbeat_timeout_seconds(costs: CostModel, recipe: Recipe, constants: BudgetConstants = BUDGET_CONSTANTS) -> float:
    """Wall seconds between two heartbeats that a healthy training of a recipe does not exceed.

    A training gives a heartbeat between any two batches. It gives none while its process starts, while its first batch traces
    and compiles the graph, and while it is evaluated.

    Args:
        costs: Predicts these three.
        recipe: What is trained.
        constants: Factors and minima.
    """
    longest = costs.start_seconds(cold=True) + costs.finish_seconds(recipe)
    if costs.has_timed(recipe):
        return constants.heartbeat_timeout_factor * longest
    return max(
        constants.estimated_heartbeat_timeout_factor * longest, constants.min_estimated_heartbeat_timeout_seconds
    )


class OutOfBudget(BaseException):
    """The budget is spent. As with ``KeyboardInterrupt``, code that handles errors must not catch it."""


@contextlib.contextmanager
def hard_time_limit(seconds: float, clock: Clock = SYSTEM_CLOCK) -> Iterator[None]:
    """Raises ``OutOfBudget`` inside the block after so many wall seconds, between two instructions of Python.

    The operating system's alarm does it, in the main thread only; in another thread the block is not limited. An alarm that
    was set before still rings.

    Args:
        seconds: The limit; 0 or less raises at once.
        clock: Measures how long an earlier alarm has to wait still.

    Raises:
        OutOfBudget: The block took too long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise OutOfBudget

    earlier_handler, started_at = signal.signal(signal.SIGALRM, ring), clock.now()
    earlier_delay, earlier_interval = signal.setitimer(
        signal.ITIMER_REAL, max(seconds, _MIN_TIMER_SECONDS), _REPEAT_SECONDS
    )
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, earlier_handler)
        if earlier_delay > 0:
            delay = max(earlier_delay - (clock.now() - started_at), _MIN_TIMER_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, delay, earlier_interval)
