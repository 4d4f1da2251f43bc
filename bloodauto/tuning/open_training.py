"""A training in progress, as the scheduler knows it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from bloodauto.run.artifacts import EpochReport
from bloodauto.run.study_attributes import Outcome
from bloodauto.tuning.messages import Assignment
from bloodauto.tuning.study import CandidateTrial


@dataclass
class OpenTraining:
    """What the scheduler knows of a training in progress.

    Attributes:
        assignment: What was assigned.
        trial: Its trial; None for a refit.
        cold: Whether its worker's process had to start.
        assigned_at: When, on the scheduler's clock.
        last_report_at: When its last epoch ended, or it was assigned.
        last_heartbeat_at: When it gave its last sign of work.
        assigned_end: Where a refit was assigned to end, in device-seconds.
        planned_seconds: Wall seconds that it was given in all.
        start_seconds: Wall seconds from the assignment to its first epoch.
        epochs_done: Its epochs, those of earlier sessions included.
        last_report: Its last epoch in this session; None before.
        slowness: Of each epoch, its seconds over those that were predicted.
        is_overdue: Whether it is silent for too long.
        stop_outcome: What it is to be recorded as when it leaves; None while it continues.
        stop_reason: Why.
    """

    assignment: Assignment
    trial: CandidateTrial | None
    cold: bool
    assigned_at: float
    last_report_at: float
    last_heartbeat_at: float
    assigned_end: float = 0.0
    planned_seconds: float = 0.0
    start_seconds: float = 0.0
    epochs_done: int = 0
    last_report: EpochReport | None = None
    slowness: list[float] = field(default_factory=list)
    is_overdue: bool = False
    stop_outcome: Outcome | None = None
    stop_reason: str = ""

    def seconds_left(self, now: float) -> float:
        """Wall seconds until it is to end as planned; 0 when that has passed.

        Args:
            now: The present moment.
        """
        return max(self.assigned_at + self.planned_seconds - now, 0.0)

    def ends_by_time(self, now: float, remaining_seconds: float) -> bool:
        """Whether its time limit ends it before its number of epochs.

        Args:
            now: The present moment.
            remaining_seconds: Predicted seconds of its remaining epochs on a quiet worker.
        """
        training_seconds = self.assignment.limits.training_seconds
        if training_seconds is None:
            return False
        schedule_ends_at = self.assigned_at + self.start_seconds + training_seconds
        slowness = statistics.median(self.slowness) if self.slowness else 1.0
        return remaining_seconds * slowness > schedule_ends_at - now
