"""Does the external performance estimate hold? Its coverage at synthetic sites that no network was trained on.

    python benchmarks/external_estimate.py                         # three recipes, 1,500 synthetic cells, 24 external sites
    python benchmarks/external_estimate.py --images 4000 --sites 60 --seeds 3

Small networks are trained on cells of ``lab_a``. From other cells of ``lab_a`` at simulated sites follows an interval for the
accuracy at an external site, as a search states it. External sites are ``lab_b``, ``lab_c`` and sites whose stain, lamp, optics
and camera are drawn at random: their images are rendered from the model of a cell, not by corrupting an image of ``lab_a``. The
last column is the fraction of their accuracies that the interval contains. Not covered: other patients, other labelling.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
from single_training import accuracy_on, train_network

from bloodauto.config.recipe import Recipe, load_recipe, parse_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.data.clean import clean
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.synthetic.site import SYNTHETIC_SITES, Illumination, Optics, Sensor, Stain, SyntheticSite
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.run.artifacts import ExternalEstimate
from bloodauto.shift.external_estimate import SiteOutcome, estimate_external_performance
from bloodauto.shift.simulated_sites import draw_simulated_sites
from bloodauto.shift.suite import ShiftSuite

_IMAGE_SIZE_PX = 64
_SIMULATED_SITES = 96
_IMAGES_PER_SIMULATED_SITE = 12
_IMAGES_PER_EXTERNAL_SITE = 150
#: Index of the first external cell; those of ``lab_a`` end far below.
_EXTERNAL_FIRST_INDEX = 100_000


@dataclass(frozen=True)
class EvaluatedRecipe:
    """One trained network: its estimate, and its accuracies.

    Attributes:
        recipe: Name of the recipe.
        in_domain: Accuracy on other cells of the training site.
        estimate: Estimate for external sites.
        external: Accuracy at each external site.
    """

    recipe: str
    in_domain: float
    estimate: ExternalEstimate
    external: tuple[float, ...]

    @property
    def fraction_inside(self) -> float:
        """The fraction of external accuracies that the interval contains."""
        return float(np.mean([self.estimate.low <= accuracy <= self.estimate.high for accuracy in self.external]))


def random_site(seed: int) -> SyntheticSite:
    """Draws a site between and somewhat beyond the three named ones."""
    rng = np.random.default_rng([seed, 77])
    stains = [site.stain for site in SYNTHETIC_SITES.values()]

    def mixed(name: str) -> tuple[float, float, float]:
        weights = rng.dirichlet([1.0] * len(stains))
        density = weights @ np.array([getattr(stain, name) for stain in stains]) * np.exp(0.15 * rng.standard_normal(3))
        red, green, blue = density.tolist()
        return red, green, blue

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
    augmentations = {"orientation": {"orientation": True}, "none": {"orientation": False}}
    variants = {name: {**shipped, "augmentation": augmentation} for name, augmentation in augmentations.items()}
    return {name: parse_recipe(value, origin=name) for name, value in {"shipped": shipped, **variants}.items()}


def outcomes_at_simulated_sites(network: keras.Model, dataset: CellDataset, seed: int) -> Iterator[SiteOutcome]:
    """Evaluates a network at each simulated site, on a dozen images in turn."""
    for number, site in enumerate(draw_simulated_sites(_SIMULATED_SITES, seed=seed)):
        rows = (number * _IMAGES_PER_SIMULATED_SITE + np.arange(_IMAGES_PER_SIMULATED_SITE)) % len(dataset.labels)
        predictions = predict_batches(network, site.render(dataset.images[rows])).argmax(axis=1)
        correct = int((predictions == dataset.labels[rows]).sum())
        yield SiteOutcome(site.groups, correct, _IMAGES_PER_SIMULATED_SITE)


def evaluate_recipe(name: str, recipe: Recipe, arguments: argparse.Namespace, seed: int) -> EvaluatedRecipe:
    """Trains a recipe, estimates its external performance, and measures it."""
    training_set = synthesize(arguments.images, seed=seed, image_size_px=_IMAGE_SIZE_PX)
    unseen = synthesize(arguments.unseen, seed=seed, image_size_px=_IMAGE_SIZE_PX, first_index=arguments.images)
    splits = make_splits(training_set, clean(training_set, enabled=False), seed=seed)
    fold_data = prepare_fold(training_set, splits, ShiftSuite(seed=seed, num_images=64))
    network = train_network(recipe, fold_data, seed=seed)
    estimate = estimate_external_performance(list(outcomes_at_simulated_sites(network, unseen, seed)))
    assert estimate is not None, "fewer simulated sites than an estimate needs"
    drawn = (random_site(arguments.first_site + number) for number in range(arguments.sites))
    sites: list[SyntheticSite | str] = ["lab_b", "lab_c", *drawn]
    external = tuple(
        accuracy_on(
            network,
            synthesize(
                _IMAGES_PER_EXTERNAL_SITE,
                site=site,
                seed=1,
                image_size_px=_IMAGE_SIZE_PX,
                first_index=_EXTERNAL_FIRST_INDEX,
            ),
        )
        for site in sites
    )
    return EvaluatedRecipe(name, accuracy_on(network, unseen), estimate, external)


def main() -> None:
    """Prints one line per recipe and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="to train on; default: 1500")
    parser.add_argument("--unseen", type=int, default=400, help="other images of the same site; default: 400")
    parser.add_argument("--sites", type=int, default=22, help="external sites besides lab_b and lab_c; default: 22")
    parser.add_argument("--first-site", type=int, default=1000, help="seed of the first of them; default: 1000")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    print("recipe      seed  in-domain  estimate             coverage  external             inside")
    for seed in range(arguments.seeds):
        for name, recipe in recipes().items():
            evaluated = evaluate_recipe(name, recipe, arguments, seed)
            external, estimate = np.array(evaluated.external), evaluated.estimate
            interval = f"{estimate.mean:.2f} ({estimate.low:.2f}-{estimate.high:.2f})"
            measured = f"{external.mean():.2f} ({external.min():.2f}-{external.max():.2f})"
            print(
                f"{name:<11} {seed:<5} {evaluated.in_domain:<10.3f} {interval:<20} {estimate.measured_coverage:<9.2f} "
                f"{measured:<20} {evaluated.fraction_inside:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
