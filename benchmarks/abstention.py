"""How well a model knows what it does not know: AUROC of measures of sureness against cells and things never shown to it.

    python benchmarks/abstention.py                          # three types held out in turn, one seed, drawn cells
    python benchmarks/abstention.py --held-out eosinophil platelet ig monocyte --seeds 3
    python benchmarks/abstention.py --data ../shared/data/pbc96 --weights-dir ../shared/weights --epochs 4

A network learns cells of seven types: drawn ones, or those of ``--data``. Known are unseen cells of these seven; unknown are
cells of the eighth, pictures without a cell (drawn plasma and red cells, or the least varied corner of an image), cartoons
drawn over cells, and noise. Wrong are its own mistakes: how often a rightly answered image is surer than one that is not.
Measures of probabilities are taken after calibration, the energy (Liu et al., arXiv:2010.03759) from the logits as they are,
the distance from the features before them, and ``both`` is the exported rule of distance and entropy. Marked is what this rule
marks; shifted are known cells as other laboratories would show them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import bloodauto.training  # noqa: F401

# isort: split
# TensorFlow is set up before Keras is imported.
import keras
import numpy as np
from objective.record import fitted

from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.recipe.experiments import find_declared
from bloodauto.data.clean import clean
from bloodauto.data.dataset import Cells
from bloodauto.data.load import load_cells
from bloodauto.data.split import Splits, make_splits
from bloodauto.data.synthetic.film import FieldOfView
from bloodauto.data.synthetic.generator import draw_overlay, synthesize
from bloodauto.data.synthetic.morphology import draw_background
from bloodauto.data.synthetic.site import LABORATORIES, photograph
from bloodauto.evaluation.calibration import apply_temperature, fit_temperature
from bloodauto.evaluation.fold_data import answers_of, prepare
from bloodauto.evaluation.metrics import softmax
from bloodauto.evaluation.selective import SURENESS_NAMES, auroc, sureness
from bloodauto.export.keras_model import Member, build_export
from bloodauto.export.ood import fit_familiarity, made_of, mean_distances, strangeness
from bloodauto.shift.simulated_sites import draw_compound_shifts
from bloodauto.shift.suite import ShiftSuite
from bloodauto.tuning.refits import stretched

_DRAWN_SIZE_PX = 64
_THINGS = 200
_PLACES, _IMAGES_PER_PLACE = 40, 10


@dataclass(frozen=True)
class Question:
    """Cells of some types to learn, and what is asked afterwards.

    Attributes:
        learnt: cells without the held-out type; ``splits`` are of these.
        known: cells of these types that took no part.
        unknown: uint8 (n, h, w, 3), what the network never saw, by its name.
    """

    learnt: Cells
    splits: Splits
    known: Cells
    unknown: dict[str, np.ndarray]


def without(cells: Cells, held_out: str) -> Cells:
    """The cells of the other types, numbered anew."""
    number = cells.class_names.index(held_out)
    kept = cells.subset(np.flatnonzero(cells.labels != number))
    names = tuple(name for name in cells.class_names if name != held_out)
    return replace(kept, labels=kept.labels - (kept.labels > number), class_names=names)


def drawn_question(held_out: str, arguments: argparse.Namespace, seed: int) -> Question:
    """Drawn cells of one laboratory; the fields without a cell are drawn, too."""
    size_px = _DRAWN_SIZE_PX
    learnt = without(synthesize(arguments.cells, seed=seed, image_size_px=size_px), held_out)
    unseen = synthesize(arguments.unseen, seed=seed, image_size_px=size_px, first_index=arguments.cells)
    rng = np.random.default_rng([seed, 5])
    laboratory = LABORATORIES["lab_a"]
    fields = []
    for _ in range(_THINGS):
        field = FieldOfView(size_px, laboratory.optics.field_of_view_um)
        draw_background(field, rng, np.full(2, field.size_um / 2), 0.0)
        fields.append(photograph(rng, field.amounts, laboratory))
    splits = make_splits(learnt, clean(learnt, enabled=False), seed=seed)
    return _question(learnt, splits, without(unseen, held_out), unseen, held_out, np.stack(fields), rng)


def real_question(cells: Cells, held_out: str, seed: int) -> Question:
    """Cells of a folder; fields without a cell are the least varied corners of images that took no part."""
    learnt = without(cells, held_out)
    splits = make_splits(learnt, clean(learnt), seed=seed)
    known = learnt.subset(splits.test_index())
    rng = np.random.default_rng([seed, 5])
    fields = made_of(known.images[rng.permutation(len(known))[:_THINGS]], rng)["background without a cell"]
    return _question(learnt, splits, known, cells, held_out, fields, rng)


def _question(
    learnt: Cells,
    splits: Splits,
    known: Cells,
    unseen: Cells,
    held_out: str,
    fields: np.ndarray,
    rng: np.random.Generator,
) -> Question:
    others = np.flatnonzero(unseen.labels == unseen.class_names.index(held_out))
    shown = known.images[rng.permutation(len(known))[:_THINGS]]
    unknown = {
        "other type": unseen.images[rng.permutation(others)[:_THINGS]],
        "no cell": fields,
        "cartoon": np.stack([draw_overlay(rng, image) for image in shown]),
        "noise": rng.integers(0, 256, shown.shape, dtype=np.uint8),
    }
    return Question(learnt, splits, known, unknown)


def _logits(network: keras.Model, images: np.ndarray) -> np.ndarray:
    return answers_of(network, images)[0].astype(np.float64)


def run(
    question: Question, recipe: Recipe, weights_dir: Path | None, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """AUROC by measure and kind of unknown, and the share that the exported rule marks by kind."""
    material = prepare(question.learnt, question.splits, ShiftSuite(seed=seed))
    network = fitted(recipe, material, weights_dir, seed)
    validation = question.splits.validation_index(0)
    clean_logits = _logits(network, question.learnt.images[validation])
    labels = question.learnt.labels[validation]
    plan = ShiftSuite(seed=seed).plan(labels)
    view_logits = _logits(network, plan.render(question.learnt.images[validation]))
    view_labels = labels[plan.image_index]
    rows = softmax(np.concatenate([clean_logits, view_logits]))
    temperature = fit_temperature(rows, np.concatenate([labels, view_labels]))
    exported = build_export([Member(network, 1.0, temperature)])
    train = question.splits.train_index(0)
    images_and_labels = question.learnt.images, question.learnt.labels
    familiarity, _ = fit_familiarity(exported, *images_and_labels, train, validation, seed=seed)

    def scores(images: np.ndarray) -> dict[str, np.ndarray]:
        logits = _logits(network, images)
        probabilities = apply_temperature(softmax(logits), temperature)
        highest = logits.max(axis=1)
        found = {name: sureness(probabilities, name) for name in SURENESS_NAMES}
        found["energy"] = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        found["distance"] = -mean_distances(familiarity, exported, images)
        found["both"] = -strangeness(familiarity, exported, images, probabilities)
        found["marked"] = -found["both"] > familiarity.limit
        return found

    of_known = scores(question.known.images)
    right = _logits(network, question.known.images).argmax(axis=1) == question.known.labels
    areas: dict[str, dict[str, float]] = {name: {} for name in (*SURENESS_NAMES, "energy", "distance", "both")}
    marked = {"known": float(of_known["marked"].mean())}
    for kind, images in question.unknown.items():
        of_kind = scores(images)
        marked[kind] = float(of_kind["marked"].mean())
        for name, of in areas.items():
            of[kind] = auroc(of_known[name], of_kind[name])
    for name, of in areas.items():
        of["own mistake"] = auroc(of_known[name][right], of_known[name][~right])
    marked["own mistake"] = float(of_known["marked"][~right].mean())
    marked["shifted"] = float(scores(_shifted(question.known, seed))["marked"].mean())
    return areas, marked


def _shifted(known: Cells, seed: int) -> np.ndarray:
    """Known cells as laboratories drawn at random would show them."""
    order = np.random.default_rng([seed, 6]).permutation(len(known))
    return np.concatenate(
        [
            shift.render(known.images[order[(number * _IMAGES_PER_PLACE + np.arange(_IMAGES_PER_PLACE)) % len(order)]])
            for number, shift in enumerate(draw_compound_shifts(_PLACES, seed=seed))
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", nargs="+", default=["eosinophil", "lymphocyte", "platelet"])
    parser.add_argument("--data", type=Path, help="real cells instead of drawn ones")
    parser.add_argument("--recipe", help="tiny_cnn for drawn cells, small_mobilenet_025 for others")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's own")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--cells", type=int, default=2500, help="drawn ones to learn")
    parser.add_argument("--unseen", type=int, default=1500, help="drawn ones to judge by")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    cells = None if arguments.data is None else load_cells(arguments.data)
    named = arguments.recipe or ("tiny_cnn" if cells is None else "small_mobilenet_025")
    recipe = load_recipe(find_declared(named))
    if arguments.epochs is not None:
        recipe = stretched(recipe, arguments.epochs / recipe.total_epochs)
    kinds = ("other type", "no cell", "cartoon", "noise", "own mistake")
    print(f"{'held out':<13}{'':<17}" + "".join(f"{kind:>13}" for kind in kinds))
    everything: dict[str, list[list[float]]] = {}
    for seed in range(arguments.seeds):
        for held_out in arguments.held_out:
            question = (
                drawn_question(held_out, arguments, seed) if cells is None else real_question(cells, held_out, seed)
            )
            areas, marked = run(question, recipe, arguments.weights_dir, seed)
            for name, of in areas.items():
                everything.setdefault(name, []).append([of[kind] for kind in kinds])
                print(f"{held_out:<13}{name:<17}" + "".join(f"{of[kind]:13.3f}" for kind in kinds), flush=True)
            shares = "".join(f"{marked[kind]:13.3f}" for kind in kinds)
            others = f"   (known: {marked['known']:.3f}, shifted: {marked['shifted']:.3f})"
            print(f"{held_out:<13}{'marked':<17}{shares}{others}", flush=True)
    for name, rows in everything.items():
        means = np.mean(rows, axis=0)
        print(f"{'mean':<13}{name:<17}" + "".join(f"{value:13.3f}" for value in means) + f"   all: {means.mean():.3f}")


if __name__ == "__main__":
    main()
