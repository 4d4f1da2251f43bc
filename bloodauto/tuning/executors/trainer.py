"""What a worker does its trainings with: a trainer, made by a factory that is sent to the worker's process."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol

from bloodauto.run.artifacts import EpochReport
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.tuning.messages import Completed, TrainingEnd, TrainingRequest

#: Gives a heartbeat and returns whether the training is to save its state and leave at once; called between any two batches.
Heartbeat = Callable[[], bool]
#: Yields the report of every epoch; its return value says how the training ended.
Training = Generator[EpochReport, None, TrainingEnd]


class TrialTrainer(Protocol):
    """Trains what a worker is given; lives as long as the worker's process."""

    def train(self, request: TrainingRequest, heartbeat: Heartbeat) -> Training:
        """Trains what a request says, from a checkpoint if there is one in its folder.

        Args:
            request: What to train.
            heartbeat: To be called at least every few seconds while an epoch is trained. When it returns True, the state is
                saved and the training ends.

        Yields:
            The report of every epoch, its checkpoint written.

        Returns:
            How the training ended. A failure is raised instead. Memory is freed when the generator ends or is closed.
        """
        ...

    def close(self) -> None:
        """Frees what the trainer holds; called once, after the last training."""
        ...


class TrainerFactory(Protocol):
    """Makes the trainer of a worker; it is pickled and sent to the worker's process."""

    def make_trainer(self) -> TrialTrainer:
        """The trainer; called once in each process, before anything else."""
        ...

    def end_on_disk(self, training: TrainingDirectory) -> Completed | None:
        """How a training ended by the files that its trainer left, for a driver that was not told.

        Args:
            training: Its directory.

        Returns:
            None where it has not finished.
        """
        ...
