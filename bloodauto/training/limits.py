"""How long a training may take, as arithmetic: shared by the trainer, the scheduler and the simulated executor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bloodauto.config.recipe import Recipe

#: A training that starts late keeps this fraction of its planned time; with less it would be worth nothing.
MIN_TIME_FRACTION = 0.3
#: Sums of steps do not reach a whole number exactly.
_ROUNDING = 1e-6
_MIN_SECONDS = 1e-9


@dataclass(frozen=True)
class TimeLimits:
    """Until when one training may run; all times are seconds on one clock.

    A training that is given a time follows its learning-rate schedule by time (budgeted training, Li et al.,
    arXiv:1905.04753), so that it ends in time with its learning rate fully decayed.

    Attributes:
        training_seconds: Planned seconds from the first batch to the end of the schedule, evaluation after each epoch
            included, start-up and final evaluation excluded. None: the schedule follows the number of steps alone.
        schedule_until: The moment at which the schedule is to end, where that is what matters: an early first batch then
            makes the training longer, a late one shorter, but not shorter than ``MIN_TIME_FRACTION`` of
            ``training_seconds``. None: ``training_seconds`` count from the first batch.
        hard_deadline: The moment at which the training leaves with its work saved, finished or not.

    Example:
        >>> limits = TimeLimits(training_seconds=100.0, schedule_until=500.0)
        >>> limits.training_seconds_from(380.0)
        120.0
    """

    training_seconds: float | None = None
    schedule_until: float | None = None
    hard_deadline: float = math.inf

    def training_seconds_from(self, first_batch_at: float) -> float | None:
        """Seconds of training time when the first batch begins at a moment.

        Args:
            first_batch_at: That moment.

        Returns:
            Seconds; None when the schedule follows the number of steps alone.
        """
        if self.training_seconds is None or self.schedule_until is None:
            return self.training_seconds
        return max(self.schedule_until - first_batch_at, MIN_TIME_FRACTION * self.training_seconds)

    def is_past_deadline(self, now: float) -> bool:
        """Whether the training has to leave.

        Args:
            now: The present moment.
        """
        return now > self.hard_deadline

    def shifted(self, seconds: float) -> TimeLimits:
        """The same limits on a clock that is ahead.

        Args:
            seconds: How far the other clock is ahead of this one.
        """
        until = None if self.schedule_until is None else self.schedule_until + seconds
        return replace(self, schedule_until=until, hard_deadline=self.hard_deadline + seconds)


def stage_ends(recipe: Recipe) -> tuple[float, ...]:
    """The fraction of a recipe's epochs that is done when each stage ends, the last being 1.

    Args:
        recipe: The recipe.
    """
    epochs, ends = 0, []
    for stage in recipe.stages:
        epochs += stage.epochs
        ends.append(epochs / recipe.total_epochs)
    return tuple(ends)


class ScheduleProgress:
    """How much of a recipe's schedule is done: by steps, or by time where that is further.

    Args:
        stage_ends: See ``stage_ends``.
        training_seconds: Seconds from now to the end of the schedule; None: it follows the steps alone.
        done: The fraction that an earlier session did, 0-1.

    Example:
        >>> progress = ScheduleProgress((0.5, 1.0), training_seconds=100.0)
        >>> progress.advance(0.1)
        >>> progress.fraction(elapsed_seconds=30.0)
        0.3
    """

    def __init__(self, stage_ends: Sequence[float], *, training_seconds: float | None, done: float = 0.0) -> None:
        self._bounds = (0.0, *stage_ends)
        self._training_seconds = training_seconds
        self._start = self._by_steps = done

    @property
    def by_steps(self) -> float:
        """The fraction that is done by steps, 0-1."""
        return self._by_steps

    def advance(self, fraction: float) -> None:
        """Counts steps.

        Args:
            fraction: Their fraction of all steps of the recipe.
        """
        self._by_steps += fraction

    def end_stage(self, stage: int) -> None:
        """Skips the rest of a stage.

        Args:
            stage: Its index.
        """
        self._by_steps = max(self._by_steps, self._bounds[stage + 1])

    def fraction(self, elapsed_seconds: float) -> float:
        """The fraction of the recipe that is done, 0-1.

        Args:
            elapsed_seconds: Seconds since the first batch of this session.
        """
        by_time = 0.0
        if self._training_seconds is not None:
            by_time = self._start + (1 - self._start) * elapsed_seconds / max(self._training_seconds, _MIN_SECONDS)
        return min(max(self._by_steps, by_time), 1.0)

    def stage_fraction(self, stage: int, elapsed_seconds: float) -> float:
        """The fraction of a stage that is done; 1 or more at its end.

        Args:
            stage: Its index.
            elapsed_seconds: Seconds since the first batch of this session.
        """
        start, end = self._bounds[stage], self._bounds[stage + 1]
        return (self.fraction(elapsed_seconds) + _ROUNDING - start) / (end - start)

    def seconds_until_stage_end(self, stage: int) -> float:
        """Seconds from the first batch of this session to the moment at which time ends a stage.

        Args:
            stage: Its index.

        Returns:
            Seconds; infinity when the schedule follows the steps alone.
        """
        if self._training_seconds is None:
            return math.inf
        return self._training_seconds * (self._bounds[stage + 1] - self._start) / max(1 - self._start, _ROUNDING)
