"""Greedy selection of an ensemble's members and weights, and the score that it maximises."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodauto.ensemble.predictions import Candidate, GroundTruth, OutOfFoldPredictions, check_same_images
from bloodauto.evaluation.calibration import apply_temperature, balanced_weights, fit_temperature
from bloodauto.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    compute_metrics,
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
)
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT
from bloodauto.run.artifacts import Objective, ValidationScores
from bloodauto.shift.target_estimators import estimate_by_transport
from bloodauto.types import Probabilities

#: Objectives that differ by less are equal: what differs then is rounding.
_TIE = 1e-9


@dataclass(frozen=True)
class Score:
    """How good averaged probabilities are.

    Attributes:
        metric: The named metric, 0-1, larger is better.
        log_loss: Nats; the clean images and each group of shifted images count once.
        objective: ``metric - log_loss_weight * log_loss``, which the selection maximises.
    """

    metric: float
    log_loss: float
    objective: float


class EnsembleScorer:
    """Scores averaged probabilities for the images of a ground truth.

    ``shift`` is the mean of the balanced accuracies on the clean images and on each group of shifted images, weighted as in
    ``evaluation.shift_score``: the clean images have weight 1, a group the mean weight of its images; but clean images of
    held-out sites, each site alike, have as much weight as all groups together. Without shifted images it is the balanced
    accuracy on clean images. Where there are target images, the estimated accuracy on them makes up half of it, as in the
    objective of a trial. The other metrics are of clean images alone. Classes absent from the labels do not count.

    An average is less confident than its members, and the estimate for target images depends on confidence. So probabilities
    first get the temperature under which the labels are most likely; otherwise every ensemble would seem worse there than its
    members.

    Args:
        truth: The labels.
        metric: What to measure.
        num_classes: Number of classes.
        log_loss_weight: Metric points that one nat of log loss counts for. A metric that counts errors has steps; the log loss
            distinguishes models on one step, and keeps single images from deciding.
    """

    def __init__(
        self, truth: GroundTruth, *, metric: Objective, num_classes: int, log_loss_weight: float = 0.0
    ) -> None:
        self._metric = metric
        self._num_classes = num_classes
        self._log_loss_weight = log_loss_weight
        with_shift = metric == "shift" and len(truth.shifted_labels) > 0
        groups = truth.shifted_groups if with_shift else truth.shifted_groups[:0]
        self._labels = np.concatenate([truth.labels, truth.shifted_labels[: len(groups)]]).astype(np.int64)
        self._image_weights = balanced_weights(len(truth.labels), groups)
        group_names, group_of = np.unique(groups, return_inverse=True)
        by_site = metric == "shift" and truth.held_out_sites is not None
        site_of_image = truth.held_out_sites if by_site else np.zeros(len(truth.labels), np.int64)
        sites, site_of = np.unique(np.asarray(site_of_image), return_inverse=True)
        # A block is a set of images whose balanced accuracy counts once: first the clean images, by held-out site, then each
        # group of shifted images.
        self._num_blocks = len(sites) + len(group_names)
        block_of = np.concatenate([site_of.astype(np.int64), len(sites) + group_of.astype(np.int64)])
        self._cell_of = (block_of * num_classes + self._labels) * num_classes
        shifted_weights = truth.shifted_weights[: len(groups)].astype(np.float64)
        self._counts = np.concatenate([np.ones(len(truth.labels)), shifted_weights])
        group_sizes = np.maximum(np.bincount(group_of, minlength=len(group_names)), 1)
        group_weights = np.bincount(group_of, shifted_weights, minlength=len(group_names)) / group_sizes
        site_weight = 1.0
        if by_site and group_weights.sum() > 0:
            site_weight = HELD_OUT_SITE_WEIGHT / (1 - HELD_OUT_SITE_WEIGHT) * float(group_weights.sum()) / len(sites)
        self._block_weights = np.concatenate([np.full(len(sites), site_weight), group_weights])
        fractions = truth.class_fractions if metric == "shift" else None
        self._class_fractions = None if fractions is None else np.asarray(fractions, dtype=np.float64)

    @property
    def has_target(self) -> bool:
        """Whether the estimate for target images is a part of the metric."""
        return self._class_fractions is not None

    def rows(self, predictions: OutOfFoldPredictions) -> Probabilities:
        """Stacks the predictions that the metric needs: labelled images, then target images. Shape (rows, classes)."""
        labelled = np.concatenate([predictions.clean, predictions.shifted])[: len(self._labels)]
        return np.concatenate([labelled, predictions.target]) if self.has_target else labelled

    def score(self, rows: Probabilities) -> Score:
        """Scores stacked predictions.

        Args:
            rows: As those of ``rows``.
        """
        labelled = rows[: len(self._labels)]
        metric = self._labelled_metric(labelled)
        if self.has_target:
            metric = (metric + self.estimate_target(rows)) / 2
        log_loss = negative_log_likelihood(self._labels, labelled, weights=self._image_weights)
        return Score(metric=metric, log_loss=log_loss, objective=metric - self._log_loss_weight * log_loss)

    def _labelled_metric(self, labelled: Probabilities) -> float:
        cells = self._cell_of + labelled.argmax(axis=1)
        size = self._num_classes
        counts = np.bincount(cells, self._counts, minlength=self._num_blocks * size * size)
        confusions = counts.reshape(self._num_blocks, size, size)
        if self._metric == "accuracy":
            return accuracy(confusions[0])
        if self._metric == "macro_f1":
            return macro_f1(confusions[0])
        assert self._metric in ("shift", "balanced_accuracy"), f"no way to compute {self._metric}"
        weighted = self._block_weights > 0
        return float(np.average(balanced_accuracy(confusions[weighted]), weights=self._block_weights[weighted]))

    def estimate_target(self, rows: Probabilities) -> float:
        """The estimated accuracy on target images, 0-1.

        Args:
            rows: As those of ``rows``.
        """
        assert self._class_fractions is not None, "there are no target images"
        labelled, target = rows[: len(self._labels)], rows[len(self._labels) :]
        temperature = fit_temperature(labelled, self._labels, self._image_weights)
        return estimate_by_transport(apply_temperature(target, temperature), self._class_fractions)


def selection_metric(predictions: OutOfFoldPredictions, metric: Objective) -> float:
    """The metric that an ensemble is selected by, 0-1."""
    scorer = EnsembleScorer(predictions.truth, metric=metric, num_classes=predictions.clean.shape[1])
    return scorer.score(scorer.rows(predictions)).metric


def validation_scores(predictions: OutOfFoldPredictions) -> ValidationScores:
    """All scores of one model's out-of-fold predictions."""
    truth = predictions.truth
    metrics = compute_metrics(truth.labels, predictions.clean)
    scorer = EnsembleScorer(truth, metric="shift", num_classes=predictions.clean.shape[1])
    rows = scorer.rows(predictions)
    shift = scorer.score(rows).metric
    target_estimate = scorer.estimate_target(rows) if scorer.has_target else None
    if target_estimate is not None:
        # The metric is the mean of both.
        shift = 2 * shift - target_estimate
    has_shifted = len(truth.shifted_labels) > 0
    return ValidationScores(
        accuracy=metrics.accuracy,
        balanced_accuracy=metrics.balanced_accuracy,
        macro_f1=metrics.macro_f1,
        loss=metrics.loss,
        shift=shift,
        shifted_accuracy=float((predictions.shifted.argmax(axis=1) == truth.shifted_labels).mean())
        if has_shifted
        else None,
        ece=expected_calibration_error(truth.labels, predictions.clean),
        ece_shifted=expected_calibration_error(truth.shifted_labels, predictions.shifted) if has_shifted else None,
        target_estimate=target_estimate,
    )


