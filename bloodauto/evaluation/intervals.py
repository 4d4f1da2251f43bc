"""Bootstrap intervals: how far scores would move on other validation images, for one training and for a difference of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodauto.evaluation.fold_data import FoldData
from bloodauto.evaluation.metrics import mean_recall
from bloodauto.types import Labels, Mask, Probabilities, Scores

NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A 95 % interval on the scale of a score.

    Attributes:
        low: Lower bound.
        high: Upper bound.
    """

    low: float
    high: float


@dataclass(frozen=True)
class BootstrapResamples:
    """Resamples of the validation images with replacement, the same for every training of an experiment, so that they pair.

    Images are drawn within their class. Shifted images follow the image they were made from, because they are not independent
    of it. The resamples say what other images would change, and nothing of what another seed of the training would.

    Attributes:
        fold_data: The images.
        counts: How often each of the n images of the validation subset is drawn, int, shape (resamples, n).
    """

    fold_data: FoldData
    counts: NDArray[np.int64]

    def shift_scores(self, clean: Probabilities, shifted: Probabilities) -> NDArray[np.float64]:
        """The shift score on every resample, shape (resamples,).

        Args:
            clean: For the images of the validation subset, shape (n, classes).
            shifted: For the shifted images, shape (m, classes).
        """
        fold_data, plan = self.fold_data, self.fold_data.plan
        labels, shifted_labels = fold_data.subset_labels, fold_data.shifted_labels
        blocks = [self._balanced_accuracy(self.counts, labels, clean.argmax(axis=1) == labels)]
        weights = [1.0]
        correct = shifted.argmax(axis=1) == shifted_labels
        groups = plan.group_names
        for group in dict.fromkeys(groups.tolist()):
            rows = np.flatnonzero((groups == group) & (plan.weights > 0))
            if len(rows):
                image_weights = self.counts[:, plan.image_index[rows]] * plan.weights[rows]
                blocks.append(self._balanced_accuracy(image_weights, shifted_labels[rows], correct[rows]))
                weights.append(float(plan.weights[groups == group].mean()))
        return np.average(np.stack(blocks), axis=0, weights=weights)

    def _balanced_accuracy(
        self, image_weights: NDArray[np.int64] | NDArray[np.float64], labels: Labels, correct: Mask
    ) -> NDArray[np.float64]:
        """Balanced accuracy on every resample; classes that a resample has no image of do not count."""
        in_class = labels[:, None] == np.arange(self.fold_data.num_classes)
        total = image_weights @ in_class.astype(np.float64)
        return mean_recall(image_weights @ (in_class & correct[:, None]).astype(np.float64), total)


def bootstrap_resamples(fold_data: FoldData, *, seed: int, resamples: int = NUM_RESAMPLES) -> BootstrapResamples:
    """Draws resamples (Efron 1979, doi:10.1214/aos/1176344552; stratified by class).

    Args:
        fold_data: The images.
        seed: The same seed gives the same resamples.
        resamples: How many.
    """
    labels = fold_data.subset_labels
    rng = np.random.default_rng(seed)
    counts = np.zeros((resamples, len(labels)), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return BootstrapResamples(fold_data, counts)


def percentile_interval(values: Scores) -> Interval:
    """The middle 95 % of resampled values, shape (resamples,)."""
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return Interval(low, high)
