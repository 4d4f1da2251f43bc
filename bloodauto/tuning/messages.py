"""What passes between the policy and whoever executes or shows its decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe
from bloodauto.run.artifacts import EpochReport

Outcome = Literal["complete", "pruned", "failed", "out_of_budget"]


@dataclass(frozen=True)
class SchedulerSettings:
    """What the policy is told.

    Attributes:
        seed: of suggestions and trainings.
        workers: trainings that run together.
        devices_per_worker: devices each of them reserves.
        refit_fraction: share of the budget kept for refits, 0-1; what they cannot use well goes to the search.
        finalization_device_seconds: at most kept for ensemble, export and the held-out test.
        num_folds: folds of the splits.
        max_refits: most refits of all, unless there are more workers.
        max_trials: most trials that are started; None: as many as the budget affords.
        startup_trials: suggestions drawn at random before the sampler models anything.
        local_perturbation_fraction: share, 0-1, of suggestions that lie near the incumbent instead of being the sampler's.
        watchdog_seconds: a training is never called hanging before so many seconds of silence.
        objectives: what is maximised; pruning, refits and the ensemble follow the first.
    """

    seed: int
    workers: int
    devices_per_worker: float
    refit_fraction: float
    finalization_device_seconds: float
    num_folds: int
    max_refits: int = 10
    max_trials: int | None = None
    startup_trials: int = 6
    local_perturbation_fraction: float = 0.5
    watchdog_seconds: float = 120.0
    objectives: Objectives = Objectives(("shift",))  # noqa: RUF009 (frozen)


@dataclass(frozen=True)
class Assignment:
    """A training for one worker.

    Attributes:
        kind: a trial of the search, or a refit for the ensemble.
        name: unique in the run; ``00017`` for trial 17, a refit's own name otherwise.
        lane: the ledger's slot it is charged to.
        time_limit_seconds: for the training itself; None: as long as the recipe takes.
        time_limit_with_startup_seconds: from the assignment to the last batch, start-up included, where that is what matters: a start that
            is quicker than foreseen makes the training longer. None: the limit holds as it is.
        weights_from_trial: go on from this trial's weights; None: from the recipe's own.
    """

    kind: Literal["trial", "refit"]
    name: str
    slot: str
    recipe: Recipe
    seed: int
    fold: int
    time_limit_seconds: float | None
    weights_from_trial: int | None
    time_limit_with_startup_seconds: float | None = None

    @property
    def phase(self) -> str:
        return f"{self.kind} {int(self.name) if self.kind == 'trial' else self.name}"


@dataclass(frozen=True)
class TrainingEnd:
    """How a training ended, as its worker or the executor saw it.

    Attributes:
        kind: ``finished`` its course, was ``stopped`` when asked to, or ``failed``.
        objective: on all validation images; None unless finished.
        others: the values of further objectives, where a search has several.
        reason: of a failure, a word; message: a sentence.
    """

    kind: Literal["finished", "stopped", "failed"]
    objective: float | None = None
    reason: str = ""
    message: str = ""
    secondary: tuple[float, ...] = ()


@dataclass(frozen=True)
class EndedTrial:
    """A trial that is over, for display; ``objective`` is its last value, None when there was none."""

    number: int
    backbone: str
    outcome: Outcome
    reason: str
    objective: float | None
    device_seconds: float


@dataclass(frozen=True)
class RunningTraining:
    """One training in progress, for display."""

    assignment: Assignment
    last: EpochReport | None
