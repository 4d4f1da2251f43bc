"""What recipes give alone and by twos, equally long trained: at home, on simulated shifts, in drawn laboratories.

    python benchmarks/pairs.py --data ../shared/data/pbc96 --weights-dir ../shared/weights --epochs 6 --seeds 2 \\
        --recipe small_mobilenet_025 --recipe small_mobilenet_v2_035

Every recipe is trained with every seed on the images that a search's trials learn from, and judged on their validation images;
a pair is the mean of two networks' probabilities. Printed are accuracies: of these images, of views of them that no search has
drawn (mean of balanced accuracies of the groups of shifts, severities 3 to 5), and of drawn laboratories.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import bloodauto.training  # noqa: F401

# isort: split
# TensorFlow is set up before Keras is imported.
import keras
import numpy as np
from objective.record import train_network
from searched import Evaluator

from bloodauto.config.recipe import load_recipe
from bloodauto.config.recipe.experiments import find_recipe_file
from bloodauto.data.clean import clean
from bloodauto.data.load import load_dataset
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.models.device import limit_native_threads
from bloodauto.shift.suite import ShiftSuite
from bloodauto.tuning.refits import with_extended_epochs

_SYNTHETIC_IMAGES = 1200


class Predictor:
    """A trained network's probabilities, asked once of every set of images."""

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self._known: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        for asked, answers in self._known:
            if asked is images:
                return answers
        answers = predict_batches(self._network, images)
        self._known.append((images, answers))
        return answers


def _lines(judge: Evaluator, networks: dict[str, list[Predictor]]) -> list[tuple[str, list[float]]]:
    """Every recipe alone, then every pair of networks that are not one; means over the seeds."""
    lines = [(name, np.mean([judge.row(one) for one in seeds], axis=0).tolist()) for name, seeds in networks.items()]
    for first, second in itertools.combinations_with_replacement(networks, 2):
        pairs = (
            itertools.combinations(networks[first], 2)
            if first == second
            else itertools.product(networks[first], networks[second])
        )
        rows = [judge.row(lambda images, pair=pair: (pair[0](images) + pair[1](images)) / 2) for pair in pairs]
        if rows:
            lines.append((f"{first} + {second}", np.mean(rows, axis=0).tolist()))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--recipe", action="append", required=True, help="a file or a shipped recipe's name")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    limit_native_threads(1)

    dataset = load_dataset(arguments.data)
    fold_data = prepare_fold(dataset, make_splits(dataset, clean(dataset), seed=0), ShiftSuite(seed=0, num_images=128))
    side_px = dataset.images.shape[1]
    drawn = {
        name: synthesize(_SYNTHETIC_IMAGES, site=name, seed=9, image_size_px=side_px)
        for name in ("lab_a", "lab_b", "lab_c")
    }
    judge = Evaluator(dataset, fold_data.validation_index, drawn)
    networks: dict[str, list[Predictor]] = {}
    for given in arguments.recipe:
        recipe = load_recipe(find_recipe_file(given))
        recipe = with_extended_epochs(recipe, arguments.epochs / recipe.total_epochs)
        networks[recipe.name] = [
            Predictor(train_network(recipe, fold_data, arguments.weights_dir, seed)) for seed in range(arguments.seeds)
        ]
    print(f"| | {' | '.join(judge.columns)} |\n|{'---|' * (len(judge.columns) + 1)}")
    for name, row in _lines(judge, networks):
        print(f"| {name} | {' | '.join(f'{100 * share:.1f} %' for share in row)} |")


if __name__ == "__main__":
    main()
