"""What the selection of an ensemble maximises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bloodauto.ensemble.calibration import PROBABILITY_FLOOR, balanced_weights
from bloodauto.trial.metrics import balanced_accuracy, macro_f1

EnsembleMetric = Literal["shift", "accuracy", "balanced_accuracy", "macro_f1"]


@dataclass(frozen=True)
class Truth:
    """The labels of the images every candidate answered for.

    Attributes:
        labels: int, (n,), of the clean validation images.
        shifted_labels: int, (m,), of shifted views; m may be 0.
        shifted_groups: int or str, (m,), the kind of shift (for example its family) of each view.
        shifted_weights: float, (m,), 0 or more, what each view counts; see ``shift.score``.
    """

    labels: np.ndarray
    shifted_labels: np.ndarray
    shifted_groups: np.ndarray
    shifted_weights: np.ndarray

    def __post_init__(self) -> None:
        assert self.labels.ndim == 1, f"labels: expected (n,), got {self.labels.shape}"
        assert len(self.labels), "labels: expected at least one clean image"
        shapes = (self.shifted_labels.shape, self.shifted_groups.shape, self.shifted_weights.shape)
        assert len(set(shapes)) == 1, f"shifted: labels, groups and weights of {shapes}"
        assert not len(self.shifted_weights) or self.shifted_weights.min() >= 0, "shifted: a negative weight"


@dataclass(frozen=True)
class Score:
    """How good averaged probabilities are.

    Attributes:
        metric: the named metric, 0-1, larger is better.
        log_loss: nats; clean images and each group of shifts count once.
        objective: ``metric - log_loss_weight * log_loss``, what the selection maximises.
    """

    metric: float
    log_loss: float
    objective: float


class Scorer:
    """Scores probabilities of all images, the clean ones first and the shifted views after them.

    ``shift`` is the mean of the balanced accuracies on the clean images and in each group of shifted views, weighted as in
    ``shift.score``: the clean images count 1, a group as much as its views do on average. Without shifted views it is the
    balanced accuracy on clean images. The other metrics look at clean images alone. Classes absent from the labels do not
    count.

    Args:
        truth: the labels.
        metric: what to measure.
        class_count: c.
        log_loss_weight: metric points that one nat of log-loss is worth. A metric that counts errors is a staircase;
            the log-loss tells apart what stands on one step, and keeps single lucky images from deciding.
    """

    def __init__(self, truth: Truth, *, metric: EnsembleMetric, class_count: int, log_loss_weight: float) -> None:
        self._metric = metric
        self._class_count = class_count
        self._log_loss_weight = log_loss_weight
        with_shift = metric == "shift" and len(truth.shifted_labels) > 0
        groups = truth.shifted_groups if with_shift else truth.shifted_groups[:0]
        labels = np.concatenate([truth.labels, truth.shifted_labels[: len(groups)]]).astype(np.int64)
        names, group_of = np.unique(groups, return_inverse=True)
        #: Block 0 is the clean images, then one per group.
        self._block_count = 1 + len(names)
        block_of = np.concatenate([np.zeros(len(truth.labels), dtype=np.int64), 1 + group_of.astype(np.int64)])
        self._labels = labels
        view_weights = truth.shifted_weights[: len(groups)].astype(np.float64)
        self._counts = np.concatenate([np.ones(len(truth.labels)), view_weights])
        of_group = np.bincount(group_of, view_weights, minlength=len(names)) / np.maximum(np.bincount(group_of), 1)
        self._block_weights = np.concatenate([[1.0], of_group]) if len(names) else np.ones(1)
        self._cell_of = (block_of * class_count + labels) * class_count
        self._image_weights = balanced_weights(len(truth.labels), groups)

    @property
    def image_count(self) -> int:
        """How many leading rows of the probabilities the metric looks at."""
        return len(self._labels)

    def score(self, probabilities: np.ndarray) -> Score:
        """Scores float (image_count, c); rows sum to 1."""
        classes = self._class_count
        cells = np.bincount(
            self._cell_of + probabilities.argmax(axis=1), self._counts, minlength=self._block_count * classes * classes
        )
        confusions = cells.reshape(self._block_count, classes, classes)
        if self._metric == "accuracy":
            metric = float(np.trace(confusions[0]) / confusions[0].sum())
        elif self._metric == "macro_f1":
            metric = macro_f1(confusions[0])
        else:
            counted = self._block_weights > 0
            blocks = [balanced_accuracy(confusion) for confusion in confusions[counted]]
            metric = float(np.average(blocks, weights=self._block_weights[counted]))
        of_truth = probabilities[np.arange(len(self._labels)), self._labels]
        log_loss = float(-(self._image_weights @ np.log(np.maximum(of_truth, PROBABILITY_FLOOR))))
        return Score(metric=metric, log_loss=log_loss, objective=metric - self._log_loss_weight * log_loss)
