"""Trains varied recipes and records the accuracy of each, family by family: the data for choosing the search's objective.

    python benchmarks/record_objective.py --data ../shared/data/pbc96 --weights-dir ../shared/weights \\
        --external second_laboratory=../shared/data/bccd96 --output benchmarks/objective_recipes.json

The recipes vary in what people vary, good ideas and bad ones alike: backbone, unfreezing, batch-norm policy, augmentation,
optimizer, learning rate, loss, length, input filters. Each is trained on the same images. The file is rewritten after each
training and recipes that it has are skipped, so the recording can be interrupted. About an hour and a half on one core.

Besides the suite's families two candidates for it are recorded: ``harsher``, the combined shift up to the harshest level of
each family, and ``site_accuracy``, the accuracy at simulated sites.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from exhaustive_plan import exhaustive_plan
from single_training import train_network

from bloodauto.config.recipe import parse_recipe
from bloodauto.data.clean import clean
from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_dataset
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.metrics import weighted_balanced_accuracy
from bloodauto.models.device import limit_native_threads
from bloodauto.run.files import write_text
from bloodauto.shift.corruptions import SEVERITIES, find_family
from bloodauto.shift.simulated_sites import draw_simulated_sites
from bloodauto.shift.suite import ShiftPlan, ShiftSuite
from bloodauto.types import Images, Labels

_BASE: dict[str, Any] = {
    "backbone": {"name": "mobilenet_0.25", "weights": "imagenet", "batch_norm": "train"},
    "head": {"dropout": 0.2},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.05},
    "augmentation": {
        "orientation": True,
        "framing": 0.3,
        "stain_jitter": 1.0,
        "rand_augment": {"num_ops": 4, "magnitude": 0.7, "operations": "cells"},
    },
    "batch_size": 64,
    "stages": [{"epochs": 4, "optimizer": {"name": "adamw", "learning_rate": 2.0e-3, "weight_decay": 0.02}}],
}


def _with(changes: dict[str, Any]) -> dict[str, Any]:
    """The base with values replaced at dotted paths."""
    recipe: dict[str, Any] = {key: _copy(value) for key, value in _BASE.items()}
    for path, value in changes.items():
        node: Any = recipe
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        for parent in parents:
            node = node[parent]
        node[last] = value
    return recipe


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _rand(num_ops: int, magnitude: float, operations: Any = "cells") -> dict[str, Any]:
    return {"num_ops": num_ops, "magnitude": magnitude, "operations": operations}


_ADAMW = {"name": "adamw", "learning_rate": 2.0e-3, "weight_decay": 0.02}
_HEAD_ONLY = {"epochs": 1, "unfreeze": "none", "optimizer": {"name": "adam", "learning_rate": 3.0e-3}}
_PLAIN = {"orientation": False}
_ORIENTATION = {"orientation": True}

#: Levels of the combined shift: the suite's harshest, and up to the harshest level of each family alone.
HARSHER_SEVERITIES = (3.2, 3.65, 4.1, 4.55, 5.0)
_SITES = 48
_IMAGES_PER_SITE = 24
_STANDARD = {"filters": ["standardise"]}
_DENSITY = {"filters": ["standardise_density"]}
_BLUR_AND_NOISE = _rand(2, 0.7, ["gaussian_blur", "motion_blur", "noise", "jpeg"])
_STRONG = {"augmentation.rand_augment": _rand(6, 0.9)}
_MOBILENET_100 = {"backbone.name": "mobilenet_1.0", "stages.0.epochs": 2, "stages.0.optimizer.learning_rate": 1.0e-3}

RECIPES: dict[str, dict[str, Any]] = {
    "base": {},
    "no_augmentation": {"augmentation": _PLAIN},
    "orientation_only": {"augmentation": _ORIENTATION},
    "weak_cells": {"augmentation.rand_augment": _rand(2, 0.3), "augmentation.stain_jitter": 0.3},
    "strong_cells": {"augmentation.rand_augment": _rand(6, 0.9)},
    "standard_3": {"augmentation": {**_ORIENTATION, "rand_augment": _rand(3, 0.5, "standard")}},
    "paper_2": {"augmentation": {**_ORIENTATION, "rand_augment": _rand(2, 0.5, "paper")}},
    "stain_only": {"augmentation": {**_ORIENTATION, "stain_jitter": 1.0}},
    "framing_only": {"augmentation": {**_ORIENTATION, "framing": 1.0}},
    "geometry_only": {
        "augmentation": {**_ORIENTATION, "rand_augment": _rand(3, 0.7, ["rotate_any", "zoom", "translate"])}
    },
    "colour_only": {
        "augmentation": {**_ORIENTATION, "rand_augment": _rand(3, 0.7, ["hue", "saturation", "white_balance", "gamma"])}
    },
    "blur_noise_only": {"augmentation": {**_ORIENTATION, "rand_augment": _BLUR_AND_NOISE}},
    "grey_and_colour": {
        "augmentation.rand_augment": _rand(4, 0.7, ["color", "hue", "white_balance", "gamma", "contrast", "invert"])
    },
    "frozen": {"stages": [{**_HEAD_ONLY, "epochs": 4}]},
    "frozen_plain": {"stages": [{**_HEAD_ONLY, "epochs": 4}], "augmentation": _PLAIN},
    "last_block": {"stages": [_HEAD_ONLY, {"epochs": 3, "unfreeze": {"blocks": 1}, "optimizer": _ADAMW}]},
    "last_three_blocks": {"stages": [_HEAD_ONLY, {"epochs": 3, "unfreeze": {"blocks": 3}, "optimizer": _ADAMW}]},
    "three_blocks_plain": {
        "stages": [_HEAD_ONLY, {"epochs": 3, "unfreeze": {"blocks": 3}, "optimizer": _ADAMW}],
        "augmentation": _ORIENTATION,
    },
    "batch_norm_frozen": {"backbone.batch_norm": "freeze"},
    "batch_norm_statistics_frozen": {"backbone.batch_norm": "freeze_statistics"},
    "batch_norm_frozen_plain": {"backbone.batch_norm": "freeze", "augmentation": _ORIENTATION},
    "slow": {"stages.0.optimizer.learning_rate": 2.0e-4},
    "fast": {"stages.0.optimizer.learning_rate": 8.0e-3},
    "lion": {"stages.0.optimizer": {"name": "lion", "learning_rate": 2.0e-4, "weight_decay": 0.1}},
    "sgd": {"stages.0.optimizer": {"name": "sgd", "learning_rate": 2.0e-2, "weight_decay": 0.0}},
    "focal_balanced": {"loss": {"name": "focal", "gamma": 2.0, "class_weights": "balanced"}},
    "dropout_and_dense": {"head": {"dropout": 0.5, "dense_units": [128]}},
    "max_pooling": {"head": {"dropout": 0.2, "pooling": "max"}},
    "one_epoch": {"stages.0.epochs": 1},
    "one_epoch_plain": {"stages.0.epochs": 1, "augmentation": _ORIENTATION},
    "twelve_epochs_plain": {"stages.0.epochs": 12, "augmentation": _ORIENTATION},
    "ten_epochs": {"stages.0.epochs": 10},
    "random_start": {"backbone.weights": "none"},
    "mobilenet_v2_035": {"backbone.name": "mobilenet_v2_0.35"},
    "mobilenet_v2_035_plain": {"backbone.name": "mobilenet_v2_0.35", "augmentation": _ORIENTATION},
    "mobilenet_100": _MOBILENET_100,
    "mobilenet_100_plain": {**_MOBILENET_100, "augmentation": _ORIENTATION},
    "small_input": {"input": {"size_px": 64}},
    "standardised": {"input": _STANDARD},
    "standardised_no_augmentation": {"input": _STANDARD, "augmentation": _PLAIN},
    "standardised_orientation_only": {"input": _STANDARD, "augmentation": _ORIENTATION},
    "standardised_weak": {
        "input": _STANDARD,
        "augmentation.rand_augment": _rand(2, 0.3),
        "augmentation.stain_jitter": 0.3,
    },
    "standardised_strong": {"input": _STANDARD, **_STRONG},
    "standardised_stain_only": {"input": _STANDARD, "augmentation": {**_ORIENTATION, "stain_jitter": 1.0}},
    "standardised_blur_noise_only": {
        "input": _STANDARD,
        "augmentation": {**_ORIENTATION, "rand_augment": _BLUR_AND_NOISE},
    },
    "standardised_frozen": {"input": _STANDARD, "stages": [{**_HEAD_ONLY, "epochs": 4}]},
    "standardised_ten_epochs": {"input": _STANDARD, "stages.0.epochs": 10},
    "standardised_twelve_epochs_plain": {"input": _STANDARD, "stages.0.epochs": 12, "augmentation": _ORIENTATION},
    "standardised_density": {"input": _DENSITY},
    "standardised_density_orientation_only": {"input": _DENSITY, "augmentation": _ORIENTATION},
    "standardised_mobilenet_v2_035": {"input": _STANDARD, "backbone.name": "mobilenet_v2_0.35"},
    "standardised_mobilenet_v2_035_strong": {"input": _STANDARD, "backbone.name": "mobilenet_v2_0.35", **_STRONG},
    "standardised_mobilenet_v2_035_plain": {
        "input": _STANDARD,
        "backbone.name": "mobilenet_v2_0.35",
        "augmentation": _ORIENTATION,
    },
    "standardised_mobilenet_100": {"input": _STANDARD, **_MOBILENET_100},
    "standardised_mobilenet_100_plain": {"input": _STANDARD, **_MOBILENET_100, "augmentation": _ORIENTATION},
    "mobilenet_v2_035_strong": {"backbone.name": "mobilenet_v2_0.35", **_STRONG},
    "stain_normalised": {"input": {"filters": ["normalise_stain"]}},
    "grey": {"input": {"filters": ["grey"]}},
    "no_background": {"input": {"filters": ["remove_background"]}},
}


def _table(network: keras.Model, plan: ShiftPlan, shifted_images: Images, labels: Labels) -> list[list[float]]:
    """Balanced accuracy, family by severity."""
    correct = predict_batches(network, shifted_images).argmax(axis=1) == labels
    table = []
    for index in range(len(plan.families)):
        of_family = plan.family_index == index
        rows = [of_family & (plan.severities == severity) for severity in SEVERITIES]
        table.append([round(weighted_balanced_accuracy(labels[row], correct[row]), 4) for row in rows])
    return table


class Candidates:
    """Shifted images that the suite does not have, drawn once: a harsher combined shift, and simulated sites.

    Args:
        images: Validation images.
        labels: Their classes.
        num_images: Images per family and severity in the recorded suite.
        seed: Of all draws.
    """

    def __init__(self, images: Images, labels: Labels, num_images: int, seed: int) -> None:
        family = find_family("combined_shift")
        order = np.random.default_rng([seed, 2]).permutation(len(labels))
        harsher = order[: min(4 * num_images, len(order))]
        self._labels = [labels[harsher]] * len(HARSHER_SEVERITIES)
        self._images = [
            np.stack([family.corrupt(images[row], level, np.random.default_rng([seed, row])) for row in harsher])
            for level in HARSHER_SEVERITIES
        ]
        for number, site in enumerate(draw_simulated_sites(_SITES, seed=seed)):
            rows = order[(number * _IMAGES_PER_SITE + np.arange(_IMAGES_PER_SITE)) % len(order)]
            self._labels.append(labels[rows])
            self._images.append(site.render(images[rows]))

    def evaluate(self, network: keras.Model) -> dict[str, list[float]]:
        """Computes the balanced accuracy for each level, and the accuracy for each site, which has too few images for more."""
        correct_by_set = np.split(
            predict_batches(network, np.concatenate(self._images)).argmax(axis=1) == np.concatenate(self._labels),
            np.cumsum([len(labels) for labels in self._labels])[:-1],
        )
        levels = len(HARSHER_SEVERITIES)
        return {
            "harsher": [
                round(weighted_balanced_accuracy(labels, correct), 4)
                for labels, correct in zip(self._labels[:levels], correct_by_set[:levels], strict=True)
            ],
            "site_accuracy": [round(float(correct.mean()), 4) for correct in correct_by_set[levels:]],
        }


def _external_datasets(arguments: list[str], names: tuple[str, ...], size_px: int) -> dict[str, CellDataset]:
    datasets = {f"synthetic_{name}": synthesize(400, site=name, seed=9) for name in ("lab_a", "lab_b", "lab_c")}
    for argument in arguments:
        name, _, path = argument.partition("=")
        datasets[name] = load_dataset(Path(path), image_size_px=size_px)
    for name, dataset in datasets.items():
        unknown = set(dataset.class_names) - set(names)
        if unknown:
            raise SystemExit(f"{name}: expected classes of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    return datasets


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--external", action="append", default=[], help="name=folder of an external site's images")
    parser.add_argument("--train-images", type=int, default=4500)
    parser.add_argument("--suite-images", type=int, default=64, help="per family and severity")
    parser.add_argument(
        "--part", default="0/1", help="which of several equal parts of the recipes, to use several cores"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    limit_native_threads(1)

    dataset = load_dataset(arguments.data)
    splits = make_splits(dataset, clean(dataset), seed=arguments.seed)
    fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=arguments.seed, num_images=96), max_subset_images=512)
    rng = np.random.default_rng(arguments.seed)
    kept = np.sort(rng.permutation(len(fold_data.train_index))[: arguments.train_images])
    fold_data = FoldData(
        **{
            **{name: getattr(fold_data, name) for name in FoldData.__dataclass_fields__},
            "train_index": fold_data.train_index[kept],
            "train_images": fold_data.train_images[kept],
        }
    )
    # The recorded shifted images are another draw than those that select the epoch to keep.
    validation = fold_data.validation_index
    suite = ShiftSuite(seed=arguments.seed + 1000, num_images=arguments.suite_images)
    plan = exhaustive_plan(suite, dataset.labels[validation], SEVERITIES)
    shifted_images = plan.render(dataset.images[validation])
    shifted_labels = dataset.labels[validation][plan.image_index]
    candidates = Candidates(dataset.images[validation], dataset.labels[validation], arguments.suite_images, suite.seed)
    external = _external_datasets(arguments.external, dataset.class_names, dataset.images.shape[1])

    record: dict[str, Any] = {
        "families": [{"name": family.name, "group": family.group} for family in plan.families],
        "severities": list(SEVERITIES),
        "harsher": list(HARSHER_SEVERITIES),
        "images_per_site": _IMAGES_PER_SITE,
        "suite_images": arguments.suite_images,
        "train_images": len(kept),
        "validation_images": len(validation),
        "recipes": [],
    }
    if arguments.output.is_file():
        record["recipes"] = json.loads(arguments.output.read_text(encoding="utf-8"))["recipes"]
    done = {entry["name"] for entry in record["recipes"]}
    part, parts = (int(number) for number in arguments.part.split("/"))
    for number, (name, changes) in enumerate(RECIPES.items()):
        if name in done or number % parts != part:
            continue
        recipe = parse_recipe(_with(changes), origin=name)
        started = time.process_time()
        network = train_network(recipe, fold_data, seed=arguments.seed, weights_dir=arguments.weights_dir)
        seconds = time.process_time() - started
        correct = predict_batches(network, dataset.images, validation).argmax(axis=1) == dataset.labels[validation]
        entry: dict[str, Any] = {
            "name": name,
            "recipe": recipe.canonical(),
            "core_seconds": round(seconds, 1),
            "clean": {
                "accuracy": round(float(correct.mean()), 4),
                "balanced_accuracy": round(weighted_balanced_accuracy(dataset.labels[validation], correct), 4),
            },
            "balanced": _table(network, plan, shifted_images, shifted_labels),
            **candidates.evaluate(network),
            "external": {},
        }
        for site, site_dataset in external.items():
            class_indices = np.array([dataset.class_names.index(name) for name in site_dataset.class_names])
            predictions = predict_batches(network, site_dataset.images).argmax(axis=1)
            accuracy = float((predictions == class_indices[site_dataset.labels]).mean())
            entry["external"][site] = round(accuracy, 4)
        record["recipes"].append(entry)
        write_text(arguments.output, json.dumps(record, indent=1) + "\n")
        mean = float(np.mean(entry["balanced"]))
        print(f"{name}: {seconds:.0f} core-s, clean {entry['clean']['accuracy']:.3f}, shifted {mean:.3f}", flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
