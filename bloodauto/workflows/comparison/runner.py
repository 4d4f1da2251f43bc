"""Trains variants one after another on the same images, within one budget; an interrupted comparison can be resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.machine import available_cores, count_local_gpus
from bloodauto.config.recipe import tta_weights
from bloodauto.data.clean import clean, write_cleaning_csv
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import make_splits, read_splits, write_splits
from bloodauto.errors import RunError, TrialRejected
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.models.backbone_networks import find_weights
from bloodauto.models.backbones import check_recipe
from bloodauto.models.device import Device, DeviceSettings, cached_device_settings
from bloodauto.models.network import trained_network
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.artifacts.comparison import ComparisonRecord, TimeAllocation
from bloodauto.run.artifacts.evaluation import TtaPredictions
from bloodauto.run.artifacts.training import VariantOutcome
from bloodauto.run.directory import RunDirectory
from bloodauto.run.lock import run_lock
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.augmentation import check_augmentation, shift_suite_for
from bloodauto.training.limits import TimeLimits
from bloodauto.training.session import TrainingSession
from bloodauto.training.trainer import TrainOptions
from bloodauto.tuning.budget.ledger import BudgetAccount, Ledger
from bloodauto.workflows.comparison.settings import (
    ComparisonSettings,
    budget_device_seconds,
    load_comparison_dataset,
)
from bloodauto.workflows.comparison.time_allocation import (
    MARGIN,
    allocate_time,
    measure_steps,
    seconds_until_end_of,
)
from bloodauto.workflows.comparison.variants import Variant

_MIN_TRAINING_SECONDS = 1.0


class ComparisonListener(Protocol):
    """Receives the progress of a comparison."""

    def planned(self, variants: Sequence[Variant], fold_data: FoldData, seconds_per_variant: float | None) -> None:
        """Everything is checked; the trainings begin.

        Args:
            variants: What is trained, in this order.
            fold_data: The images.
            seconds_per_variant: Wall-clock seconds that each may train; None: no limit.
        """

    def epoch(self, name: str, report: EpochReport) -> None:
        """An epoch of the named variant has ended."""


@dataclass(frozen=True)
class VariantResult:
    """The result of one variant's training.

    Attributes:
        name: The variant.
        directory: Directory of the training.
        finished: Whether it completed: by epochs, patience or its time limit.
        failure: Why it has no result; empty when it has one.
        epochs: Trained epochs.
        parameters: Weights of the network.
        device_seconds: Devices x seconds that were reserved for it, evaluation included.
    """

    name: str
    directory: TrainingDirectory
    finished: bool
    failure: str
    epochs: int
    parameters: int
    device_seconds: float


@dataclass(frozen=True)
class _Execution:
    """What the trainings of one call share.

    Attributes:
        account: Pays for the comparison.
        session: Trains the variants.
        allocation: Time of each variant; None without a budget.
        listener: Receives the progress.
        should_stop: Whether the caller ends the comparison.
    """

    account: BudgetAccount
    session: TrainingSession
    allocation: TimeAllocation | None
    listener: ComparisonListener
    should_stop: Callable[[], bool]


class ComparisonRunner:
    """A directory with one training for each variant.

    Args:
        run_dir: The directory, new or the comparison's own.
        settings: What the variants share.
        variants: What is trained.
        clock: The time.

    Attributes:
        run: The directory.
        settings: What the variants share.
        variants: What is trained.
        fold_data: The images.

    Raises:
        UserError: A recipe, weights, images or a budget that cannot be used; or the directory holds another comparison.
    """

    def __init__(
        self,
        run_dir: Path,
        settings: ComparisonSettings,
        variants: Sequence[Variant],
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.run, self.settings, self.variants = RunDirectory(run_dir), settings, tuple(variants)
        self._clock = clock
        on_gpu = count_local_gpus() > 0
        self._cores = available_cores()
        self._gpu_fraction = 1.0 if on_gpu else 0.0
        self._devices = 1.0 if on_gpu else float(self._cores)
        self._budget_seconds = budget_device_seconds(settings.budget, devices=self._devices, on_gpu=on_gpu)
        self._weights = self._checked_recipes()
        dataset = load_comparison_dataset(settings)
        self._check_unchanged(dataset)
        self.fold_data = self._load_fold(dataset)

    def _checked_recipes(self) -> dict[str, Path | None]:
        """Checks every recipe, then finds the weights of each."""
        folder = None if self.settings.weights_dir is None else Path(self.settings.weights_dir)
        for variant in self.variants:
            check_recipe(variant.recipe)
            check_augmentation(variant.recipe)
        backbones = {variant.name: variant.recipe.backbone for variant in self.variants}
        return {name: find_weights(backbone.name, backbone.weights, folder) for name, backbone in backbones.items()}

    def _check_unchanged(self, dataset: CellDataset) -> None:
        """A resume must have the same settings, images and variants; the first call writes them."""
        record = ComparisonRecord(
            settings={name: value for name, value in asdict(self.settings).items() if name != "weights_dir"},
            images=len(dataset),
            digest=dataset.digest(),
            variants={variant.name: variant.recipe.id for variant in self.variants},
        )
        saved = self.run.comparison.read_if_exists()
        if saved is not None:
            differing = [name for name in type(record).model_fields if getattr(saved, name) != getattr(record, name)]
            if differing:
                raise RunError(
                    f"{self.run.root}: expected the comparison that was begun there, got other {', '.join(differing)}. "
                    "Give the same options, or take another --run."
                )
        elif self.run.root.is_dir() and any(self.run.root.iterdir()):
            raise RunError(f"{self.run.root}: expected an empty or new folder, got one with other files. Take another.")
        else:
            self.run.comparison.write(record)

    def _load_fold(self, dataset: CellDataset) -> FoldData:
        """The images of the fold, with the splits that the directory has, or new ones."""
        if self.run.splits.exists:
            splits = read_splits(self.run.splits.path, dataset)
        else:
            cleaned = clean(dataset, enabled=self.settings.cleaning)
            splits = make_splits(dataset, cleaned, seed=self.settings.seed)
            write_cleaning_csv(self.run.cleaning.path, dataset, cleaned)
            write_splits(self.run.splits.path, dataset, splits)
        suite = shift_suite_for([variant.recipe for variant in self.variants], seed=self.settings.seed)
        return prepare_fold(dataset, splits, suite)

    def execute(
        self, listener: ComparisonListener, should_stop: Callable[[], bool]
    ) -> tuple[VariantResult, ...] | None:
        """Trains every variant that is not trained yet.

        With a budget every variant trains for the same time: what building and evaluation of all of them leave, in equal
        parts. A schedule follows the larger of its fraction of epochs and its fraction of time, so every learning rate decays.

        Args:
            listener: Receives the progress.
            should_stop: Ends the comparison, with its state saved, when it returns True.

        Returns:
            The result of each variant, in order; None when ``should_stop`` ended the comparison.

        Raises:
            BudgetError: Too small for any training.
        """
        settings = cached_device_settings(on_gpu=self._gpu_fraction > 0)
        device = Device(self._cores, self._gpu_fraction, settings)
        with run_lock(self.run), TrainingSession.open(self.fold_data, device=device, clock=self._clock) as session:
            with BudgetAccount.open(
                self.run.ledger,
                budget_device_seconds=math.inf if self._budget_seconds is None else self._budget_seconds,
                devices_per_slot=self._devices,
                clock=self._clock,
            ) as account:
                with account.phase("measuring"):
                    allocation = self._time_allocation(settings)
                    execution = _Execution(account, session, allocation, listener, should_stop)
                    listener.planned(
                        self.variants, self.fold_data, None if allocation is None else allocation.training_seconds
                    )
                for index in range(len(self.variants)):
                    if not self._train_unless_ended(index, execution):
                        return None
            return tuple(self._result(variant, account.ledger) for variant in self.variants)

    def _time_allocation(self, device: DeviceSettings) -> TimeAllocation | None:
        """How long each variant may train; measured and written once, so that a resume gives the same time."""
        if self.settings.budget is None or self._budget_seconds is None:
            return None
        if not self.run.time_allocation.exists:
            recipes = [variant.recipe for variant in self.variants]
            steps = measure_steps(recipes[0], self.fold_data, device, self._clock)
            self.run.time_allocation.write(
                allocate_time(
                    recipes,
                    steps,
                    budget=self.settings.budget,
                    budget_device_seconds=self._budget_seconds,
                    devices=self._devices,
                )
            )
        return self.run.time_allocation.read()

    def _train_unless_ended(self, index: int, execution: _Execution) -> bool:
        """False when the caller stopped the comparison before the variant's end."""
        variant, allocation = self.variants[index], execution.allocation
        outcome = self.run.variant(variant.name).outcome
        if outcome.exists:
            return True
        with execution.account.phase(variant.name):
            if allocation is not None and execution.account.seconds_left < allocation.overhead_seconds[index]:
                outcome.write(VariantOutcome(status="failed", message="not begun, others took longer than measured"))
                return True
            ended = self._train(index, execution)
        if ended is not None:
            outcome.write(ended)
        return ended is not None

    def _train(self, index: int, execution: _Execution) -> VariantOutcome | None:
        """How the training ended; None when the caller stopped it before its end."""
        variant, training = self.variants[index], self.run.variant(self.variants[index].name)

        def report(epoch: EpochReport) -> None:
            execution.account.ledger.heartbeat()
            execution.listener.epoch(variant.name, epoch)

        try:
            result = execution.session.train(
                variant.recipe,
                training.root,
                seed=self.settings.seed,
                options=self._options(index, execution),
                report=report,
                should_stop=execution.should_stop,
            )
        except TrialRejected as failure:
            return VariantOutcome(status="failed", message=str(failure))
        if execution.should_stop() and not result.finished:
            return None
        if not result.history:
            return VariantOutcome(status="failed", message="no epoch ended within its part of the budget")
        if len(tta_weights(variant.recipe.tta_transforms)) > 1:
            self._predict_with_tta(variant)
        return VariantOutcome(status="finished" if result.finished else "stopped")

    def _options(self, index: int, execution: _Execution) -> TrainOptions:
        variant, seconds = self.variants[index], None
        if execution.allocation is not None:
            history = self.run.variant(variant.name).history.read_if_exists()
            trained = 0.0 if history is None else sum(epoch.seconds for epoch in history.epochs)
            seconds = max(execution.allocation.training_seconds - trained, _MIN_TRAINING_SECONDS)
        return TrainOptions(
            objective="shift",
            weights_file=self._weights[variant.name],
            limits=TimeLimits(training_seconds=seconds, hard_deadline=self._hard_deadline(index, execution)),
        )

    def _hard_deadline(self, index: int, execution: _Execution) -> float:
        """When a training must stop, on the clock: the variants so far may not take longer than their part of the budget."""
        allocation = execution.allocation
        if allocation is None:
            return math.inf
        spent_seconds = execution.account.ledger.spent_device_seconds / self._devices
        left_seconds = seconds_until_end_of(index, allocation) - spent_seconds
        return self._clock.now() + left_seconds - MARGIN * allocation.evaluation_seconds

    def _predict_with_tta(self, variant: Variant) -> None:
        """Writes the trained network's predictions with its recipe's test-time augmentation."""
        training, data = self.run.variant(variant.name), self.fold_data
        network = trained_network(
            variant.recipe, training.weights.path, num_classes=data.num_classes, image_shape_px=data.image_shape_px
        )
        tta = tta_weights(variant.recipe.tta_transforms)
        training.predictions_tta.write(
            TtaPredictions(
                clean=predict_batches(network, data.images, data.validation_index, tta=tta),
                shifted=predict_batches(network, data.shifted_images, tta=tta),
            )
        )

    def _result(self, variant: Variant, ledger: Ledger) -> VariantResult:
        training = self.run.variant(variant.name)
        outcome, device_seconds = training.outcome.read(), ledger.charged_for(variant.name)
        if outcome.status == "failed":
            return VariantResult(
                variant.name,
                training,
                finished=False,
                failure=outcome.message,
                epochs=0,
                parameters=0,
                device_seconds=device_seconds,
            )
        parameters = training.result.read().parameters
        epochs = len(training.history.read().epochs)
        return VariantResult(
            variant.name,
            training,
            finished=outcome.status == "finished",
            failure="",
            epochs=epochs,
            parameters=parameters,
            device_seconds=device_seconds,
        )
