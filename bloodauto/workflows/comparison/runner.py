"""Trains variants one after another on the same images, within one budget, and goes on where it was interrupted."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bloodauto.config.machine import available_cores, count_local_gpus
from bloodauto.config.recipe import tta_weights
from bloodauto.data.dataset import CellDataset
from bloodauto.errors import BudgetError, RunError, TrialRejected
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json, write_arrays, write_json
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.workflows.comparison.settings import (
    ExperimentSettings,
    TimeAllocation,
    budget_device_seconds,
    load_experiment_dataset,
)
from bloodauto.workflows.comparison.variants import Variant

if TYPE_CHECKING:
    from bloodauto.evaluation.fold_data import FoldData
    from bloodauto.models.device import DeviceSettings
    from bloodauto.training.checkpoint import EpochReport

#: Times are measured once, on a machine that does other things too.
_MARGIN = 1.3
_SLOT = "driver"


class ExperimentListener(Protocol):
    """Is told how an experiment goes."""

    def planned(self, variants: Sequence[Variant], fold_data: FoldData, seconds_per_variant: float | None) -> None:
        """Everything is checked; the trainings begin. ``seconds_per_variant``: of wall time that each may train; None: no limit."""

    def epoch(self, name: str, report: EpochReport) -> None:
        """An epoch of a variant has ended."""


@dataclass(frozen=True)
class VariantResult:
    """How one variant's training went.

    Attributes:
        finished: it ran its course, by epochs, patience or its share of the time.
        failure: why it has no result; empty when it has one.
        device_seconds: reserved for it, its judging included.
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

    Raises:
        UserError: a recipe, weights, images or a budget that cannot be used; or the directory holds another experiment.
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
        self.fold_data = self._prepare(dataset)

    def _checked_recipes(self) -> dict[str, Path | None]:
        from bloodauto.models.backbones import check_recipe, find_weights
        from bloodauto.training.augmentation import check_augmentation

        folder = None if self.settings.weights_dir is None else Path(self.settings.weights_dir)
        found = {}
        for variant in self.variants:
            check_recipe(variant.recipe)
            check_augmentation(variant.recipe)
        for variant in self.variants:
            found[variant.name] = find_weights(variant.recipe.backbone.name, variant.recipe.backbone.weights, folder)
        return found

    def _check_unchanged(self, dataset: CellDataset) -> None:
        """Whoever goes on must go on with the same; writes down what it is, the first time."""
        asked = {
            "settings": {name: value for name, value in asdict(self.settings).items() if name != "weights_dir"},
            "images": len(dataset),
            "digest": dataset.digest(),
            "variants": {variant.name: variant.recipe.id for variant in self.variants},
        }
        path = self.directory.root / "experiment.json"
        if path.is_file():
            before = read_json(path)
            differing = [
                name for name, value in asked.items() if not isinstance(before, dict) or before.get(name) != value
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
            write_json(path, asked)

    def _prepare(self, dataset: CellDataset) -> FoldData:
        from bloodauto.data.clean import clean, write_cleaning_csv
        from bloodauto.data.split import make_splits, read_splits, write_splits
        from bloodauto.models.tensorflow import import_tensorflow_quietly

        import_tensorflow_quietly()
        from bloodauto.evaluation.fold_data import prepare_fold
        from bloodauto.training.suite_weights import shift_suite_for

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
        """Where a variant's training lies."""
        return self.directory.root / "variants" / name

    def run(self, listener: ExperimentListener, should_stop: Callable[[], bool]) -> tuple[VariantResult, ...] | None:
        """Trains what is not trained yet; None when it was told to stop, with everything kept.

        With a budget every variant trains for the same time: what is left after building and judging all of them, in
        equal parts. A schedule runs by whichever is further, its epochs or its time, so that every learning rate decays.

        Raises:
            BudgetError: too small for anything.
        """
        from bloodauto.models.device import cached_device_settings, claim_device_if_unused
        from bloodauto.workflows.session import locked

        with locked(self.directory):
            choice = cached_device_settings(on_gpu=self._gpu_fraction > 0)
            claim_device_if_unused(cores=self._cores, gpu_fraction=self._gpu_fraction)
            ledger = Ledger(
                self.directory.ledger,
                budget_device_seconds=math.inf if self._budget_seconds is None else self._budget_seconds,
                now=time.monotonic,
                wall_clock=time.time,
            )
            ledger.reserve(_SLOT, self._devices, "measuring")
            try:
                shares = self._time_allocation(choice)
                listener.planned(self.variants, self.fold_data, None if shares is None else shares.training_seconds)
                for index, variant in enumerate(self.variants):
                    if (self.folder(variant.name) / "outcome.json").is_file():
                        continue
                    ledger.set_phase(_SLOT, variant.name)
                    if (
                        shares is not None
                        and ledger.remaining_device_seconds < self._devices * shares.overhead_seconds[index]
                    ):
                        write_json(
                            self.folder(variant.name) / "outcome.json",
                            {"failure": "not begun, others took longer than measured"},
                        )
                        continue
                    if not self._train(variant, index, shares, ledger, choice, listener, should_stop):
                        return None
                return tuple(self._read(variant, ledger) for variant in self.variants)
            finally:
                ledger.release(_SLOT)

    def _time_allocation(self, choice: DeviceSettings) -> TimeAllocation | None:
        """How long each may train; measured and written once, so that a resume gives the same."""
        if self._budget_seconds is None:
            return None
        path = self.directory.root / "time_allocation.json"
        if not path.is_file():
            started = time.monotonic()
            building, tracing, judging = self._measure(choice)
            spent = time.monotonic() - started
            forward_passes = [len(tta_weights(one.recipe.tta_transforms)) for one in self.variants]
            # Building; the last epoch's judging and the final one; and one for each view where there are several.
            around = [_MARGIN * (building + judging * (2 + (count if count > 1 else 0))) for count in forward_passes]
            wall = self._budget_seconds / self._devices - spent
            training = (wall - sum(around)) / len(self.variants)
            # A stage's first step, which builds its graph, cannot be cut short.
            least = _MARGIN * tracing * max(len(one.recipe.stages) for one in self.variants)
            if training < least:
                needed = self._devices * (spent + sum(around) + len(self.variants) * least)
                raise BudgetError(
                    f"--budget {self.settings.budget}: expected at least {needed:.0f} device-seconds, which is what building, "
                    f"starting and judging {len(self.variants)} variants takes on these images. Give more, or fewer --images."
                )
            write_json(path, asdict(TimeAllocation(training, judging, spent, around)))
        return TimeAllocation(**read_json(path))

    def _measure(self, choice: DeviceSettings) -> tuple[float, float, float]:
        """Wall seconds of building a network, of its first training step, and of judging it; the first variant's."""
        import keras
        import numpy as np

        from bloodauto.evaluation.fold_data import evaluate
        from bloodauto.models.network import build_network

        fold_data, recipe = self.fold_data, self.variants[0].recipe
        started = time.monotonic()
        network = build_network(
            recipe, num_classes=fold_data.num_classes, image_shape_px=fold_data.images.shape[1:3], weights_file=None
        )
        built = time.monotonic()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        network.compile(optimizer="adam", loss=loss, jit_compile=choice.jit_compile)
        batch = fold_data.train_images[np.arange(recipe.batch_size) % len(fold_data.train_images)]
        network.train_on_batch(batch, np.eye(fold_data.num_classes, dtype=np.float32)[[0] * recipe.batch_size])
        traced = time.monotonic()
        evaluate(network, fold_data, subset_only=False)
        return built - started, traced - built, time.monotonic() - traced

    def _train(
        self,
        variant: Variant,
        index: int,
        shares: TimeAllocation | None,
        ledger: Ledger,
        choice: DeviceSettings,
        listener: ExperimentListener,
        should_stop: Callable[[], bool],
    ) -> bool:
        """False when it was told to stop before the end."""
        import keras

        from bloodauto.training.trainer import TrainOptions, train

        folder = self.folder(variant.name)
        limit = None if shares is None else max(shares.training_seconds - _trained_seconds(folder), 1.0)
        last_moment = math.inf
        if shares is not None:
            # What is left of the shares of this variant and those before it, less what judging takes.
            own = (
                shares.measurement_seconds
                + sum(shares.overhead_seconds[: index + 1])
                + (index + 1) * shares.training_seconds
            )
            left = own * self._devices - ledger.spent_device_seconds
            last_moment = time.monotonic() + left / self._devices - _MARGIN * shares.evaluation_seconds

        def report(epoch: EpochReport) -> None:
            ledger.heartbeat()
            listener.epoch(variant.name, epoch)

        options = TrainOptions(
            objective="shift",
            weights_file=self._weights[variant.name],
            jit_compile=choice.jit_compile,
            precision=choice.precision,
            time_limit_seconds=limit,
        )
        try:
            result = train(
                variant.recipe,
                self.fold_data,
                seed=self.settings.seed,
                options=options,
                folder=folder,
                report=report,
                should_stop=lambda: should_stop() or time.monotonic() > last_moment,
            )
        except TrialRejected as failure:
            write_json(folder / "outcome.json", {"failure": str(failure)})
            return True
        finally:
            keras.backend.clear_session()
            gc.collect()
        if should_stop() and not result.finished:
            return False
        if not result.history:
            write_json(folder / "outcome.json", {"failure": "no epoch ended within its share of the budget"})
            return True
        if len(tta_weights(variant.recipe.tta_transforms)) > 1:
            self._predict_with_tta(variant)
        write_json(folder / "outcome.json", {"failure": "", "finished": result.finished})
        return True

    def _predict_with_tta(self, variant: Variant) -> None:
        """What the trained network answers over its recipe's views."""
        from bloodauto.evaluation.fold_data import predict_probabilities
        from bloodauto.evaluation.tta import with_tta
        from bloodauto.models.network import trained_network

        shape = self.fold_data.images.shape
        network = trained_network(
            variant.recipe,
            self.folder(variant.name) / "best.npz",
            num_classes=self.fold_data.num_classes,
            image_shape_px=(shape[1], shape[2]),
        )
        looking = with_tta(network, tta_weights(variant.recipe.tta_transforms))
        write_arrays(
            self.folder(variant.name) / "with_tta.npz",
            clean=predict_probabilities(looking, self.fold_data.images, self.fold_data.validation_index),
            shifted=predict_probabilities(looking, self.fold_data.shifted_images),
        )

    def _read(self, variant: Variant, ledger: Ledger) -> VariantResult:
        folder = self.folder(variant.name)
        outcome = read_json(folder / "outcome.json")
        ledger.set_phase(_SLOT, "reading")
        spent = ledger.charged_for(variant.name)
        if outcome["failure"]:
            return VariantResult(variant.name, folder, False, outcome["failure"], 0, 0, spent)
        parameters = int(read_json(folder / "result.json")["parameters"])
        epochs = len(json.loads((folder / "history.json").read_text(encoding="utf-8")))
        return VariantResult(variant.name, folder, bool(outcome["finished"]), "", epochs, parameters, spent)


def _trained_seconds(folder: Path) -> float:
    """What an earlier session trained of a variant already."""
    path = folder / "history.json"
    return sum(float(epoch["seconds"]) for epoch in read_json(path)) if path.is_file() else 0.0
