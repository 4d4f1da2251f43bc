"""Which score separates images to abstain from? AUROC of confidence and OOD scores against images unlike the training images.

    python benchmarks/abstention.py                          # three types held out in turn, one seed, synthetic cells
    python benchmarks/abstention.py --held-out eosinophil platelet ig monocyte --seeds 3
    python benchmarks/abstention.py --data ../shared/data/pbc96 --weights-dir ../shared/weights --epochs 4

A network is trained on cells of seven types: synthetic ones, or those of ``--data``. In-distribution are other cells of these
seven types. Out-of-distribution are cells of the eighth type, images without a cell (drawn plasma and red cells, or the least
varied corner of an image), cartoons drawn over cells, and noise. "own mistake" is how often a correct prediction has a
higher score than a wrong one. Scores of probabilities are computed after calibration, the energy (Liu et al.,
arXiv:2010.03759) from the logits, the distance from the features before them; ``both`` is the exported rule of distance and
entropy. "abstained" is the fraction that this rule marks; "shifted" are in-distribution cells at simulated sites.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from single_training import train_network

from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.shipped import find_recipe_file
from bloodauto.data.clean import clean
from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_dataset
from bloodauto.data.split import Splits, make_splits
from bloodauto.data.synthetic.film import FieldOfView
from bloodauto.data.synthetic.generator import draw_cartoon_overlay, synthesize
from bloodauto.data.synthetic.morphology import draw_background
from bloodauto.data.synthetic.site import SYNTHETIC_SITES, render_image
from bloodauto.evaluation.calibration import apply_temperature, fit_temperature
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.metrics import auroc, softmax
from bloodauto.evaluation.ood import make_synthetic_ood
from bloodauto.evaluation.selective import CONFIDENCE_SCORES, confidence_score
from bloodauto.export.ensemble_model import ExportedMember, build_ensemble_model
from bloodauto.export.ood import fit_ood_detector, mean_distances, ood_score
from bloodauto.shift.simulated_sites import draw_simulated_sites
from bloodauto.shift.suite import ShiftSuite
from bloodauto.tuning.refits import with_extended_epochs

_SYNTHETIC_SIZE_PX = 64
_OOD_IMAGES = 200
_SITES, _IMAGES_PER_SITE = 40, 10


@dataclass(frozen=True)
class OodTask:
    """A task of OOD detection.

    Attributes:
        training_set: cells without the held-out type; ``splits`` are of these.
        splits: of the training set.
        in_distribution: other cells of these types.
        out_of_distribution: images unlike the training set by kind, uint8 (n, h, w, 3).
    """

    training_set: CellDataset
    splits: Splits
    in_distribution: CellDataset
    out_of_distribution: dict[str, np.ndarray]


def without_class(dataset: CellDataset, held_out: str) -> CellDataset:
    """The cells of the other types; labels are renumbered."""
    number = dataset.class_names.index(held_out)
    kept = dataset.subset(np.flatnonzero(dataset.labels != number))
    names = tuple(name for name in dataset.class_names if name != held_out)
    return replace(kept, labels=kept.labels - (kept.labels > number), class_names=names)


def synthetic_task(held_out: str, arguments: argparse.Namespace, seed: int) -> OodTask:
    """A task with synthetic cells of one site and synthetic fields without a cell."""
    size_px = _SYNTHETIC_SIZE_PX
    training_set = without_class(synthesize(arguments.images, seed=seed, image_size_px=size_px), held_out)
    unseen = synthesize(arguments.unseen, seed=seed, image_size_px=size_px, first_index=arguments.images)
    rng = np.random.default_rng([seed, 5])
    site = SYNTHETIC_SITES["lab_a"]
    fields = []
    for _ in range(_OOD_IMAGES):
        field = FieldOfView(size_px, site.optics.field_of_view_um)
        draw_background(field, rng, np.full(2, field.size_um / 2), 0.0)
        fields.append(render_image(rng, field.amounts, site))
    splits = make_splits(training_set, clean(training_set, enabled=False), seed=seed)
    return _make_task(training_set, splits, without_class(unseen, held_out), unseen, held_out, np.stack(fields), rng)


def real_task(dataset: CellDataset, held_out: str, seed: int) -> OodTask:
    """A task with the cells of a folder; fields without a cell are the least varied corners of held-out images."""
    training_set = without_class(dataset, held_out)
    splits = make_splits(training_set, clean(training_set), seed=seed)
    in_distribution = training_set.subset(splits.test_index())
    rng = np.random.default_rng([seed, 5])
    fields = make_synthetic_ood(in_distribution.images[rng.permutation(len(in_distribution))[:_OOD_IMAGES]], rng)[
        "background without a cell"
    ]
    return _make_task(training_set, splits, in_distribution, dataset, held_out, fields, rng)


def _make_task(
    training_set: CellDataset,
    splits: Splits,
    in_distribution: CellDataset,
    unseen: CellDataset,
    held_out: str,
    fields: np.ndarray,
    rng: np.random.Generator,
) -> OodTask:
    others = np.flatnonzero(unseen.labels == unseen.class_names.index(held_out))
    shown = in_distribution.images[rng.permutation(len(in_distribution))[:_OOD_IMAGES]]
    out_of_distribution = {
        "other type": unseen.images[rng.permutation(others)[:_OOD_IMAGES]],
        "no cell": fields,
        "cartoon": np.stack([draw_cartoon_overlay(rng, image) for image in shown]),
        "noise": rng.integers(0, 256, shown.shape, dtype=np.uint8),
    }
    return OodTask(training_set, splits, in_distribution, out_of_distribution)


def _logits(network: keras.Model, images: np.ndarray) -> np.ndarray:
    return predict_outputs(network, images)[0].astype(np.float64)


def run(
    task: OodTask, recipe: Recipe, weights_dir: Path | None, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Computes the AUROC by score and kind, and the fraction that the exported rule abstains from by kind."""
    fold_data = prepare_fold(task.training_set, task.splits, ShiftSuite(seed=seed))
    network = train_network(recipe, fold_data, seed=seed, weights_dir=weights_dir)
    validation = task.splits.validation_index(0)
    clean_logits = _logits(network, task.training_set.images[validation])
    labels = task.training_set.labels[validation]
    plan = ShiftSuite(seed=seed).plan(labels)
    shifted_logits = _logits(network, plan.render(task.training_set.images[validation]))
    shifted_labels = labels[plan.image_index]
    rows = softmax(np.concatenate([clean_logits, shifted_logits]))
    temperature = fit_temperature(rows, np.concatenate([labels, shifted_labels]))
    exported = build_ensemble_model([ExportedMember(network, 1.0)], temperature=temperature)
    train = task.splits.train_index(0)
    images_and_labels = task.training_set.images, task.training_set.labels
    ood_detector, _ = fit_ood_detector(exported, *images_and_labels, train, validation, seed=seed)

    def scores(images: np.ndarray) -> dict[str, np.ndarray]:
        logits = _logits(network, images)
        probabilities = apply_temperature(softmax(logits), temperature)
        highest = logits.max(axis=1)
        values: dict[str, np.ndarray] = {name: confidence_score(probabilities, name) for name in CONFIDENCE_SCORES}
        values["energy"] = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        values["distance"] = -mean_distances(ood_detector, exported, images)
        values["both"] = -ood_score(ood_detector, exported, images, probabilities)
        values["abstained"] = -values["both"] > ood_detector.threshold
        return values

    in_distribution = scores(task.in_distribution.images)
    correct = _logits(network, task.in_distribution.images).argmax(axis=1) == task.in_distribution.labels
    areas: dict[str, dict[str, float]] = {name: {} for name in (*CONFIDENCE_SCORES, "energy", "distance", "both")}
    abstained = {"in-distribution": float(in_distribution["abstained"].mean())}
    for kind, images in task.out_of_distribution.items():
        of_kind = scores(images)
        abstained[kind] = float(of_kind["abstained"].mean())
        for name, of in areas.items():
            of[kind] = auroc(in_distribution[name], of_kind[name])
    for name, of in areas.items():
        of["own mistake"] = auroc(in_distribution[name][correct], in_distribution[name][~correct])
    abstained["own mistake"] = float(in_distribution["abstained"][~correct].mean())
    abstained["shifted"] = float(scores(_shifted(task.in_distribution, seed))["abstained"].mean())
    return areas, abstained


