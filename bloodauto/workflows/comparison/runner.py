"""Trains variants one after another on the same images, within one budget; an interrupted experiment can be resumed."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.config.machine import available_cores, count_local_gpus
from bloodauto.config.recipe import tta_weights
from bloodauto.data.clean import clean, write_cleaning_csv
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import make_splits, read_splits, write_splits
from bloodauto.errors import BudgetError, RunError, TrialRejected
from bloodauto.evaluation.evaluator import Evaluator
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.models.backbones import check_recipe, find_weights
from bloodauto.models.device import DeviceSettings, cached_device_settings, claim_device_if_unused
from bloodauto.models.network import build_network, trained_network
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json, write_arrays, write_json
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.augmentation import check_augmentation
from bloodauto.training.limits import TimeLimits
from bloodauto.training.suite_weights import shift_suite_for
from bloodauto.training.trainer import TrainOptions, train
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.workflows.comparison.settings import (
    ExperimentSettings,
    TimeAllocation,
    budget_device_seconds,
    load_experiment_dataset,
)
from bloodauto.workflows.comparison.variants import Variant
from bloodauto.workflows.session import locked

#: Factor on seconds that are measured once, on a machine that does other things too.
_MARGIN = 1.3
_SLOT = "driver"


class ExperimentListener(Protocol):
    """Receives the progress of an experiment."""

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
class _Interaction:
    """The ways in which an experiment and its caller talk."""

    listener: ExperimentListener
    should_stop: Callable[[], bool]


@dataclass(frozen=True)
class VariantResult:
    """The result of one variant's training.

    Attributes:
        name: The variant.
        folder: Folder of the training.
        finished: Whether it completed: by epochs, patience or its time limit.
        failure: Why it has no result; empty when it has one.
        epochs: Trained epochs.
        parameters: Weights of the network.
        device_seconds: Devices x seconds that were reserved for it, evaluation included.
    """

    name: str
    folder: Path
    finished: bool
    failure: str
    epochs: int
    parameters: int
    device_seconds: float


class Experiment:
    """A directory with one training for each variant.

    Args:
        run: The directory, new or the experiment's own.
        settings: What the variants share.
        variants: What is trained.

    Attributes:
        directory: The directory.
        settings: What the variants share.
        variants: What is trained.
        fold_data: The images.

    Raises:
        UserError: A recipe, weights, images or a budget that cannot be used; or the directory holds another experiment.
    """

    def __init__(self, run: Path, settings: ExperimentSettings, variants: Sequence[Variant]) -> None:
        self.directory, self.settings, self.variants = RunDirectory(run), settings, tuple(variants)
        on_gpu = count_local_gpus() > 0
        self._cores = available_cores()
        self._gpu_fraction = 1.0 if on_gpu else 0.0
        self._devices = 1.0 if on_gpu else float(self._cores)
        self._budget_seconds = budget_device_seconds(settings.budget, devices=self._devices, on_gpu=on_gpu)
        self._weights = self._checked_recipes()
        dataset = load_experiment_dataset(settings)
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
        identity = {
            "settings": {name: value for name, value in asdict(self.settings).items() if name != "weights_dir"},
            "images": len(dataset),
            "digest": dataset.digest(),
            "variants": {variant.name: variant.recipe.id for variant in self.variants},
        }
        path = self.directory.root / "experiment.json"
        if path.is_file():
            saved = read_json(path)
            differing = [
                name for name, value in identity.items() if not isinstance(saved, dict) or saved.get(name) != value
            ]
            if differing:
                raise RunError(
                    f"{self.directory.root}: expected the experiment that was begun there, got other {', '.join(differing)}. "
                    "Give the same options, or take another --run."
                )
        elif self.directory.root.is_dir() and any(self.directory.root.iterdir()):
            raise RunError(
                f"{self.directory.root}: expected an empty or new folder, got one with other files. Take another."
            )
        else:
            write_json(path, identity)

    def _load_fold(self, dataset: CellDataset) -> FoldData:
        """The images of the fold, with the splits that the directory has, or new ones."""
        if self.directory.splits.path.is_file():
            splits = read_splits(self.directory.splits.path, dataset)
        else:
            cleaned = clean(dataset, enabled=self.settings.cleaning)
            splits = make_splits(dataset, cleaned, seed=self.settings.seed)
            write_cleaning_csv(self.directory.cleaning.path, dataset, cleaned)
            write_splits(self.directory.splits.path, dataset, splits)
        suite = shift_suite_for([variant.recipe for variant in self.variants], seed=self.settings.seed)
        return prepare_fold(dataset, splits, suite)

    def folder(self, name: str) -> Path:
        """The folder of a variant's training."""
        return self.directory.root / "variants" / name

    def run(self, listener: ExperimentListener, should_stop: Callable[[], bool]) -> tuple[VariantResult, ...] | None:
        """Trains every variant that is not trained yet.

        With a budget every variant trains for the same time: what building and evaluation of all of them leave, in equal
        parts. A schedule follows the larger of its fraction of epochs and its fraction of time, so every learning rate decays.

        Args:
            listener: Receives the progress.
            should_stop: Ends the experiment, with its state saved, when it returns True.

        Returns:
            The result of each variant, in order; None when ``should_stop`` ended the experiment.

        Raises:
            BudgetError: Too small for any training.
        """
        interaction = _Interaction(listener, should_stop)
        with locked(self.directory):
            device = cached_device_settings(on_gpu=self._gpu_fraction > 0)
            claim_device_if_unused(cores=self._cores, gpu_fraction=self._gpu_fraction)
            ledger = Ledger(
                self.directory.ledger,
                budget_device_seconds=math.inf if self._budget_seconds is None else self._budget_seconds,
                now=time.monotonic,
                wall_clock=time.time,
            )
            ledger.reserve(_SLOT, self._devices, "measuring")
            try:
                allocation = self._time_allocation(device)
                listener.planned(
                    self.variants, self.fold_data, None if allocation is None else allocation.training_seconds
                )
                for index in range(len(self.variants)):
                    if not self._train_unless_done(index, allocation, ledger, device, interaction):
                        return None
                return tuple(self._read(variant, ledger) for variant in self.variants)
            finally:
                ledger.release(_SLOT)

    def _train_unless_done(
        self,
        index: int,
        allocation: TimeAllocation | None,
        ledger: Ledger,
        device: DeviceSettings,
        interaction: _Interaction,
    ) -> bool:
        """False when the caller stopped the experiment before the variant's end."""
        variant = self.variants[index]
        outcome = self.folder(variant.name) / "outcome.json"
        if outcome.is_file():
            return True
        ledger.set_phase(_SLOT, variant.name)
        if allocation is not None:
            needed = self._devices * allocation.overhead_seconds[index]
            if ledger.remaining_device_seconds < needed:
                write_json(outcome, {"failure": "not begun, others took longer than measured"})
                return True
        return self._train(index, allocation, ledger, device, interaction)

    def _time_allocation(self, device: DeviceSettings) -> TimeAllocation | None:
        """How long each variant may train; measured and written once, so that a resume gives the same time."""
        if self._budget_seconds is None:
            return None
        path = self.directory.root / "time_allocation.json"
        if not path.is_file():
            started = time.monotonic()
            build_seconds, trace_seconds, evaluation_seconds = self._measure(device)
            measurement_seconds = time.monotonic() - started
            passes = [len(tta_weights(variant.recipe.tta_transforms)) for variant in self.variants]
            # Building, the evaluations of the last epoch and of the best one, and one per TTA transform where there are several.
            overhead_seconds = [
                _MARGIN * (build_seconds + evaluation_seconds * (2 + (count if count > 1 else 0))) for count in passes
            ]
            wall_seconds = self._budget_seconds / self._devices - measurement_seconds
            training_seconds = (wall_seconds - sum(overhead_seconds)) / len(self.variants)
            # A stage's first step, which builds its graph, cannot be interrupted.
            least_seconds = _MARGIN * trace_seconds * max(len(variant.recipe.stages) for variant in self.variants)
            if training_seconds < least_seconds:
                needed = self._devices * (
                    measurement_seconds + sum(overhead_seconds) + len(self.variants) * least_seconds
                )
                raise BudgetError(
                    f"--budget {self.settings.budget}: expected at least {needed:.0f} device-seconds, which is what building, "
                    f"starting and evaluating {len(self.variants)} variants takes on these images. Give more, or fewer --images."
                )
            write_json(
                path,
                asdict(TimeAllocation(training_seconds, evaluation_seconds, measurement_seconds, overhead_seconds)),
            )
        return TimeAllocation(**read_json(path))

    def _measure(self, device: DeviceSettings) -> tuple[float, float, float]:
        """Seconds to build the first variant's network, to run its first training step, and to evaluate it."""
        fold_data, recipe = self.fold_data, self.variants[0].recipe
        started = time.monotonic()
        network = build_network(
            recipe, num_classes=fold_data.num_classes, image_shape_px=fold_data.images.shape[1:3], weights_file=None
        )
        built = time.monotonic()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        network.compile(optimizer="adam", loss=loss, jit_compile=device.jit_compile)
        batch = fold_data.train_images[np.arange(recipe.batch_size) % len(fold_data.train_images)]
        network.train_on_batch(batch, np.eye(fold_data.num_classes, dtype=np.float32)[[0] * recipe.batch_size])
        traced = time.monotonic()
        Evaluator(fold_data, SYSTEM_CLOCK).evaluate(network)
        return built - started, traced - built, time.monotonic() - traced

    def _train(
        self,
        index: int,
        allocation: TimeAllocation | None,
        ledger: Ledger,
        device: DeviceSettings,
        interaction: _Interaction,
    ) -> bool:
        """False when the caller stopped the training before its end."""
        variant = self.variants[index]
        folder = self.folder(variant.name)
        limit = None if allocation is None else max(allocation.training_seconds - _trained_seconds(folder), 1.0)
        last_moment = math.inf
        if allocation is not None:
            # The time of this variant and those before it, without what is spent and what its evaluation takes.
            left = allocation.seconds_until_end_of(index) * self._devices - ledger.spent_device_seconds
            last_moment = time.monotonic() + left / self._devices - _MARGIN * allocation.evaluation_seconds

        def report(epoch: EpochReport) -> None:
            ledger.heartbeat()
            interaction.listener.epoch(variant.name, epoch)

        options = TrainOptions(
            objective="shift",
            weights_file=self._weights[variant.name],
            jit_compile=device.jit_compile,
            precision=device.precision,
            limits=TimeLimits(training_seconds=limit),
        )
        try:
            result = train(
                variant.recipe,
                self.fold_data,
                seed=self.settings.seed,
                options=options,
                folder=folder,
                report=report,
                should_stop=lambda: interaction.should_stop() or time.monotonic() > last_moment,
            )
        except TrialRejected as failure:
            write_json(folder / "outcome.json", {"failure": str(failure)})
            return True
        finally:
            keras.backend.clear_session()
            gc.collect()
        if interaction.should_stop() and not result.finished:
            return False
        if not result.history:
            write_json(folder / "outcome.json", {"failure": "no epoch ended within its share of the budget"})
            return True
        if len(tta_weights(variant.recipe.tta_transforms)) > 1:
            self._predict_with_tta(variant)
        write_json(folder / "outcome.json", {"failure": "", "finished": result.finished})
        return True

    def _predict_with_tta(self, variant: Variant) -> None:
        """Writes the trained network's predictions with its recipe's test-time augmentation."""
        network = trained_network(
            variant.recipe,
            self.folder(variant.name) / "best.npz",
            num_classes=self.fold_data.num_classes,
            image_shape_px=self.fold_data.image_shape_px,
        )
        tta = tta_weights(variant.recipe.tta_transforms)
        write_arrays(
            self.folder(variant.name) / "with_tta.npz",
            clean=predict_batches(network, self.fold_data.images, self.fold_data.validation_index, tta=tta),
            shifted=predict_batches(network, self.fold_data.shifted_images, tta=tta),
        )

    def _read(self, variant: Variant, ledger: Ledger) -> VariantResult:
        folder = self.folder(variant.name)
        outcome = read_json(folder / "outcome.json")
        ledger.set_phase(_SLOT, "reading")
        spent = ledger.charged_for(variant.name)
        if outcome["failure"]:
            return VariantResult(variant.name, folder, False, outcome["failure"], 0, 0, spent)
        parameters = int(read_json(folder / "result.json")["parameters"])
        epochs = len(TrainingDirectory(folder).history.read().epochs)
        return VariantResult(variant.name, folder, bool(outcome["finished"]), "", epochs, parameters, spent)


def _trained_seconds(folder: Path) -> float:
    """Seconds that earlier sessions trained a variant."""
    history = TrainingDirectory(folder).history.read_if_exists()
    return 0.0 if history is None else sum(epoch.seconds for epoch in history.epochs)
