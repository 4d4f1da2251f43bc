"""What happens when a recipe is scored by the corruptions it trained on?

    python benchmarks/training_overlap.py                           # about twelve minutes on one core
    python benchmarks/training_overlap.py --save predictions.npz    # for target_estimates.py

Small networks are trained on the same synthetic cells of ``lab_a``, each with the augmentation of one corruption group, of all,
or of none. Printed for each: clean accuracy; the shift objective with all shifted images weighing alike, as a search weighs
them (images that any of the recipes may train on count less, for all recipes alike), and without those that the recipe
itself trains on; and the accuracy at two other synthetic sites. Then the rank correlation of each score with the mean of
the two sites, the gain on corruptions that a recipe trained on and on the others, and the accuracy after adapting batch
normalisation to each site.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from single_training import accuracy_on, train_network

from bloodauto.config.recipe import Recipe, parse_recipe
from bloodauto.data.clean import clean
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.models.batch_norm import adapted_batch_norm_weights
from bloodauto.training.augmentation import shift_suite_for
from bloodauto.training.trainer import TrainOptions
from bloodauto.types import Mask, Probabilities

EXTERNAL_SITES = ("lab_b", "lab_c")
OPERATIONS: dict[str, list[str]] = {
    "nothing": [],
    "optics and sensor": ["defocus_blur", "motion_blur", "gaussian_blur", "noise", "shot_noise", "jpeg"],
    "light": ["exposure", "gamma", "contrast", "white_balance", "saturation"],
    "stain": ["stain_jitter", "hue"],
    "geometry": ["rotate_any", "zoom", "translate"],
    "hidden parts": ["cutout"],
    "everything, weakly": ["stain_jitter", "hue", "exposure", "gamma", "zoom", "translate", "gaussian_blur", "noise"],
    "everything": ["stain_jitter", "hue", "exposure", "gamma", "zoom", "translate", "gaussian_blur", "noise", "jpeg"],
}
SCORES = ("clean accuracy", "all images weigh alike", "as a search weighs", "without its own")
_ADAPTATION_IMAGES = 256
#: The statistics of the training count as those of so many images.
_SOURCE_PSEUDO_COUNT = 64
_WEAK_MAGNITUDE = 0.3
_STRONG_MAGNITUDE = 0.9
_IMAGE_SIZE_PX = 48


@dataclass
class RecipeResult:
    """What is measured of one recipe; one entry a seed in each list.

    Attributes:
        covered: Which shifted images the recipe may train on, bool (shifted images,).
        scores: By the names of ``SCORES``.
        external: Accuracy at each external site.
        adapted: The same after adapting batch normalisation.
        correct: Which shifted images were predicted correctly, bool (shifted images,).
    """

    covered: Mask
    scores: list[list[float]] = field(default_factory=list)
    external: list[list[float]] = field(default_factory=list)
    adapted: list[list[float]] = field(default_factory=list)
    correct: list[Mask] = field(default_factory=list)

    @property
    def row(self) -> NDArray[np.float64]:
        """Means over the seeds: the scores, then the external sites."""
        return np.concatenate([np.mean(self.scores, axis=0), np.mean(self.external, axis=0)])


def recipe_of(name: str, epochs: int) -> Recipe:
    """The small network with the operations of one group."""
    operations = OPERATIONS[name]
    magnitude = _WEAK_MAGNITUDE if name.endswith("weakly") else _STRONG_MAGNITUDE
    settings: dict[str, Any] = {"num_ops": 2, "magnitude": magnitude, "operations": operations}
    return parse_recipe(
        {
            "input": {"size_px": _IMAGE_SIZE_PX},
            "backbone": {"name": "own_cnn", "weights": "none", "blocks": 4, "width": 16},
            "augmentation": {"orientation": True, **({"rand_augment": settings} if operations else {})},
            "batch_size": 32,
            "stages": [{"epochs": epochs, "optimizer": {"name": "adamw", "learning_rate": 3.0e-3}}],
        },
        origin=name,
    )


def covered_images(recipe: Recipe, fold_data: FoldData) -> Mask:
    """Which shifted images the recipe's own augmentation may produce."""
    covered = shift_suite_for([recipe], seed=0).covered_by_training
    limits = {coverage.family: coverage.severity for coverage in covered}
    plan = fold_data.plan
    mask: Mask = plan.severities <= np.array([limits.get(family, 0.0) for family in plan.family_names.tolist()])
    return mask


def adapted_accuracy(network: keras.Model, dataset: CellDataset) -> float:
    """The accuracy with the batch-normalisation statistics of a site; the network is left as it was."""
    weights = network.get_weights()
    network.set_weights(
        adapted_batch_norm_weights(
            network, dataset.images[:_ADAPTATION_IMAGES], source_pseudo_count=_SOURCE_PSEUDO_COUNT
        )
    )
    accuracy = accuracy_on(network, dataset)
    network.set_weights(weights)
    return accuracy


