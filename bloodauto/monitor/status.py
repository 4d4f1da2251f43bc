"""The state of a search as frozen values: what its budget went to, what trains, what is best, what was decided and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bloodauto.run.artifacts import BudgetPlanRow

#: ``not begun``: nothing was charged yet; ``stopped``: no process works in the run, and it can be resumed.
SearchState = Literal["not begun", "running", "stopped", "finished"]
#: What budget is spent on, in the order in which it is drawn.
SpendingKind = Literal["start-up and idle", "trials", "refits", "ensemble and export"]
SPENDING_KINDS: tuple[SpendingKind, ...] = ("start-up and idle", "trials", "refits", "ensemble and export")
DecisionKind = Literal["started", "ended"]
TrainingKind = Literal["trial", "refit"]


@dataclass(frozen=True)
class RunningStatus:
    """A training in progress.

    Attributes:
        kind: ``trial`` or ``refit``.
        name: ``trial 12``, or the refit's name.
        backbone: Label of its backbone; empty while unknown.
        origin: Where its recipe comes from, in words.
        epoch: Epochs that have ended.
        total_epochs: Epochs of its recipe; None where time ends it, as a refit, or while unknown.
        objective: The primary objective after its last epoch, 0-1; None before the first.
        curve: The primary objective after each epoch.
        elapsed_seconds: Wall seconds since it was assigned; None while unknown.
        given_seconds: Wall seconds that it may take; None while unknown.
    """

    kind: TrainingKind
    name: str
    backbone: str
    origin: str
    epoch: int
    total_epochs: int | None
    objective: float | None
    curve: tuple[float, ...]
    elapsed_seconds: float | None
    given_seconds: float | None


@dataclass(frozen=True)
class BestStatus:
    """The best complete trial so far.

    Attributes:
        trial: Its number.
        backbone: Label of its backbone.
        origin: Where its recipe comes from, in words.
        objective: The primary objective on all validation images, 0-1.
        curve: The primary objective after each epoch.
    """

    trial: int
    backbone: str
    origin: str
    objective: float
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Decision:
    """Something that the search decided.

    Attributes:
        at_unix: When, Unix time.
        kind: Whether a training started or ended.
        name: ``trial 12``, or the refit's name.
        text: What was decided and why.
    """

    at_unix: float
    kind: DecisionKind
    name: str
    text: str


@dataclass(frozen=True)
class SearchStatus:
    """A search as it stands.

    Attributes:
        run: Its directory.
        state: Whether a process works in it, and whether it is finished.
        phase: What it does now, in a few words.
        objective: Name of the primary objective.
        device: ``cpu`` or ``gpu``.
        workers: Worker slots.
        budget: As it was given, for example ``40gpu-h``.
        budget_device_seconds: The budget.
        spent_device_seconds: How much of it is spent.
        spending: Device-seconds by what they were spent on; what runs now is charged when it ends.
        search_ends_device_seconds: How much is spent when refits begin, by the plan; None without a plan.
        refits_end_device_seconds: How much is spent when all trainings are over; None without a plan.
        seconds_left: Wall seconds until the budget is spent at the latest; None unless the search is running.
        running: The trainings in progress.
        best: The best complete trial; None before the first.
        trials: Number of trials by how they ended.
        decisions: The last decisions, the newest last.
        plan: What is still to be trained.
        next_steps: Commands to go on with.
    """

    run: Path
    state: SearchState
    phase: str
    objective: str
    device: str
    workers: int
    budget: str
    budget_device_seconds: float
    spent_device_seconds: float
    spending: tuple[tuple[SpendingKind, float], ...]
    search_ends_device_seconds: float | None
    refits_end_device_seconds: float | None
    seconds_left: float | None
    running: tuple[RunningStatus, ...]
    best: BestStatus | None
    trials: tuple[tuple[str, int], ...]
    decisions: tuple[Decision, ...]
    plan: tuple[BudgetPlanRow, ...]
    next_steps: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        value = asdict(self)
        value.update(
            run=str(self.run),
            spending=dict(self.spending),
            trials=dict(self.trials),
            plan=[row.model_dump(mode="json") for row in self.plan],
        )
        return value
