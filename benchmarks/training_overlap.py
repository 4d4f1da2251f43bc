"""What happens when a recipe is scored by what it trained on.

    python benchmarks/self_deception.py

Small networks learn the same synthetic cells of one laboratory, each with the augmentation of one cause, of all or of none.
For each: the shift objective with all views alike, the objective of a search (views that any of the recipes trained on
count less, for all of them alike), what each recipe would score without its own rehearsed views alone, and the accuracy in
two other synthetic laboratories. Also the accuracy on the views a recipe rehearsed and on the others, over that of the
recipe that rehearsed nothing. About twelve minutes on one core.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bloodauto.config.recipe import Recipe, parse_recipe
from bloodauto.data.clean import clean
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.models.batch_norm import adapted_batch_norm_weights
from bloodauto.models.network import build_network
from bloodauto.run.artifacts import NetworkWeights
from bloodauto.training.suite_weights import shift_suite_for
from bloodauto.training.trainer import TrainOptions, train_epochs

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
_ADAPTATION_IMAGES = 256
#: The stored statistics count as those of so many images.
_ADAPTATION_PRIOR = 64
WEAK_MAGNITUDE = 0.3
STRONG_MAGNITUDE = 0.9


def recipe_of(name: str, epochs: int) -> Recipe:
    operations = OPERATIONS[name]
    magnitude = WEAK_MAGNITUDE if name.endswith("weakly") else STRONG_MAGNITUDE
    settings: dict[str, Any] = {"num_ops": 2, "magnitude": magnitude, "operations": operations}
    return parse_recipe(
        {
            "input": {"size_px": 48},
            "backbone": {"name": "own_cnn", "weights": "none", "blocks": 4, "width": 16},
            "augmentation": {"orientation": True, **({"rand_augment": settings} if operations else {})},
            "batch_size": 32,
            "stages": [{"epochs": epochs, "optimizer": {"name": "adamw", "learning_rate": 3.0e-3}}],
        },
        origin=name,
    )


def train_network(recipe: Recipe, fold_data: FoldData, seed: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        for _ in train_epochs(
            recipe,
            fold_data,
            seed=seed,
            # The last epochs are as good as any: no score may choose among them here.
            options=TrainOptions(objective="accuracy"),
            folder=Path(folder),
            should_stop=lambda: False,
        ):
            pass
        side = fold_data.images.shape[1]
        network = build_network(
            recipe, num_classes=fold_data.num_classes, image_shape_px=(side, side), weights_file=None
        )
        network.set_weights(NetworkWeights.read(Path(folder) / "best.npz").weights)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--save", type=Path, help="where to keep all answers (.npz), for target_estimates.py")
    arguments = parser.parse_args()

    recipes = {name: recipe_of(name, arguments.epochs) for name in OPERATIONS}
    dataset = synthesize(arguments.images, site="lab_a", seed=1, image_size_px=48)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    shared = shift_suite_for(recipes.values(), seed=0)
    fold_data = prepare_fold(dataset, splits, shared)
    index, rows = fold_data.validation_index, fold_data.subset_rows
    labels = dataset.labels[index[rows]]
    others = [synthesize(600, site=name, seed=7, image_size_px=48) for name in EXTERNAL_SITES]

    plan = fold_data.plan
    weightings = {"all views alike": np.ones(len(plan)), "as a search counts": plan.weights}
    columns = ("clean accuracy", *weightings, "without its own", *EXTERNAL_SITES)
    table: dict[str, np.ndarray] = {}
    right: dict[str, np.ndarray] = {}
    rehearsed: dict[str, np.ndarray] = {}
    after_adaptation: dict[str, np.ndarray] = {}
    kept: dict[str, list[Any]] = {name: [] for name in ("clean", "shown", "objective", *EXTERNAL_SITES)}
    for name, recipe in recipes.items():
        limits = {
            covered_by_training.family: covered_by_training.severity
            for covered_by_training in shift_suite_for([recipe], seed=0).covered_by_training
        }
        reach = np.array([limits.get(family, 0.0) for family in plan.family_names.tolist()])
        rehearsed[name] = plan.severities <= reach
        runs, correct, adapted = [], [], []
        for seed in range(arguments.seeds):
            network = train_network(recipe, fold_data, seed)
            weights = network.get_weights()
            clean_answers = predict_batches(network, dataset.images, index[rows])
            shown = predict_batches(network, fold_data.shifted_images)
            theirs = [predict_batches(network, other.images) for other in others]
            own = {**weightings, "without its own": (~rehearsed[name]).astype(float)}
            scores = [
                score_shift(labels, clean_answers, replace(plan, weights=counted), shown).objective
                for counted in own.values()
            ]
            truth = [accuracy(answers, other.labels) for answers, other in zip(theirs, others, strict=True)]
            runs.append([accuracy(clean_answers, labels), *scores, *truth])
            correct.append(shown.argmax(axis=1) == fold_data.shifted_labels)
            after = []
            for other in others:
                unlabelled = other.images[:_ADAPTATION_IMAGES]
                network.set_weights(
                    adapted_batch_norm_weights(network, unlabelled, source_pseudo_count=_ADAPTATION_PRIOR)
                )
                after.append(accuracy(predict_batches(network, other.images), other.labels))
                network.set_weights(weights)
            adapted.append(after)
            for key, value in zip(kept, (clean_answers, shown, scores[1], *theirs), strict=True):
                kept[key].append(value)
        after_adaptation[name] = np.mean(adapted, axis=0)
        table[name], right[name] = np.mean(runs, axis=0), np.mean(correct, axis=0)
        print(f"... {name}", flush=True)

    if arguments.save is not None:
        np.savez_compressed(
            arguments.save,
            allow_pickle=False,
            labels=labels,
            shifted_labels=fold_data.shifted_labels,
            **{key: np.stack(kept[key]) for key in ("clean", "shown", "objective")},
            **{f"answers_{name}": np.stack(kept[name]) for name in EXTERNAL_SITES},
            **{f"labels_{name}": other.labels for name, other in zip(EXTERNAL_SITES, others, strict=True)},
        )
    print(f"\n| recipe trains on | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    elsewhere = np.array([row[-len(EXTERNAL_SITES) :].mean() for row in table.values()])
    print("\nSpearman's correlation with the mean accuracy elsewhere:")
    for column, label in enumerate(columns[: -len(EXTERNAL_SITES)]):
        print(f"  {label}: {spearmanr([row[column] for row in table.values()], elsewhere).statistic:.2f}")
    print("\nGain over the recipe that trains on nothing, in points, on the views it rehearsed and on the others:")
    for name, rows_right in right.items():
        if rehearsed[name].any():
            gain = 100 * (rows_right - right["nothing"])
            print(
                f"  {name}: {gain[rehearsed[name]].mean():+.1f} rehearsed, {gain[~rehearsed[name]].mean():+.1f} others"
            )

    print(
        f"\nAccuracy with the statistics of {_ADAPTATION_IMAGES} unlabelled images there, and what that changes, in points:"
    )
    for name, after in after_adaptation.items():
        before = table[name][-len(EXTERNAL_SITES) :]
        shown_after = (
            f"{site} {value:.3f} ({100 * (value - old):+.1f})"
            for site, value, old in zip(EXTERNAL_SITES, after, before, strict=True)
        )
        print(f"  {name}: " + ", ".join(shown_after))


def accuracy(answers: np.ndarray, labels: np.ndarray) -> float:
    return float((answers.argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    main()
