"""What do searches give beside one network trained once? On test images, on corruptions of them, and at other sites.

    bloodauto search --data ../shared/data/pbc96 --weights-dir ../shared/weights --budget 30cpu-min --run by-shift
    bloodauto search --data ../shared/data/pbc96 --weights-dir ../shared/weights --budget 30cpu-min --run by-accuracy \\
        --objective accuracy
    python benchmarks/compare_searches.py --data ../shared/data/pbc96 --weights-dir ../shared/weights \\
        --run by-shift --run by-accuracy --single-seconds 300 --external second_laboratory=../shared/data/bccd96

Of each run the exported ensemble and its best member alone are evaluated on the run's own held-out test images. A single recipe
is trained on all cores for the given time, with the splits of the first run, and evaluated likewise. This uses the test images
after each search has ended, to compare; nothing may be selected by the result. Printed are accuracies: of the test images, of
corruptions of them that no search has drawn (mean of the groups' balanced accuracies, severities 3 to 5), and of other folders.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from single_training import train_network
from site_evaluator import Predict, SiteEvaluator, markdown_header, markdown_row

from bloodauto.config.machine import available_cores
from bloodauto.config.recipe import load_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_dataset
from bloodauto.data.split import Splits, read_splits
from bloodauto.ensemble.assemble import read_ensemble
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.export.model import load_model
from bloodauto.models.backbone_networks import find_weights
from bloodauto.models.device import Device, limit_native_threads
from bloodauto.models.network import trained_network
from bloodauto.run.directory import RunDirectory
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.limits import TimeLimits
from bloodauto.training.trainer import TrainOptions
from bloodauto.tuning.refits import with_extended_epochs

#: More epochs than fit into any time limit.
_EPOCH_FACTOR = 1000.0


def exported_model(run: RunDirectory) -> Predict:
    """The model that a run exported."""
    model = load_model(run.export.root)
    return lambda images: model.predict(images).probabilities


def best_member(run: RunDirectory, dataset: CellDataset) -> Predict:
    """The best candidate of a run's ensemble alone."""
    ensemble = read_ensemble(run)
    member = next(member for member in ensemble.members if member.name == ensemble.best_single.name)
    training = member.networks[0].files
    height, width = dataset.images.shape[1:3]
    network = trained_network(
        load_recipe(training.recipe),
        training.weights.path,
        num_classes=len(dataset.class_names),
        image_shape_px=(height, width),
    )
    return lambda images: predict_batches(network, images)


def single_recipe(
    recipe_file: Path, seconds: float, dataset: CellDataset, splits: Splits, weights_dir: Path | None
) -> Predict:
    """One recipe, trained for some seconds on all cores."""
    recipe = load_recipe(recipe_file)
    options = TrainOptions(
        weights_file=find_weights(recipe.backbone.name, recipe.backbone.weights, weights_dir),
        limits=TimeLimits(training_seconds=seconds),
        device=Device(available_cores()),
    )
    fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=0, num_images=128), max_subset_images=256)
    network = train_network(with_extended_epochs(recipe, _EPOCH_FACTOR), fold_data, seed=0, options=options)
    return lambda images: predict_batches(network, images)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--run", type=Path, action="append", required=True)
    parser.add_argument("--single", type=Path, default=shipped_folder("trials") / "small_mobilenet_025.yaml")
    parser.add_argument("--single-seconds", type=float, default=300.0, help="by the clock, on all cores; 0: none")
    parser.add_argument("--external", action="append", default=[], help="name=folder of another site's images")
    arguments = parser.parse_args()
    limit_native_threads(os.cpu_count() or 1)

    dataset = load_dataset(arguments.data)
    runs = [RunDirectory(path) for path in arguments.run]
    splits = [read_splits(run.splits.path, dataset) for run in runs]
    if any(not np.array_equal(other.test_index(), splits[0].test_index()) for other in splits):
        raise SystemExit("--run: expected runs with the same test images, got different ones; give them the same seed")
    external = {
        name: load_dataset(Path(path), image_size_px=dataset.images.shape[1])
        for name, _, path in (argument.partition("=") for argument in arguments.external)
    }
    evaluator = SiteEvaluator(dataset, splits[0].test_index(), external)
    print(markdown_header(evaluator.columns), flush=True)
    for run in runs:
        print(markdown_row(f"{run.root.name}: ensemble", evaluator.row(exported_model(run))), flush=True)
        print(markdown_row(f"{run.root.name}: best member", evaluator.row(best_member(run, dataset))), flush=True)
    if arguments.single_seconds > 0:
        predict = single_recipe(arguments.single, arguments.single_seconds, dataset, splits[0], arguments.weights_dir)
        name = f"{arguments.single.stem}, {arguments.single_seconds:.0f} s"
        print(markdown_row(name, evaluator.row(predict)))


if __name__ == "__main__":
    main()
