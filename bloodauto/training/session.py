"""Trainings in one process: the device is claimed, a fold prepared and a network traced once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.recipe import Recipe
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.models.device import Device, claim_device, claim_device_if_unused
from bloodauto.models.tensorflow import is_out_of_memory
from bloodauto.run.artifacts import EpochReport
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.kept_networks import KeptNetworks
from bloodauto.training.result import TrialResult
from bloodauto.training.trainer import TrainOptions, finish_training, ignore, never, train_epochs
from bloodauto.types import Images


@dataclass(frozen=True)
class TrainingData:
    """The images of trainings, whatever fold they leave out.

    Attributes:
        dataset: All images.
        splits: The folds.
        suite: Draws the shifted validation images.
        target: Unlabelled images of the target domain, uint8 (k, height, width, 3); None if there are none.
    """

    dataset: CellDataset
    splits: Splits
    suite: ShiftSuite
    target: Images | None = None

    def prepare(self, fold: int) -> FoldData:
        """The images of one fold.

        Args:
            fold: The fold whose images are the validation images.
        """
        return prepare_fold(self.dataset, self.splits, self.suite, fold=fold, target=self.target)


class TrainingSession:
    """Trains recipes one after another in this process.

    Example:
        data = TrainingData(dataset, splits, suite_of_recipes([recipe], seed=0))
        with TrainingSession.open(data, device=local_device()) as session:
            result = session.train(recipe, folder, seed=0, options=TrainOptions(limits=limits))
    """

    def __init__(self, data: TrainingData | FoldData, device: Device, clock: Clock) -> None:
        self._data, self._device, self._clock = data, device, clock
        self._networks = KeptNetworks()
        #: Parts in which a batch fits into memory, where a whole one did not.
        self._micro_batches: dict[Hashable, int] = {}
        self._folds: dict[int, FoldData] = {0: data} if isinstance(data, FoldData) else {}

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        data: TrainingData | FoldData,
        *,
        device: Device,
        dedicated_process: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Iterator[TrainingSession]:
        """Claims the device, and frees what trainings left in memory at the end of the block.

        Args:
            data: The images; a fold that is prepared already counts as fold 0.
            device: What this process trains on.
            dedicated_process: Whether this process exists for the session alone. The device must then be claimed as it is asked
                for; otherwise a process that has used TensorFlow already, such as a notebook's, keeps its settings.
            clock: Measures time.

        Raises:
            RunError: The device of a dedicated process cannot be claimed.
        """
        claim = claim_device if dedicated_process else claim_device_if_unused
        claim(cores=device.cores, gpu_fraction=device.gpu_fraction)
        session = cls(data, device, clock)
        try:
            yield session
        finally:
            session._networks.clear()

    def fold(self, fold: int = 0) -> FoldData:
        """The images of a fold, prepared at its first use.

        One fold is kept at a time: its training images are a copy.

        Args:
            fold: The fold whose images are the validation images.
        """
        if fold not in self._folds:
            assert isinstance(self._data, TrainingData), f"expected fold 0, the only one that was given, got {fold}"
            self._folds = {fold: self._data.prepare(fold)}
        return self._folds[fold]

    def epochs(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        seed: int,
        fold: int = 0,
        options: TrainOptions | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> Generator[EpochReport, None, TrialResult]:
        """Trains a recipe epoch by epoch; see ``train_epochs``. The network is kept for the next training like it.

        A training for which there is too little memory is continued once, from its checkpoint, with batches in twice as many
        parts: a step stays the same but for batch normalisation (``MicroBatchModel``). Later trainings of this session with the
        same network and batch size begin so.

        Args:
            recipe: What is trained.
            folder: The training's directory.
            seed: Of initial weights, sampling, order and augmentation.
            fold: The fold whose images are the validation images.
            options: How it is trained, but for the device, which is the session's; None: the defaults.
            should_stop: Called after every batch; ends the training when it returns True.

        Yields:
            A report after every epoch.

        Raises:
            UserError: As ``train_epochs``.
            TrialRejected: As ``train_epochs``.
        """
        key = (recipe.backbone, recipe.input, recipe.batch_size)
        options = replace(TrainOptions() if options is None else options, device=self._device)

        def attempt() -> Generator[EpochReport, None, TrialResult]:
            return train_epochs(
                recipe,
                self.fold(fold),
                folder=folder,
                seed=seed,
                options=replace(options, num_micro_batches=self._micro_batches.get(key, options.num_micro_batches)),
                should_stop=should_stop,
                clock=self._clock,
                networks=self._networks,
            )

        try:
            return (yield from attempt())
        except Exception as error:
            parts = 2 * self._micro_batches.get(key, options.num_micro_batches)
            if parts > recipe.batch_size or not is_out_of_memory(error):
                raise
            self._micro_batches[key] = parts
        # Outside of the handler, which would keep the networks of the traceback alive.
        self._networks.clear()
        try:
            return (yield from attempt())
        except Exception as error:
            if is_out_of_memory(error):
                # It is not the step that lacks memory, so later trainings gain nothing by smaller parts.
                self._micro_batches[key] //= 2
            raise

    def train(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        seed: int,
        fold: int = 0,
        options: TrainOptions | None = None,
        report: Callable[[EpochReport], None] = ignore,
        should_stop: Callable[[], bool] = never,
    ) -> TrialResult:
        """Trains a recipe to its end and writes ``result.json``; see ``train``.

        Args:
            recipe: What is trained.
            folder: The training's directory.
            seed: Of initial weights, sampling, order and augmentation.
            fold: The fold whose images are the validation images.
            options: How it is trained, but for the device, which is the session's; None: the defaults.
            report: Called after every epoch, when its checkpoint is written.
            should_stop: Called after every batch; ends the training when it returns True.

        Raises:
            UserError: As ``train_epochs``.
            TrialRejected: As ``train_epochs``.
        """
        epochs = self.epochs(recipe, folder, seed=seed, fold=fold, options=options, should_stop=should_stop)
        return finish_training(epochs, folder, report)
