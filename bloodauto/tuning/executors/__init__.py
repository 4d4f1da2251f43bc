"""Executors: they run what the scheduler assigns, and tell it what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    # Workers import this package; they need neither.
    from bloodauto.tuning.budget.ledger import WorkerSlots
    from bloodauto.tuning.scheduler import Scheduler


class WorkersLost(Exception):
    """What drives the workers has ended, and all of them with it; another session resumes their trainings."""


class Executor(Protocol):
    """Runs a search's trainings. ``testing.conformance.executors`` has the tests that every executor must pass."""

    def execute(self, scheduler: Scheduler, slots: WorkerSlots) -> bool:
        """Runs trainings until the scheduler assigns no more, the budget for trainings is spent, or it aborts.

        When it returns, no worker runs and the slots are handed back. Trainings that were ended for that stay open in the
        study: ``Scheduler.close`` ends them, or a later session resumes them.

        Args:
            scheduler: Assigns trainings to idle slots, and learns of every epoch, heartbeat and end.
            slots: The reserved worker slots; at most one training at a time runs in each.

        Returns:
            False when it was interrupted, for example by the user.

        Raises:
            WorkersLost: All workers are gone, for a reason that is none of the search's; it may be executed again.
        """
        ...