@dataclass(frozen=True)
class Step:
    """One step of the selection.

    Attributes:
        added: Name of the candidate that was added.
        score: Of the average after it.
    """

    added: str
    score: Score


@dataclass(frozen=True)
class Selection:
    """The selected ensemble.

    Attributes:
        names: Its members, the heaviest first.
        weights: One for each member, above 0, summing to 1; they multiply probabilities, not logits.
        score: Of the weighted average on the images it was selected on: an optimistic figure.
        best_single: The candidate with the highest metric alone, among those that are fast enough, with its score.
        trace: Every step that was tried; the ensemble is made of the first ``steps_kept``.
        steps_kept: See ``trace``.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    score: Score
    best_single: Step
    trace: tuple[Step, ...]
    steps_kept: int


@dataclass(frozen=True)
class SelectionLimits:
    """What a selection may use.

    Attributes:
        max_members: Maximum number of distinct members, at least 1.
        max_latency_ms: Maximum milliseconds for one image, summed over the members. Slower candidates are excluded; if all
            are slower, the fastest is the ensemble.
        max_steps: Maximum number of additions, at least 1. One part in this is the finest weight. A fine weight admits even a
            candidate that predicts at random, to turn single close decisions: with 30 steps in 23 of 40 synthetic validation
            sets of 400 images, with the defaults in none.
        min_gain: Points of the objective that each additional member must gain.
        log_loss_weight: See ``EnsembleScorer``.
    """

    max_members: int = 4
    max_latency_ms: float = math.inf
    max_steps: int = 10
    min_gain: float = 2e-3
    log_loss_weight: float = 0.05

    def __post_init__(self) -> None:
        assert self.max_members >= 1, f"max_members: expected at least 1, got {self.max_members}"
        assert self.max_steps >= 1, f"max_steps: expected at least 1, got {self.max_steps}"


def select(
    candidates: Sequence[Candidate], *, metric: Objective = "shift", limits: SelectionLimits = SelectionLimits()
) -> Selection:
    """Selects by greedy forward selection with replacement (Caruana et al. 2004, doi:10.1145/1015330.1015432).

    Starts from the best single candidate and adds, step by step, the one whose addition makes the average best; a candidate
    that is added k times has weight k. Deviations from the paper: the number of distinct members is capped, because each costs
    a training; of all steps the simplest is kept that no other beats by ``min_gain`` for each additional member; and the
    ensemble is never worse than the best single candidate in the metric. The order of the candidates does not matter.

    The price is ``max_steps * len(candidates)`` evaluations of all rows: a tenth of a second for 20 candidates of 10,000
    rows, one or two seconds with target images.

    Args:
        candidates: At least one, for the same images.
        metric: See ``EnsembleScorer``.
        limits: See ``SelectionLimits``.

    Raises:
        RunError: The candidates' predictions are for different images.
    """
    assert candidates, "expected at least one candidate"
    ordered = sorted(candidates, key=lambda candidate: candidate.name)
    by_name = {candidate.name: candidate.predictions for candidate in ordered}
    assert len(by_name) == len(ordered), "candidates: names must be unique"
    num_classes = ordered[0].predictions.clean.shape[1]
    scorer = EnsembleScorer(
        check_same_images(by_name), metric=metric, num_classes=num_classes, log_loss_weight=limits.log_loss_weight
    )
    rows = [scorer.rows(candidate.predictions) for candidate in ordered]
    for candidate, candidate_rows in zip(ordered, rows, strict=True):
        assert np.isfinite(candidate_rows).all(), f"{candidate.name}: probabilities that are not finite"

    singles = [scorer.score(candidate_rows) for candidate_rows in rows]
    fast = [index for index, candidate in enumerate(ordered) if candidate.latency_ms <= limits.max_latency_ms]
    usable = fast if fast else [min(range(len(ordered)), key=lambda index: ordered[index].latency_ms)]
    first = min(usable, key=lambda index: (-singles[index].metric, singles[index].log_loss, ordered[index].parameters))
    picks, scores = _greedy_steps(scorer, ordered, rows, usable, (first, singles[first]), limits)
    steps_kept = _simplest(picks, scores, limits.min_gain)
    counts = Counter(picks[:steps_kept])
    heaviest_first = sorted(counts, key=lambda index: (-counts[index], ordered[index].name))
    return Selection(
        names=tuple(ordered[index].name for index in heaviest_first),
        weights=tuple(counts[index] / steps_kept for index in heaviest_first),
        score=scores[steps_kept - 1],
        best_single=Step(ordered[first].name, singles[first]),
        trace=tuple(Step(ordered[index].name, score) for index, score in zip(picks, scores, strict=True)),
        steps_kept=steps_kept,
    )


def _greedy_steps(
    scorer: EnsembleScorer,
    ordered: Sequence[Candidate],
    rows: Sequence[Probabilities],
    usable: Sequence[int],
    first: tuple[int, Score],
    limits: SelectionLimits,
) -> tuple[list[int], list[Score]]:
    """The candidate that each step adds, by its index, and the score of the average after the step."""
    picks, scores = [first[0]], [first[1]]
    total: NDArray[np.float64] = rows[first[0]].astype(np.float64)
    while len(picks) < limits.max_steps:
        members = frozenset(picks)
        left_ms = limits.max_latency_ms - sum(ordered[index].latency_ms for index in members)
        new = [] if len(members) >= limits.max_members else [i for i in usable if ordered[i].latency_ms <= left_ms]
        additions = {
            index: scorer.score((total + rows[index]) / (len(picks) + 1)) for index in sorted(members.union(new))
        }
        best = _best_addition(additions, ordered, members)
        picks.append(best)
        scores.append(additions[best])
        total += rows[best]
    return picks, scores


def _best_addition(additions: dict[int, Score], ordered: Sequence[Candidate], members: frozenset[int]) -> int:
    """The addition with the highest objective; of equals a member, then the smaller, then the first by name."""
    highest = max(score.objective for score in additions.values())
    equals = [index for index, score in additions.items() if score.objective >= highest - _TIE]
    return min(equals, key=lambda index: (index not in members, ordered[index].parameters, index))


def _simplest(picks: Sequence[int], scores: Sequence[Score], min_gain: float) -> int:
    """How many steps to keep: the fewest members that no larger ensemble beats by ``min_gain`` for each member."""
    sizes = [len(set(picks[: step + 1])) for step in range(len(picks))]
    # Steps only ever add members, so fewer members also means fewer parameters.
    kept = 0
    for step in range(1, len(picks)):
        needed = max(_TIE, min_gain * (sizes[step] - sizes[kept]))
        no_worse = scores[step].metric >= scores[0].metric - _TIE
        if no_worse and scores[step].objective > scores[kept].objective + needed:
            kept = step
    return kept + 1
