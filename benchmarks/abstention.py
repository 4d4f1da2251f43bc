"""How well a model knows what it does not know: AUROC of measures of sureness against cells and things never shown to it.

    python benchmarks/abstention.py                          # three types held out in turn, one seed
    python benchmarks/abstention.py --held-out eosinophil platelet ig monocyte --seeds 3

A small network learns drawn cells of seven types. Known are unseen cells of these seven; unknown are cells of the eighth,
pictures without a cell (plasma and red cells), cartoons drawn over cells, and noise. Wrong are its own mistakes: how often a
rightly answered image is surer than one that is not. Measures of probabilities are taken after calibration, the energy
(Liu et al., arXiv:2010.03759) from the logits as they are, the distance from the features before them. Marked is what
the entropy or the distance marks.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bloodauto.data.cells import COMPETITION_CLASSES, Cells
from bloodauto.data.clean import clean
from bloodauto.data.film import FieldOfView
from bloodauto.data.laboratory import LABORATORIES, photograph
from bloodauto.data.morphology import draw_background
from bloodauto.data.split import make_splits
from bloodauto.data.synth import draw_overlay, synthesize
from bloodauto.ensemble.abstention import SURENESS_NAMES, auroc, fit_abstention, is_sure, sureness
from bloodauto.ensemble.calibration import apply_temperature, fit_temperature
from bloodauto.export.familiar import fit_familiarity, strangeness
from bloodauto.export.keras_export import Member, build_export
from bloodauto.files import read_arrays, shipped_folder
from bloodauto.recipe import load_recipe
from bloodauto.shift.suite import ShiftSuite

IMAGE_SIZE_PX = 64


def without(cells: Cells, held_out: str) -> Cells:
    """The cells of the other types, numbered anew."""
    number = COMPETITION_CLASSES.index(held_out)
    kept = np.flatnonzero(cells.labels != number)
    names = tuple(name for name in cells.class_names if name != held_out)
    labels = cells.labels[kept]
    return replace(
        cells,
        images=cells.images[kept],
        labels=labels - (labels > number),
        class_names=names,
        names=cells.names[kept],
        groups=cells.groups[kept],
        labs=cells.labs[kept],
        given_splits=cells.given_splits[kept],
    )


def things(unseen: Cells, held_out: str, count: int, seed: int) -> dict[str, np.ndarray]:
    """Images of what the network never saw, uint8 (n, h, w, 3), by their name."""
    rng = np.random.default_rng([seed, 5])
    laboratory = LABORATORIES["lab_a"]
    backgrounds = []
    for _ in range(count):
        field = FieldOfView(IMAGE_SIZE_PX, laboratory.optics.field_of_view_um)
        draw_background(field, rng, np.full(2, field.size_um / 2), 0.0)
        backgrounds.append(photograph(rng, field.amounts, laboratory))
    known = np.flatnonzero(unseen.labels != COMPETITION_CLASSES.index(held_out))[:count]
    return {
        "other type": unseen.images[unseen.labels == COMPETITION_CLASSES.index(held_out)][:count],
        "no cell": np.stack(backgrounds),
        "cartoon": np.stack([draw_overlay(rng, unseen.images[index]) for index in known]),
        "noise": rng.integers(0, 256, (count, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), dtype=np.uint8),
    }


def logits_of(network, images: np.ndarray) -> np.ndarray:
    return np.asarray(network.predict(images, batch_size=128, verbose=0), dtype=np.float64)


def run(
    held_out: str, arguments: argparse.Namespace, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """AUROC by measure and kind of unknown, and the share that the threshold marks by kind."""
    from bloodauto.trial.checkpoint import read_weights
    from bloodauto.trial.material import prepare
    from bloodauto.trial.metrics import softmax
    from bloodauto.trial.network import build_network
    from bloodauto.trial.train import TrainOptions, train

    learnt = without(synthesize(arguments.cells, seed=seed, image_size_px=IMAGE_SIZE_PX), held_out)
    unseen = synthesize(arguments.unseen, seed=seed, image_size_px=IMAGE_SIZE_PX, first_index=arguments.cells)
    known = without(unseen, held_out)
    recipe = load_recipe(shipped_folder("trials") / "tiny_cnn.yaml")
    splits = make_splits(learnt, clean(learnt, enabled=False), seed=seed)
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        train(
            recipe,
            prepare(learnt, splits, ShiftSuite(seed=seed)),
            seed=seed,
            options=TrainOptions(),
            folder=Path(folder),
            report=lambda epoch: None,
            should_stop=lambda: False,
        )
        shape = (IMAGE_SIZE_PX, IMAGE_SIZE_PX)
        network = build_network(recipe, num_classes=7, image_shape_px=shape, weights_file=None, to_train=False)
        network.set_weights(read_weights(Path(folder) / "best.npz"))
        answers = read_arrays(Path(folder) / "predictions.npz")
    rows = np.concatenate([answers["clean"], answers["shifted"]])
    temperature = fit_temperature(rows, np.concatenate([answers["labels"], answers["view_labels"]]))
    rule = fit_abstention(
        apply_temperature(answers["clean"], temperature),
        answers["labels"],
        apply_temperature(answers["shifted"], temperature),
        answers["view_labels"],
    )

    exported = build_export([Member(network, 1.0)])
    known_rows = splits.train_index(0), splits.validation_index(0)
    familiarity, _ = fit_familiarity(exported, learnt.images, learnt.labels, *known_rows, seed=seed)

    def scores(images: np.ndarray) -> dict[str, np.ndarray]:
        logits = logits_of(network, images)
        probabilities = apply_temperature(softmax(logits), temperature)
        highest = logits.max(axis=1)
        found = {name: sureness(probabilities, name) for name in SURENESS_NAMES}
        found["energy"] = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        found["distance"] = -strangeness(familiarity.spaces, exported, images)
        strange = -found["distance"] > familiarity.limit
        found["marked"] = strange | ~is_sure(probabilities, rule.sureness, rule.threshold)
        return found

    of_known = scores(known.images)
    right = logits_of(network, known.images).argmax(axis=1) == known.labels
    areas: dict[str, dict[str, float]] = {name: {} for name in (*SURENESS_NAMES, "energy", "distance")}
    marked = {"known": float(of_known["marked"].mean())}
    for kind, images in things(unseen, held_out, 200, seed).items():
        of_kind = scores(images)
        marked[kind] = float(of_kind["marked"].mean())
        for name, of in areas.items():
            of[kind] = auroc(of_known[name], of_kind[name])
    for name, of in areas.items():
        of["own mistake"] = auroc(of_known[name][right], of_known[name][~right])
    marked["own mistake"] = float(of_known["marked"][~right].mean())
    return areas, marked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", nargs="+", default=["eosinophil", "lymphocyte", "platelet"])
    parser.add_argument("--cells", type=int, default=2500)
    parser.add_argument("--unseen", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    kinds = ("other type", "no cell", "cartoon", "noise", "own mistake")
    print(f"{'held out':<13}{'':<17}" + "".join(f"{kind:>13}" for kind in kinds))
    everything: dict[str, list[list[float]]] = {}
    for seed in range(arguments.seeds):
        for held_out in arguments.held_out:
            areas, marked = run(held_out, arguments, seed)
            for name, of in areas.items():
                everything.setdefault(name, []).append([of[kind] for kind in kinds])
                print(f"{held_out:<13}{name:<17}" + "".join(f"{of[kind]:13.3f}" for kind in kinds), flush=True)
            shares = "".join(f"{marked[kind]:13.3f}" for kind in kinds)
            print(f"{held_out:<13}{'marked':<17}{shares}   (known: {marked['known']:.3f})", flush=True)
    for name, rows in everything.items():
        means = np.mean(rows, axis=0)
        print(f"{'mean':<13}{name:<17}" + "".join(f"{value:13.3f}" for value in means) + f"   all: {means.mean():.3f}")


if __name__ == "__main__":
    main()
