"""What passes between scheduler, executor and worker: frozen values, also across processes and machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bloodauto.config.recipe import Recipe
from bloodauto.run.artifacts import EpochReport
from bloodauto.training.limits import TimeLimits

TrainingKind = Literal["trial", "refit"]


@dataclass(frozen=True)
class Assignment:
    """A training for one worker slot, from the scheduler to an executor.

    Attributes:
        kind: A trial of the search, or a refit for the ensemble.
        name: Unique in the run: ``00017`` for trial 17, otherwise the refit's name.
        slot: The worker slot whose devices it is charged for.
        recipe: What is trained.
        seed: Seed of the training.
        fold: The fold that is left out of training and evaluated on.
        limits: Until when it may run, on the scheduler's clock.
        weights_from_trial: The trial whose weights it starts from; None: the recipe's own.
    """

    kind: TrainingKind
    name: str
    slot: str
    recipe: Recipe
    seed: int
    fold: int
    limits: TimeLimits
    weights_from_trial: int | None = None

    @property
    def phase(self) -> str:
        """The phase that the ledger charges it to."""
        return trial_phase(int(self.name)) if self.kind == "trial" else f"refit {self.name}"


def trial_phase(number: int) -> str:
    """The phase that the ledger charges a trial to.

    Args:
        number: The trial's number.
    """
    return f"trial {number}"


@dataclass(frozen=True)
class TrainingRequest:
    """A training for one worker process, from the executor to the worker.

    Attributes:
        name: The assignment's name.
        recipe: What is trained.
        seed: Seed of the training.
        fold: The fold that is left out of training and evaluated on.
        limits: Until when it may run, in Unix time.
        folder: Directory of its files, relative to the run directory.
        start_weights: File of the weights it starts from, relative to the run directory; None: the recipe's own.
    """

    name: str
    recipe: Recipe
    seed: int
    fold: int
    limits: TimeLimits
    folder: str
    start_weights: str | None = None


@dataclass(frozen=True)
class Completed:
    """The training reached the end of its schedule or of its patience.

    Attributes:
        objective: The primary objective on all validation images, 0-1.
        secondary: The values of the other objectives, in their order.
        is_timed: Whether it is told when it happens. Otherwise it was found in the training's files later, and says nothing of
            what its last evaluation took.
    """

    objective: float
    secondary: tuple[float, ...] = ()
    is_timed: bool = True


@dataclass(frozen=True)
class Stopped:
    """The training left before its end because it was told to, or at its hard deadline."""


@dataclass(frozen=True)
class Rejected:
    """The training cannot work, whatever is tried: a loss that is no number, an impossible shape. It is not repeated.

    Attributes:
        reason: A short word that is stored with the trial, for example ``nan``.
        message: A sentence.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class Interrupted:
    """Something outside the training took it away: its process, the machine's memory, the disk.

    A training whose process died was restarted from its checkpoint before it is said to be interrupted.

    Attributes:
        reason: A short word, for example ``worker_died``, ``watchdog``, ``out_of_memory`` or ``io``.
        message: A sentence.
        process_lost: Whether the worker's process is gone, so that the slot's next training waits for a new one.
    """

    reason: str
    message: str
    process_lost: bool = False


@dataclass(frozen=True)
class Aborted:
    """The data or our code is wrong: every training would fail. The search stops.

    Attributes:
        message: A sentence.
        reason: A short word.
    """

    message: str
    reason: str = "abort"


@dataclass(frozen=True)
class Crashed:
    """The training raised an error that nobody expected: a fault of ours. Other trainings go on.

    Attributes:
        message: Type and first line of the error.
        traceback: The whole traceback; it goes into the run's log.
        reason: A short word.
    """

    message: str
    traceback: str
    reason: str = "crash"


TrainingFailure = Rejected | Interrupted | Aborted | Crashed
#: How a training ended.
TrainingEnd = Completed | Stopped | TrainingFailure


def refit_outcome(end: TrainingEnd) -> str:
    """How a refit ended, as the study keeps it: ``completed``, ``stopped`` or ``failed``.

    Args:
        end: Its end.
    """
    if isinstance(end, Completed):
        return "completed"
    return "stopped" if isinstance(end, Stopped) else "failed"


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended, for display.

    Attributes:
        number: Its number.
        backbone: Label of its backbone.
        outcome: ``complete``, ``pruned``, ``failed`` or ``out_of_budget``.
        reason: A short word; empty for a complete trial.
        objective: The last value of the primary objective, 0-1; None when there was none.
        device_seconds: Devices reserved x seconds reserved.
    """

    number: int
    backbone: str
    outcome: str
    reason: str
    objective: float | None
    device_seconds: float


@dataclass(frozen=True)
class RunningTraining:
    """A training in progress, for display.

    Attributes:
        assignment: What is trained.
        last_report: Its last epoch; None before the first has ended.
    """

    assignment: Assignment
    last_report: EpochReport | None = None
