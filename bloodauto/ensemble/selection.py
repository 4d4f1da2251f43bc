"""Which models to average, and with what weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bloodauto.ensemble.scoring import EnsembleMetric, Score, Scorer, Truth
from bloodauto.evaluation.calibration import apply_temperature

#: Objectives that differ by less are equal: what differs then is rounding.
_TIE = 1e-9


@dataclass(frozen=True)
class Candidate:
    """A model that may enter the ensemble, known by its answers to images it was not trained on.

    Attributes:
        name: unique among candidates.
        probabilities: float32, (n, c), on the clean validation images; rows sum to 1.
        shifted: float32, (m, c), on the shifted views; m may be 0.
        parameters: how many weights the model has; of equals, the smaller wins.
        temperature: the model's own, applied before averaging (and to be applied by whoever averages for real).
        latency_ms: what one image takes it; the ensemble takes the sum of its members'.
        target: float32, (k, c), on unlabelled images of the target laboratory; None: there are none.
    """

    name: str
    probabilities: np.ndarray
    shifted: np.ndarray
    parameters: int
    temperature: float = 1.0
    latency_ms: float = 0.0
    target: np.ndarray | None = None

    def calibrated(self) -> np.ndarray:
        """float32, (n + m, c): clean, then shifted, under the model's own temperature."""
        return self._tempered(np.concatenate([self.probabilities, self.shifted]))

    def comparison_rows(self, scorer: Scorer) -> np.ndarray:
        """What a scorer looks at, under the model's own temperature."""
        target = self.probabilities[:0] if self.target is None else self.target
        return self._tempered(scorer.rows(self.probabilities, self.shifted, target))

    def _tempered(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.temperature == 1.0 else apply_temperature(rows, self.temperature).astype(np.float32)


@dataclass(frozen=True)
class Step:
    """One step of the selection: the candidate added and the score of the average up to here."""

    added: str
    score: Score


@dataclass(frozen=True)
class Selection:
    """The ensemble.

    Attributes:
        names: its members, the heaviest first.
        weights: one per member, above 0, sum to 1; multiply probabilities, not logits.
        score: of the weighted average, on the images it was chosen by: an optimistic figure.
        best_single: the candidate with the highest metric alone, of those that are fast enough, with its score.
        trace: every step that was tried; the ensemble is made of the first ``steps_kept``.
        steps_kept: see ``trace``.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    score: Score
    best_single: Step
    trace: tuple[Step, ...]
    steps_kept: int


def select(
    candidates: Sequence[Candidate],
    truth: Truth,
    *,
    metric: EnsembleMetric = "shift",
    max_members: int = 4,
    max_latency_ms: float = math.inf,
    max_steps: int = 10,
    min_gain: float = 2e-3,
    log_loss_weight: float = 0.05,
) -> Selection:
    """Greedy forward selection with replacement (Caruana et al. 2004, doi:10.1145/1015330.1015432).

    Starts from the best single candidate and adds, step by step, the one whose addition makes the average best; one
    that is added k times weighs k. Deviations from the paper: the number of distinct members is capped, because each
    one costs a training; of all steps the simplest is kept that no other beats by ``min_gain`` for each member it has
    more; and what is kept is never below the best single candidate in the metric. Their order is irrelevant.

    The price is ``max_steps * len(candidates)`` evaluations of all rows: a tenth of a second for 20 of 10,000 rows, one or
    two with target images.

    Args:
        candidates: at least one; all with the same shapes, rows in the order of ``truth``.
        truth: the labels.
        metric: see ``Scorer``.
        max_members: most distinct members, at least 1.
        max_latency_ms: most milliseconds for one image, summed over the members. Candidates that take longer alone are left
            out; where all do, the fastest is the ensemble.
        max_steps: most additions, at least 1. One part in this is the finest weight; a fine one lets even a candidate
            that answers at random in, to turn single close calls: with 30 steps in 23 of 40 drawn validation sets of
            400 images, with the defaults in none.
        min_gain: objective points that one member more must bring.
        log_loss_weight: see ``Scorer``.
    """
    assert candidates, "expected at least one candidate"
    assert min(max_members, max_steps) >= 1, f"expected both at least 1, got {max_members} and {max_steps}"
    ordered = sorted(candidates, key=lambda candidate: candidate.name)
    assert len({candidate.name for candidate in ordered}) == len(ordered), "candidates: names must be unique"
    class_count = ordered[0].probabilities.shape[1]
    for candidate in ordered:
        shapes = (candidate.probabilities.shape, candidate.shifted.shape)
        wanted = ((len(truth.labels), class_count), (len(truth.shifted_labels), class_count))
        assert shapes == wanted, f"{candidate.name}: expected probabilities of {wanted}, got {shapes}"
    scorer = Scorer(truth, metric=metric, class_count=class_count, log_loss_weight=log_loss_weight)
    tables = [candidate.comparison_rows(scorer) for candidate in ordered]
    for candidate, table in zip(ordered, tables, strict=True):
        assert np.isfinite(table).all(), f"{candidate.name}: probabilities that are not finite"

    singles = [scorer.score(table) for table in tables]
    fast = [index for index, candidate in enumerate(ordered) if candidate.latency_ms <= max_latency_ms]
    fastest = min(range(len(ordered)), key=lambda index: ordered[index].latency_ms)
    usable = fast if fast else [fastest]
    first = min(
        usable,
        key=lambda index: (-singles[index].metric, singles[index].log_loss, ordered[index].parameters),
    )
    picks, scores = [first], [singles[first]]
    total = tables[first].astype(np.float64)
    while len(picks) < max_steps:
        members = frozenset(picks)
        left_ms = max_latency_ms - sum(ordered[index].latency_ms for index in members)
        more = [] if len(members) >= max_members else [one for one in usable if ordered[one].latency_ms <= left_ms]
        allowed = sorted(members.union(more))
        tried = {index: scorer.score((total + tables[index]) / (len(picks) + 1)) for index in allowed}
        chosen = _best_addition(tried, ordered, members)
        picks.append(chosen)
        scores.append(tried[chosen])
        total += tables[chosen]

    steps_kept = _simplest(picks, scores, ordered, min_gain)
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


def average(members: Sequence[Candidate], weights: Sequence[float]) -> np.ndarray:
    """The ensemble's probabilities: float64, (n + m, c), clean images first, then shifted views.

    This is what a temperature is fitted on, and what the exported model must repeat.
    """
    total = np.zeros((len(members[0].probabilities) + len(members[0].shifted), members[0].probabilities.shape[1]))
    for member, weight in zip(members, weights, strict=True):
        total += weight * member.calibrated()
    return total


def _best_addition(tried: dict[int, Score], ordered: Sequence[Candidate], members: frozenset[int]) -> int:
    """The addition with the highest objective; of equals a member, then the smaller, then the first by name."""
    highest = max(score.objective for score in tried.values())
    equals = [index for index, score in tried.items() if score.objective >= highest - _TIE]
    return min(equals, key=lambda index: (index not in members, ordered[index].parameters, index))


def _simplest(picks: Sequence[int], scores: Sequence[Score], ordered: Sequence[Candidate], min_gain: float) -> int:
    """How many steps to keep: the fewest members that no larger ensemble beats by ``min_gain`` a member."""
    sizes = [len(set(picks[: step + 1])) for step in range(len(picks))]
    # Picks only ever add members, so fewer members also means fewer parameters.
    kept = 0
    for step in range(1, len(picks)):
        needed = max(_TIE, min_gain * (sizes[step] - sizes[kept]))
        no_worse = scores[step].metric >= scores[0].metric - _TIE
        if no_worse and scores[step].objective > scores[kept].objective + needed:
            kept = step
    return kept + 1
