"""What do recipes give alone and in pairs, equally long trained?

    python benchmarks/pair_ensembles.py --data ../shared/data/pbc96 --weights-dir ../shared/weights --epochs 6 --seeds 2 \\
        --recipe small_mobilenet_025 --recipe small_mobilenet_v2_035

Every recipe is trained with every seed on the images that a search's trials are trained on, and evaluated on their validation
images; a pair is the mean of two networks' probabilities. Printed are accuracies: of these images, of corruptions of them that
no search has drawn (mean of the groups' balanced accuracies, severities 3 to 5), and at synthetic sites.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from single_training import train_network
from site_evaluator import Predict, SiteEvaluator, markdown_header, markdown_row

from bloodauto.config.recipe import load_recipe
from bloodauto.config.shipped import find_recipe_file
from bloodauto.data.clean import clean
from bloodauto.data.load import load_dataset
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.models.device import limit_native_threads
from bloodauto.shift.suite import ShiftSuite
from bloodauto.tuning.refits import with_extended_epochs
from bloodauto.types import Images, Probabilities

_SYNTHETIC_IMAGES = 1200


class CachedPredictions:
    """A trained network's probabilities, computed once for every array of images."""

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self._cache: list[tuple[Images, Probabilities]] = []

    def __call__(self, images: Images) -> Probabilities:
        for cached_images, probabilities in self._cache:
            if cached_images is images:
                return probabilities
        probabilities = predict_batches(self._network, images)
        self._cache.append((images, probabilities))
        return probabilities


def _mean_of(first: Predict, second: Predict) -> Predict:
    return lambda images: (first(images) + second(images)) / 2


def rows_of(
    evaluator: SiteEvaluator, networks: dict[str, list[CachedPredictions]]
) -> Iterator[tuple[str, list[float]]]:
    """Yields every recipe alone, then every pair of two networks; means over the seeds."""
    for name, seeds in networks.items():
        yield name, np.mean([evaluator.row(predict) for predict in seeds], axis=0).tolist()
    for first, second in itertools.combinations_with_replacement(networks, 2):
        pairs = (
            itertools.combinations(networks[first], 2)
            if first == second
            else itertools.product(networks[first], networks[second])
        )
        rows = [evaluator.row(_mean_of(*pair)) for pair in pairs]
        if rows:
            yield f"{first} + {second}", np.mean(rows, axis=0).tolist()


def main() -> None:
    """Trains all networks and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--recipe", action="append", required=True, help="a file or a shipped recipe's name")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    limit_native_threads(1)

    dataset = load_dataset(arguments.data)
    fold_data = prepare_fold(dataset, make_splits(dataset, clean(dataset), seed=0), ShiftSuite(seed=0, num_images=128))
    synthetic = {
        name: synthesize(_SYNTHETIC_IMAGES, site=name, seed=9, image_size_px=dataset.images.shape[1])
        for name in ("lab_a", "lab_b", "lab_c")
    }
    evaluator = SiteEvaluator(dataset, fold_data.validation_index, synthetic)
    networks: dict[str, list[CachedPredictions]] = {}
    for name in arguments.recipe:
        recipe = load_recipe(find_recipe_file(name))
        recipe = with_extended_epochs(recipe, arguments.epochs / recipe.total_epochs)
        networks[recipe.name] = [
            CachedPredictions(train_network(recipe, fold_data, seed=seed, weights_dir=arguments.weights_dir))
            for seed in range(arguments.seeds)
        ]
    print(markdown_header(evaluator.columns))
    for name, values in rows_of(evaluator, networks):
        print(markdown_row(name, values))


if __name__ == "__main__":
    main()
