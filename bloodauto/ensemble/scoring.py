"""What the selection of an ensemble maximises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bloodauto.config.objectives import Objective
from bloodauto.evaluation.calibration import apply_temperature, balanced_weights, fit_temperature
from bloodauto.evaluation.metrics import accuracy, balanced_accuracy, macro_f1, negative_log_likelihood
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT
from bloodauto.shift.target_estimators import estimate_by_transport

#: What an ensemble is selected by.
EnsembleMetric: TypeAlias = Objective


@dataclass(frozen=True)
class SiteInfo:
    """What is known of where images come from and are meant for, beside their labels.

    Attributes:
        folds_are_sites: each fold is a laboratory of its own, so that clean images come from one that was left out.
        class_fractions: (c,), how often each class is expected where the unlabelled target images come from; None: there are
            none.
    """

    folds_are_sites: bool = False
    class_fractions: tuple[float, ...] | None = None


#: Nothing is known but the labels.
NO_SITE_INFO = SiteInfo()


@dataclass(frozen=True)
class Truth:
    """What is known of the images every candidate answered for.

    Attributes:
        labels: int, (n,), of the clean validation images.
        shifted_labels: int, (m,), of shifted views; m may be 0.
        shifted_groups: int or str, (m,), the kind of shift (for example its family) of each view.
        shifted_weights: float, (m,), 0 or more, what each view counts; see ``shift.score``.
        left_out_sites: int or str, (n,), the laboratory of each clean image, where its answers come from networks that saw
            none from there; None: the images are of the training's own laboratories.
        target_class_priors: of ``Places``, where candidates answered for unlabelled target images, too; else None.
    """

    labels: np.ndarray
    shifted_labels: np.ndarray
    shifted_groups: np.ndarray
    shifted_weights: np.ndarray
    left_out_sites: np.ndarray | None = None
    target_class_priors: Sequence[float] | None = None

    def __post_init__(self) -> None:
        assert self.labels.ndim == 1, f"labels: expected (n,), got {self.labels.shape}"
        assert len(self.labels), "labels: expected at least one clean image"
        assert self.left_out_sites is None or self.left_out_sites.shape == self.labels.shape, "left_out_sites: one each"
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
    """Scores probabilities of all images: the clean ones first, then the shifted views, then unlabelled target images.

    ``shift`` is the mean of the balanced accuracies on the clean images and in each group of shifted views, weighted as in
    ``shift.score``: the clean images count 1, a group as much as its views do on average; but clean images of left-out
    laboratories, each laboratory alike, count as much as all groups together. Without shifted views it is the balanced accuracy
    on clean images. Where there are target images the estimate of the accuracy there is half of it, as in a trial's objective.
    The other metrics look at clean images alone. Classes absent from the labels do not count.

    An average is less sure than its members, and the estimate for target images takes probabilities at their word. So all are
    first given the temperature under which their labelled answers are likeliest; otherwise every ensemble would seem worse
    there than the members it is made of.

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
        in_labs = metric == "shift" and truth.left_out_sites is not None
        of_labs = truth.left_out_sites if in_labs and truth.left_out_sites is not None else np.zeros(len(truth.labels))
        sites, lab_of = np.unique(of_labs, return_inverse=True)
        # The first blocks are the clean images, one for each left-out laboratory; then comes one for each group.
        self._block_count = len(sites) + len(names)
        block_of = np.concatenate([lab_of.astype(np.int64), len(sites) + group_of.astype(np.int64)])
        self._labels = labels
        shifted_weights = truth.shifted_weights[: len(groups)].astype(np.float64)
        self._counts = np.concatenate([np.ones(len(truth.labels)), shifted_weights])
        of_group = np.bincount(group_of, shifted_weights, minlength=len(names)) / np.maximum(np.bincount(group_of), 1)
        of_lab = 1.0
        if in_labs and of_group.sum() > 0:
            of_lab = HELD_OUT_SITE_WEIGHT / (1 - HELD_OUT_SITE_WEIGHT) * of_group.sum() / len(sites)
        self._block_weights = np.concatenate([np.full(len(sites), of_lab), of_group])
        self._cell_of = (block_of * class_count + labels) * class_count
        self._image_weights = balanced_weights(len(truth.labels), groups)
        shares = truth.target_class_priors if metric == "shift" else None
        self._target_priors = None if shares is None else np.asarray(shares, dtype=np.float64)

    @property
    def image_count(self) -> int:
        """How many leading rows of the probabilities the labels are for."""
        return len(self._labels)

    def rows(self, clean: np.ndarray, shifted: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Answers, float (n, c), (m, c) and (k, c), as ``score`` takes them."""
        labelled = np.concatenate([clean, shifted])[: self.image_count]
        return labelled if self._target_priors is None else np.concatenate([labelled, target])

    def score(self, probabilities: np.ndarray) -> Score:
        """Scores float (image_count, c), or (image_count + k, c) with target images; rows sum to 1."""
        classes = self._class_count
        labelled, target = probabilities[: self.image_count], probabilities[self.image_count :]
        dataset = np.bincount(
            self._cell_of + labelled.argmax(axis=1), self._counts, minlength=self._block_count * classes * classes
        )
        confusions = dataset.reshape(self._block_count, classes, classes)
        if self._metric == "accuracy":
            metric = accuracy(confusions[0])
        elif self._metric == "macro_f1":
            metric = macro_f1(confusions[0])
        else:
            counted = self._block_weights > 0
            metric = float(np.average(balanced_accuracy(confusions[counted]), weights=self._block_weights[counted]))
        if self._target_priors is not None:
            metric = (metric + self.estimate_target(labelled, target)) / 2
        log_loss = negative_log_likelihood(self._labels, labelled, weights=self._image_weights)
        return Score(metric=metric, log_loss=log_loss, objective=metric - self._log_loss_weight * log_loss)

    def estimate_target(self, labelled: np.ndarray, target: np.ndarray) -> float:
        """The estimate of the accuracy on target images, 0-1, from answers (image_count, c) and (k, c)."""
        assert self._target_priors is not None, "there are no target images"
        temperature = fit_temperature(labelled, self._labels, self._image_weights)
        return estimate_by_transport(apply_temperature(target, temperature), self._target_priors)
