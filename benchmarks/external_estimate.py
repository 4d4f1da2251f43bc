"""Does the stated expectation hold elsewhere? Coverage over left-out causes and over laboratories that nobody trained on.

    python benchmarks/expectation.py                         # three recipes on 1,500 drawn cells, 24 other laboratories
    python benchmarks/expectation.py --cells 4000 --laboratories 60 --seeds 3

Small networks learn cells of ``lab_a``. From unseen cells of ``lab_a`` under drawn compound shifts follows an interval for
the accuracy elsewhere, as a search states it. Elsewhere are ``lab_b``, ``lab_c`` and laboratories whose stain, lamp, optics and
camera are drawn anew: these images are made from the drawing of the cell, not by corrupting an image of ``lab_a``. What is
counted is how often their accuracies lie inside. Not covered by any of it: other patients, other opinions on labels.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodauto.config.recipe import Recipe, load_recipe, parse_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.data.clean import clean
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.synthetic.site import SYNTHETIC_SITES, Illumination, Optics, Sensor, Stain, SyntheticSite
from bloodauto.shift.external_estimate import ExternalEstimate, SiteOutcome, estimate_external_performance
from bloodauto.shift.simulated_sites import draw_simulated_sites
from bloodauto.shift.suite import ShiftSuite

IMAGE_SIZE_PX = 64
SHIFTS = 96
IMAGES_PER_SHIFT = 12
#: The cells of other laboratories; those of ``lab_a`` end far below.
EXTERNAL_FIRST_INDEX = 100_000


@dataclass(frozen=True)
class EvaluatedRecipe:
    """One trained network: what was expected of it, and what came."""

    recipe: str
    in_domain: float
    external_estimate: ExternalEstimate
    external: tuple[float, ...]


def random_site(seed: int) -> SyntheticSite:
    """A laboratory between and somewhat beyond the three named ones."""
    rng = np.random.default_rng([seed, 77])
    stains = [one.stain for one in SYNTHETIC_SITES.values()]

    def mixed(name: str) -> tuple[float, float, float]:
        shares = rng.dirichlet([1.0] * len(stains))
        density = shares @ np.array([getattr(stain, name) for stain in stains]) * np.exp(0.15 * rng.standard_normal(3))
        return tuple(density.tolist())

    return SyntheticSite(
        f"drawn_{seed}",
        Stain(
            mixed("chromatin"), mixed("basophilic"), mixed("eosin"), mixed("haemoglobin"),
            intensity=float(np.exp(0.25 * rng.standard_normal())),
        ),
        Illumination(float(rng.uniform(3300, 7500)), float(rng.uniform(0.75, 1.1)), float(rng.uniform(0, 0.3))),
        Optics(
            float(rng.uniform(16, 28)), float(rng.uniform(0.1, 0.3)), float(rng.uniform(0, 0.4)), float(rng.uniform(0, 0.1))
        ),
        Sensor(float(rng.uniform(0.5, 6)), int(rng.integers(50, 96))),
    )  # fmt: skip


def recipes() -> dict[str, Recipe]:
    """The small network as shipped, with orientation alone, and without augmentation."""
    shipped = load_recipe(shipped_folder("trials") / "tiny_cnn.yaml").model_dump(mode="json")
    plain = {**shipped, "augmentation": {"orientation": False}}
    turned = {**shipped, "augmentation": {"orientation": True}}
    return {
        name: parse_recipe(value, origin=name)
        for name, value in (("shipped", shipped), ("orientation", turned), ("none", plain))
    }


def outcomes_under_shifts(network, dataset: CellDataset, seed: int) -> list[SiteOutcome]:
    """How the network does in each drawn laboratory."""
    from bloodauto.evaluation.inference import predict_batches

    found = []
    for number, shift in enumerate(draw_simulated_sites(SHIFTS, seed=seed)):
        rows = (number * IMAGES_PER_SHIFT + np.arange(IMAGES_PER_SHIFT)) % len(dataset.labels)
        right = predict_batches(network, shift.render(dataset.images[rows])).argmax(axis=1) == dataset.labels[rows]
        found.append(SiteOutcome(shift.groups, int(right.sum()), IMAGES_PER_SHIFT))
    return found


def evaluate_recipe(name: str, recipe: Recipe, arguments: argparse.Namespace, seed: int) -> EvaluatedRecipe:
    from bloodauto.evaluation.fold_data import prepare_fold
    from bloodauto.evaluation.inference import predict_batches
    from bloodauto.models.network import build_network
    from bloodauto.run.artifacts import NetworkWeights
    from bloodauto.training.trainer import TrainOptions, train

    def accuracy(network, dataset: CellDataset) -> float:
        return float((predict_batches(network, dataset.images).argmax(axis=1) == dataset.labels).mean())

    training_set = synthesize(arguments.dataset, seed=seed, image_size_px=IMAGE_SIZE_PX)
    unseen = synthesize(arguments.unseen, seed=seed, image_size_px=IMAGE_SIZE_PX, first_index=arguments.dataset)
    splits = make_splits(training_set, clean(training_set, enabled=False), seed=seed)
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        train(
            recipe,
            prepare_fold(training_set, splits, ShiftSuite(seed=seed, num_images=64)),
            seed=seed,
            options=TrainOptions(),
            folder=Path(folder),
            report=lambda epoch: None,
            should_stop=lambda: False,
        )
        network = build_network(
            recipe,
            num_classes=len(training_set.class_names),
            image_shape_px=(IMAGE_SIZE_PX, IMAGE_SIZE_PX),
            weights_file=None,
            for_training=False,
        )
        network.set_weights(NetworkWeights.read(Path(folder) / "best.npz").weights)
    external_estimate = estimate_external_performance(outcomes_under_shifts(network, unseen, seed))
    assert external_estimate is not None
    others: list[SyntheticSite | str] = [
        "lab_b",
        "lab_c",
        *(random_site(arguments.first_laboratory + one) for one in range(arguments.laboratories)),
    ]
    external = tuple(
        accuracy(
            network,
            synthesize(150, site=one, seed=1, image_size_px=IMAGE_SIZE_PX, first_index=EXTERNAL_FIRST_INDEX),
        )
        for one in others
    )
    return EvaluatedRecipe(name, accuracy(network, unseen), external_estimate, external)


def _inside(external_estimate: ExternalEstimate, accuracies: tuple[float, ...]) -> float:
    return float(np.mean([external_estimate.low <= one <= external_estimate.high for one in accuracies]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1500)
    parser.add_argument("--unseen", type=int, default=400)
    parser.add_argument("--laboratories", type=int, default=22)
    parser.add_argument("--first-laboratory", type=int, default=1000, help="what the laboratories are drawn by")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    print("recipe      seed  same   middle  interval        left-out coverage  elsewhere                   inside")
    for seed in range(arguments.seeds):
        for name, recipe in recipes().items():
            evaluated = evaluate_recipe(name, recipe, arguments, seed)
            others, one = np.array(evaluated.external), evaluated.external_estimate
            spread = f"mean {others.mean():.3f} ({others.min():.2f}-{others.max():.2f})"
            print(
                f"{name:<11} {seed:<5} {evaluated.in_domain:.3f}  {one.mean:.3f}   {one.low:.3f}-{one.high:.3f}     "
                f"{one.measured_coverage:<19.3f}{spread}    {_inside(one, evaluated.external):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
