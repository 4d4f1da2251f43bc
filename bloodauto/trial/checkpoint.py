"""The state of a training between epochs, as plain arrays: nothing in it is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodauto.errors import RunError
from bloodauto.files import UNREADABLE_ARRAYS, atomic_path


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
    """

    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: tuple[EpochReport, ...]
    seconds: float
    progress: float
    stage: int
    complete: bool


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
    except UNREADABLE_ARRAYS as error:
        raise RunError(f"{path}: expected saved weights, could not read them ({error}).") from None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically."""
    meta = {
        "history": [dataclasses.asdict(report) for report in checkpoint.history],
        "seconds": checkpoint.seconds,
        "progress": checkpoint.progress,
        "stage": checkpoint.stage,
        "complete": checkpoint.complete,
    }
    arrays = {f"w{index:05d}": value for index, value in enumerate(checkpoint.weights)}
    arrays |= {f"o{index:05d}": value for index, value in enumerate(checkpoint.optimizer)}
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
            return Checkpoint(
                weights=[archive[name] for name in names if name.startswith("w")],
                optimizer=[archive[name] for name in names if name.startswith("o")],
                history=tuple(EpochReport(**report) for report in meta["history"]),
                seconds=float(meta["seconds"]),
                progress=float(meta["progress"]),
                stage=int(meta["stage"]),
                complete=bool(meta["complete"]),
            )
    except UNREADABLE_ARRAYS as error:
        raise RunError(
            f"{path}: expected a checkpoint, could not read it ({error}). Delete it to start over."
        ) from None
