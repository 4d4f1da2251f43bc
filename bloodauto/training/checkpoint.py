"""The state of a training between epochs, as plain arrays: nothing in it is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bloodauto.errors import RunError
from bloodauto.run.files import ARRAY_READ_ERRORS, atomic_path


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did.

    Attributes:
        epoch: 1-based, over all stages.
        stage: 0-based.
        seconds: wall seconds of the epoch, evaluation included.
        evaluation_seconds: of these, on evaluation.
        train_loss, train_accuracy: on augmented training images, while learning.
        learning_rate: at the epoch's end.
        loss, accuracy, balanced_accuracy, macro_f1: on clean validation images.
        shift: the shift suite's score, 0-1.
        objective: what the search maximises, 0-1.
        data_wait_fraction: share of the training time spent waiting for images, 0-1.
        stage_progress: share of the stage that is done at the epoch's end, 0-1.
    """

    epoch: int
    stage: int
    seconds: float
    evaluation_seconds: float
    train_loss: float
    train_accuracy: float
    learning_rate: float
    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    shift: float
    objective: float
    data_wait_fraction: float
    stage_progress: float


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to go on after an epoch.

    Attributes:
        weights: the network's, in its own order.
        optimizer: the optimizer's variables, in its own order; empty when the next epoch starts a new stage.
        history: all epochs so far.
        seconds: training time so far.
        progress: share of the whole recipe that is done, 0-1.
        stage: the stage the next epoch belongs to.
        complete: nothing is left to train.
        averages: of the weights over the stage's steps, as ``WeightAverage`` has them; ``average_steps``: how many steps.
        stage_best: the weights of the stage's best epoch so far, where the next stage will start from them.
    """

    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: tuple[EpochReport, ...]
    seconds: float
    progress: float
    stage: int
    complete: bool
    averages: list[np.ndarray] = field(default_factory=list)
    average_steps: int = 0
    stage_best: list[np.ndarray] = field(default_factory=list)


#: What the names of a list's arrays begin with in the file.
_LETTERS = {"w": "weights", "o": "optimizer", "a": "averages", "b": "stage_best"}


def write_weights(path: Path, weights: list[np.ndarray]) -> None:
    """Writes a network's weights atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **{f"w{index:05d}": value for index, value in enumerate(weights)})


def read_weights(path: Path) -> list[np.ndarray]:
    """Reads what ``write_weights`` wrote.

    Raises:
        RunError: no such file, or not one of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in sorted(archive.files) if name.startswith("w")]
    except ARRAY_READ_ERRORS as error:
        raise RunError(f"{path}: expected saved weights, could not read them ({error}).") from None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically."""
    meta = {
        "history": [dataclasses.asdict(report) for report in checkpoint.history],
        "seconds": checkpoint.seconds,
        "progress": checkpoint.progress,
        "stage": checkpoint.stage,
        "complete": checkpoint.complete,
        "average_steps": checkpoint.average_steps,
    }
    arrays = {
        f"{letter}{index:05d}": value
        for letter, name in _LETTERS.items()
        for index, value in enumerate(getattr(checkpoint, name))
    }
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, meta=np.asarray(json.dumps(meta)), **arrays)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Reads a checkpoint; None when there is none.

    Raises:
        RunError: the file is there but is not a checkpoint.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(str(archive["meta"]))
            names = sorted(archive.files)
            lists = {
                name: [archive[one] for one in names if one.startswith(letter)] for letter, name in _LETTERS.items()
            }
            return Checkpoint(
                **lists,
                average_steps=int(meta["average_steps"]),
                history=tuple(EpochReport(**report) for report in meta["history"]),
                seconds=float(meta["seconds"]),
                progress=float(meta["progress"]),
                stage=int(meta["stage"]),
                complete=bool(meta["complete"]),
            )
    except ARRAY_READ_ERRORS as error:
        raise RunError(
            f"{path}: expected a checkpoint, could not read it ({error}). Delete it to start over."
        ) from None
