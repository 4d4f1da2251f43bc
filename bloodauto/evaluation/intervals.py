"""How far scores would move on other validation images: intervals for one training, and for the difference of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.evaluation.fold_data import FoldData
from bloodauto.evaluation.metrics import mean_recall

NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """95 %, both ends on the scale of the score."""

    low: float
    high: float


@dataclass(frozen=True)
class BootstrapResamples:
    """Draws of validation images with replacement, the same for every training of an experiment, so that they pair.

    Images are drawn within their class, and an image takes its shifted views along: they are no independent images.
    It tells what other images would change, and nothing of what another seed of the training would.

    Attributes:
        counts: int, (draws, n), how often each of the judged images is drawn.
    """

    fold_data: FoldData
    counts: np.ndarray

    def shift_scores(self, clean: np.ndarray, shifted: np.ndarray) -> np.ndarray:
        """The shift score on every draw, float (draws,).

        Args:
            clean: probabilities (n, c) of the judged images, ``material.subset_rows`` of the validation images.
            shifted: probabilities (m, c) of the views.
        """
        fold_data, plan = self.fold_data, self.fold_data.plan
        labels = fold_data.labels[fold_data.validation_index[fold_data.subset_rows]]
        blocks = [self._balanced_accuracy(self.counts, labels, clean.argmax(axis=1) == labels)]
        weights = [1.0]
        correct = shifted.argmax(axis=1) == fold_data.shifted_labels
        groups = plan.group_names
        for group in dict.fromkeys(groups.tolist()):
            rows = np.flatnonzero((groups == group) & (plan.weights > 0))
            if len(rows):
                draw_counts = self.counts[:, plan.image_index[rows]] * plan.weights[rows]
                blocks.append(self._balanced_accuracy(draw_counts, fold_data.shifted_labels[rows], correct[rows]))
                weights.append(float(plan.weights[groups == group].mean()))
        return np.average(np.stack(blocks), axis=0, weights=weights)

    def _balanced_accuracy(self, draw_counts: np.ndarray, labels: np.ndarray, correct: np.ndarray) -> np.ndarray:
        """Balanced accuracy on every draw; classes that a draw has none of do not count."""
        of_class = labels[:, None] == np.arange(self.fold_data.num_classes)
        total = draw_counts @ of_class.astype(np.float64)
        hits = draw_counts @ (of_class & correct[:, None]).astype(np.float64)
        return mean_recall(hits, total)


def bootstrap_resamples(fold_data: FoldData, *, seed: int, draws: int = NUM_RESAMPLES) -> BootstrapResamples:
    """Draws the resamples (Efron 1979, doi:10.1214/aos/1176344552; stratified by class)."""
    labels = fold_data.labels[fold_data.validation_index[fold_data.subset_rows]]
    rng = np.random.default_rng(seed)
    counts = np.zeros((draws, len(labels)), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    return BootstrapResamples(fold_data, counts)


def percentile_interval(values: np.ndarray) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))
