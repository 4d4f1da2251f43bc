"""What searches give beside one network trained once: on test images, on simulated shifts of them, in other laboratories.

    bloodauto search --data ../shared/data/pbc96 --weights-dir ../shared/weights --budget 30cpu-min --run by-shift
    bloodauto search --data ../shared/data/pbc96 --weights-dir ../shared/weights --budget 30cpu-min --run by-accuracy \\
        --objective accuracy
    python benchmarks/searched.py --data ../shared/data/pbc96 --weights-dir ../shared/weights \\
        --run by-shift --run by-accuracy --single-seconds 300 --other other_lab=../shared/data/bccd96

Of each run the exported ensemble and its best member alone are judged, on the run's own held-out test images; a single recipe
is trained on all cores for the seconds named, with the splits of the first run, and judged likewise. The test is looked at
after each search has ended, to compare; nothing may be chosen by what is seen. Printed are accuracies: of the test images, of
views of them that no search has drawn (mean of balanced accuracies of the groups of shifts, severities 3 to 5), and of other
folders.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import bloodauto.training  # noqa: F401

# isort: split
# TensorFlow is set up before Keras is imported.
import keras
import numpy as np
from objective.exhaustive import exhaustive_plan

from bloodauto.config.recipe import load_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_dataset
from bloodauto.data.split import Splits, read_splits
from bloodauto.ensemble.record import read_ensemble
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.metrics import weighted_balanced_accuracy
from bloodauto.export.model import load_model
from bloodauto.models.backbones import find_weights
from bloodauto.models.device import limit_native_threads
from bloodauto.models.network import trained_network
from bloodauto.run.directory import RunDirectory
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.limits import TimeLimits
from bloodauto.training.trainer import TrainOptions, train
from bloodauto.tuning.refits import with_extended_epochs

#: Of the views: another draw than any search has made.
_SEED = 2026
_SEVERITIES = (3, 4, 5)
_SUITE_IMAGES = 128

Predictor = Callable[[np.ndarray], np.ndarray]


class Evaluator:
    """Some of the images, views of them, and other laboratories."""

    def __init__(self, dataset: CellDataset, index: np.ndarray, others: dict[str, CellDataset]) -> None:
        self._images, self._labels = dataset.images[index], dataset.labels[index]
        plan = exhaustive_plan(ShiftSuite(seed=_SEED, num_images=_SUITE_IMAGES), self._labels, _SEVERITIES)
        self._views, self._view_labels = plan.render(self._images), self._labels[plan.image_index]
        self._groups = np.array([family.group for family in plan.families])[plan.family_index]
        self._external_datasets = {
            name: (other.images, np.array([dataset.class_names.index(one) for one in other.class_names])[other.labels])
            for name, other in others.items()
        }

    @property
    def columns(self) -> list[str]:
        return ["in-domain", "shifted", *self._external_datasets]

    def row(self, answers: Predictor) -> list[float]:
        """Accuracies, in the order of the columns."""
        correct = answers(self._views).argmax(axis=1) == self._view_labels
        groups = [
            weighted_balanced_accuracy(self._view_labels[self._groups == group], correct[self._groups == group])
            for group in np.unique(self._groups)
        ]
        home = float((answers(self._images).argmax(axis=1) == self._labels).mean())
        away = [
            float((answers(images).argmax(axis=1) == labels).mean())
            for images, labels in self._external_datasets.values()
        ]
        return [home, float(np.mean(groups)), *away]


def _exported(run: RunDirectory) -> Predictor:
    model = load_model(run.export.root).network
    return lambda images: np.asarray(model.predict(images, batch_size=64, verbose=0))


def _network(recipe_file: Path, weights: Path, dataset: CellDataset) -> Predictor:
    shape = dataset.images.shape
    network = trained_network(
        load_recipe(recipe_file),
        weights,
        num_classes=len(dataset.class_names),
        image_shape_px=(shape[1], shape[2]),
    )
    return lambda images: predict_batches(network, images)


def _single(
    recipe_file: Path, seconds: float, dataset: CellDataset, splits: Splits, weights_dir: Path | None
) -> Predictor:
    recipe = load_recipe(recipe_file)
    fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=0, num_images=128), max_subset_images=256)
    with tempfile.TemporaryDirectory() as folder:
        train(
            with_extended_epochs(recipe, 1000.0),
            fold_data,
            seed=0,
            options=TrainOptions(
                weights_file=find_weights(recipe.backbone.name, recipe.backbone.weights, weights_dir),
                limits=TimeLimits(training_seconds=seconds),
                num_threads=os.cpu_count() or 1,
            ),
            folder=Path(folder),
            report=lambda report: None,
            should_stop=lambda: False,
        )
        return _network(recipe_file, Path(folder) / "best.npz", dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--run", type=Path, action="append", required=True)
    parser.add_argument("--single", type=Path, default=shipped_folder("trials") / "small_mobilenet_025.yaml")
    parser.add_argument("--single-seconds", type=float, default=300.0, help="by the clock, on all cores; 0: none")
    parser.add_argument("--other", action="append", default=[], help="name=folder of another laboratory's cells")
    arguments = parser.parse_args()
    limit_native_threads(os.cpu_count() or 1)

    dataset = load_dataset(arguments.data)
    runs = [RunDirectory(path) for path in arguments.run]
    splits = [read_splits(run.splits.path, dataset) for run in runs]
    if any(not np.array_equal(one.test_index(), splits[0].test_index()) for one in splits):
        raise SystemExit("--run: expected runs with the same test images, got different ones; give them the same seed")
    parts = (argument.partition("=") for argument in arguments.other)
    side_px = dataset.images.shape[1]
    others = {name: load_dataset(Path(path), image_size_px=side_px) for name, _, path in parts}
    judge = Evaluator(dataset, splits[0].test_index(), others)
    print(f"| | {' | '.join(judge.columns)} |\n|{'---|' * (len(judge.columns) + 1)}", flush=True)

    def show(name: str, answers: Predictor) -> None:
        print(f"| {name} | {' | '.join(f'{100 * share:.1f} %' for share in judge.row(answers))} |", flush=True)

    for run in runs:
        show(f"{run.root.name}: ensemble", _exported(run))
        chosen = read_ensemble(run)
        single = next(one for one in chosen.members if one.name == chosen.best_single[0])
        folder = run.root / single.networks[0].folder
        show(f"{run.root.name}: best member alone", _network(folder / "recipe.yaml", folder / "best.npz", dataset))
    if arguments.single_seconds > 0:
        answers = _single(arguments.single, arguments.single_seconds, dataset, splits[0], arguments.weights_dir)
        show(f"{arguments.single.stem}, {arguments.single_seconds:.0f} s", answers)


if __name__ == "__main__":
    keras.config.disable_interactive_logging()
    main()