def evaluate(
    network: keras.Model, fold_data: FoldData, sites: list[CellDataset], result: RecipeResult
) -> dict[str, Probabilities | float]:
    """Adds one network's figures to a recipe's result.

    Returns:
        What ``--save`` keeps, by name.
    """
    labels, plan = fold_data.subset_labels, fold_data.plan
    rows = fold_data.validation_index[fold_data.subset_rows]
    clean_probabilities = predict_batches(network, fold_data.images, rows)
    shifted = predict_batches(network, fold_data.shifted_images)
    weightings = (np.ones(len(plan)), plan.weights, (~result.covered).astype(float))
    objectives = [
        score_shift(labels, clean_probabilities, replace(plan, weights=weights), shifted).objective
        for weights in weightings
    ]
    external = [predict_batches(network, site.images) for site in sites]
    result.scores.append([float((clean_probabilities.argmax(axis=1) == labels).mean()), *objectives])
    result.external.append(
        [
            float((probabilities.argmax(axis=1) == site.labels).mean())
            for probabilities, site in zip(external, sites, strict=True)
        ]
    )
    result.adapted.append([adapted_accuracy(network, site) for site in sites])
    result.correct.append(shifted.argmax(axis=1) == fold_data.shifted_labels)
    saved: dict[str, Probabilities | float] = {
        "clean": clean_probabilities,
        "shifted": shifted,
        "objective": objectives[1],
    }
    return saved | {f"predictions_{name}": values for name, values in zip(EXTERNAL_SITES, external, strict=True)}


def print_results(results: dict[str, RecipeResult]) -> None:
    """Prints the tables that the module describes."""
    columns = (*SCORES, *EXTERNAL_SITES)
    print(f"\n| recipe trains on | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name, result in results.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in result.row) + " |")
    rows = np.stack([result.row for result in results.values()])
    external = rows[:, len(SCORES) :].mean(axis=1)
    print("\nSpearman's correlation with the mean accuracy at the external sites:")
    for column, label in enumerate(SCORES):
        print(f"  {label}: {spearmanr(rows[:, column], external).statistic:.2f}")
    print(
        "\nGain over the recipe that trains on nothing, in points, on the corruptions it trained on and on the others:"
    )
    baseline = np.mean(results["nothing"].correct, axis=0)
    for name, result in results.items():
        if result.covered.any():
            gain = 100 * (np.mean(result.correct, axis=0) - baseline)
            covered, others = gain[result.covered].mean(), gain[~result.covered].mean()
            print(f"  {name}: {covered:+.1f} trained on, {others:+.1f} others")
    print(
        f"\nAccuracy with the batch-normalisation statistics of {_ADAPTATION_IMAGES} unlabelled images, and the change:"
    )
    for name, result in results.items():
        before, after = np.mean(result.external, axis=0), np.mean(result.adapted, axis=0)
        texts = [
            f"{site} {new:.3f} ({100 * (new - old):+.1f})"
            for site, new, old in zip(EXTERNAL_SITES, after, before, strict=True)
        ]
        print(f"  {name}: " + ", ".join(texts))


def main() -> None:
    """Trains all networks and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--save", type=Path, help="file (.npz) for all predictions")
    arguments = parser.parse_args()

    recipes = {name: recipe_of(name, arguments.epochs) for name in OPERATIONS}
    dataset = synthesize(arguments.images, site="lab_a", seed=1, image_size_px=_IMAGE_SIZE_PX)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    fold_data = prepare_fold(dataset, splits, shift_suite_for(recipes.values(), seed=0))
    sites = [synthesize(600, site=name, seed=7, image_size_px=_IMAGE_SIZE_PX) for name in EXTERNAL_SITES]
    # No score may select among epochs here; by clean accuracy the last epochs are as good as any.
    options = TrainOptions(objective="accuracy")
    results: dict[str, RecipeResult] = {}
    saved: list[dict[str, Probabilities | float]] = []
    for name, recipe in recipes.items():
        results[name] = RecipeResult(covered_images(recipe, fold_data))
        for seed in range(arguments.seeds):
            network = train_network(recipe, fold_data, seed=seed, options=options)
            saved.append(evaluate(network, fold_data, sites, results[name]))
        print(f"... {name}", flush=True)
    if arguments.save is not None:
        np.savez_compressed(
            arguments.save,
            allow_pickle=False,
            labels=fold_data.subset_labels,
            shifted_labels=fold_data.shifted_labels,
            **{name: np.stack([entry[name] for entry in saved]) for name in saved[0]},
            **{f"labels_{name}": site.labels for name, site in zip(EXTERNAL_SITES, sites, strict=True)},
        )
    print_results(results)


if __name__ == "__main__":
    main()
