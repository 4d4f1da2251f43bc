"""Ends a search in which nothing works: equal failures in a row before any epoch has ended."""

from __future__ import annotations

from bloodauto.tuning.messages import Aborted, Crashed, Interrupted, Rejected, TrainingEnd

#: So many trainings in a row may fail for one reason before the first epoch of any training has ended.
MAX_EQUAL_FAILURES = 5


class FailureStreak:
    """Counts trainings that failed one after another for the same reason.

    A search goes on after any failure of a single training. But while no training has ever ended an epoch, equal failures have
    a cause that all recipes share: wrong weights, a broken installation, a device that cannot be used. More would only
    spend the budget.

    Args:
        any_epoch_ended: Whether a training of an earlier session has ended an epoch.

    Example:
        >>> streak = FailureStreak(any_epoch_ended=False)
        >>> [streak.training_ended(Rejected("rejected", "no weights")) for _ in range(5)][-1]
        'the first 5 trainings failed for one reason, rejected: no weights'
    """

    def __init__(self, *, any_epoch_ended: bool) -> None:
        self._any_epoch_ended = any_epoch_ended
        self._reason, self._count = "", 0

    def epoch_ended(self) -> None:
        """Takes the end of an epoch of any training: from now on nothing is counted."""
        self._any_epoch_ended = True

    def training_ended(self, end: TrainingEnd) -> str | None:
        """Takes the end of a training.

        Args:
            end: How it ended.

        Returns:
            Why the search should end; None while it should go on.
        """
        if self._any_epoch_ended or not isinstance(end, Rejected | Interrupted | Aborted | Crashed):
            self._reason, self._count = "", 0
            return None
        self._count = self._count + 1 if end.reason == self._reason else 1
        self._reason = end.reason
        if self._count < MAX_EQUAL_FAILURES:
            return None
        return f"the first {self._count} trainings failed for one reason, {end.reason}: {end.message}"
