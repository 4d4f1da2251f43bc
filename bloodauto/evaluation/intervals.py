"""How far scores would move on other validation images: intervals for one training, and for the difference of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.evaluation.fold_data import Material

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """95 %, both ends on the scale of the score."""

    low: float
    high: float


@dataclass(frozen=True)
class Resampling:
    """Draws of validation images with replacement, the same for every training of an experiment, so that they pair.

    Images are drawn within their class, and an image takes its shifted views along: they are no independent images.
    It tells what other images would change, and nothing of what another seed of the training would.

    Attributes:
        counts: int, (draws, n), how often each of the judged images is drawn.
    """

    material: Material
    counts: np.ndarray

    def shift_scores(self, clean: np.ndarray, shifted: np.ndarray) -> np.ndarray:
        """The shift score on every draw, float (draws,).

        Args:
            clean: probabilities (n, c) of the judged images, ``material.quick_rows`` of the validation images.
            shifted: probabilities (m, c) of the views.
        """
        material, plan = self.material, self.material.plan
        labels = material.labels[material.validation_index[material.quick_rows]]
        blocks = [self._balanced(self.counts, labels, clean.argmax(axis=1) == labels)]
        weights = [1.0]
        right = shifted.argmax(axis=1) == material.view_labels
        groups = plan.group_names
        for group in dict.fromkeys(groups.tolist()):
            rows = np.flatnonzero((groups == group) & (plan.weights > 0))
            if len(rows):
                drawn = self.counts[:, plan.image_index[rows]] * plan.weights[rows]
                blocks.append(self._balanced(drawn, material.view_labels[rows], right[rows]))
                weights.append(float(plan.weights[groups == group].mean()))
        return np.average(np.stack(blocks), axis=0, weights=weights)

    def _balanced(self, drawn: np.ndarray, labels: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Balanced accuracy on every draw; classes that a draw has none of do not count."""
        of_class = labels[:, None] == np.arange(self.material.num_classes)
        total = drawn @ of_class.astype(np.float64)
        hits = drawn @ (of_class & right[:, None]).astype(np.float64)
        with np.errstate(invalid="ignore"):
            return np.nanmean(np.where(total > 0, hits / np.maximum(total, 1e-12), np.nan), axis=1)


def resampling(material: Material, *, seed: int, draws: int = RESAMPLES) -> Resampling:
    """Draws the resamples (Efron 1979, doi:10.1214/aos/1176344552; stratified by class)."""
    labels = material.labels[material.validation_index[material.quick_rows]]
    rng = np.random.default_rng(seed)
    counts = np.zeros((draws, len(labels)), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    return Resampling(material, counts)


def percentile_interval(values: np.ndarray) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))