def _shifted(in_distribution: CellDataset, seed: int) -> np.ndarray:
    """In-distribution cells at simulated sites."""
    order = np.random.default_rng([seed, 6]).permutation(len(in_distribution))
    return np.concatenate(
        [
            site.render(
                in_distribution.images[order[(number * _IMAGES_PER_SITE + np.arange(_IMAGES_PER_SITE)) % len(order)]]
            )
            for number, site in enumerate(draw_simulated_sites(_SITES, seed=seed))
        ]
    )


def main() -> None:
    """Prints the table of each held-out type, then the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", nargs="+", default=["eosinophil", "lymphocyte", "platelet"])
    parser.add_argument("--data", type=Path, help="folder of real cells; default: synthetic ones")
    parser.add_argument("--recipe", help="default: tiny_cnn for synthetic cells, otherwise small_mobilenet_025")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's own")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--images", type=int, default=2500, help="synthetic ones to train on")
    parser.add_argument("--unseen", type=int, default=1500, help="synthetic ones to evaluate on")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    dataset = None if arguments.data is None else load_dataset(arguments.data)
    default_recipe = "tiny_cnn" if dataset is None else "small_mobilenet_025"
    recipe = load_recipe(find_recipe_file(default_recipe if arguments.recipe is None else arguments.recipe))
    if arguments.epochs is not None:
        recipe = with_extended_epochs(recipe, arguments.epochs / recipe.total_epochs)
    kinds = ("other type", "no cell", "cartoon", "noise", "own mistake")
    print(f"{'held out':<13}{'':<17}" + "".join(f"{kind:>13}" for kind in kinds))
    areas_by_score: dict[str, list[list[float]]] = {}
    for seed in range(arguments.seeds):
        for held_out in arguments.held_out:
            task = synthetic_task(held_out, arguments, seed) if dataset is None else real_task(dataset, held_out, seed)
            areas, abstained = run(task, recipe, arguments.weights_dir, seed)
            for name, of in areas.items():
                areas_by_score.setdefault(name, []).append([of[kind] for kind in kinds])
                print(f"{held_out:<13}{name:<17}" + "".join(f"{of[kind]:13.3f}" for kind in kinds), flush=True)
            fractions = "".join(f"{abstained[kind]:13.3f}" for kind in kinds)
            others = f"   (in-distribution: {abstained['in-distribution']:.3f}, shifted: {abstained['shifted']:.3f})"
            print(f"{held_out:<13}{'abstained':<17}{fractions}{others}", flush=True)
    for name, rows in areas_by_score.items():
        means = np.mean(rows, axis=0)
        print(f"{'mean':<13}{name:<17}" + "".join(f"{value:13.3f}" for value in means) + f"   all: {means.mean():.3f}")


if __name__ == "__main__":
    main()
