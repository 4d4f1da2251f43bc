"""What accuracy to expect in another laboratory: an interval from drawn ones, widened until it holds for unknown causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Fewer drawn laboratories than this say nothing of a tail.
MIN_SHIFTS = 12


@dataclass(frozen=True)
class ShiftOutcome:
    """How a model did under one drawn laboratory.

    Attributes:
        causes: what differed there: names of families, or of their groups; at least one.
        correct: how many of its images were answered rightly.
        images: how many there were, at least 1.
    """

    causes: tuple[str, ...]
    correct: int
    images: int

    def __post_init__(self) -> None:
        assert self.causes, "causes: expected at least one"
        assert 0 <= self.correct <= self.images, f"expected 0 <= correct <= images, got {self.correct} of {self.images}"
        assert self.images, "images: expected at least one"

    @property
    def accuracy(self) -> float:
        return self.correct / self.images


@dataclass(frozen=True)
class Expectation:
    """What to expect in a laboratory that nobody has seen.

    Attributes:
        middle: mean accuracy, 0-1, over the drawn laboratories in which as many causes are at work as in the median one, or
            more: what differs in one thing is another day in the same laboratory.
        low, high: bounds of the accuracy in the next one, 0-1.
        nominal_coverage: how often the bounds are meant to hold.
        measured_coverage: how often bounds made without a cause held where that cause was at work, each cause counting
            once; None where no cause could be left out.
        shifts: how many laboratories were drawn.
        causes: how many causes were left out in turn.
    """

    middle: float
    low: float
    high: float
    nominal_coverage: float
    measured_coverage: float | None
    shifts: int
    causes: int


def expect_elsewhere(outcomes: Sequence[ShiftOutcome], *, nominal_coverage: float = 0.9) -> Expectation | None:
    """An interval for the accuracy in another laboratory.

    Drawn laboratories are taken for exchangeable with the next one, so order statistics of their accuracies bound it
    (split conformal prediction, Vovk et al. 2005, doi:10.1007/b106715). What they are not exchangeable with is a
    laboratory that differs in a way the drawn ones do not. So each cause is left out in turn: bounds from the
    laboratories without it are held against those with it, and the bounds are widened, evenly in log-odds, by the distance
    that the nominal share of these comparisons needs. The measured coverage repeats all of that inside what is left when
    a cause is left out, so that no cause it is measured on has taken part in the widening.

    Causes that no family simulates (another mix of patients, another opinion on what an immature cell is) are not covered.

    Args:
        outcomes: of one model under laboratories drawn alike.
        nominal_coverage: above 0, below 1.

    Returns:
        None for fewer than ``MIN_SHIFTS`` outcomes.
    """
    assert 0 < nominal_coverage < 1, f"nominal_coverage: expected a number between 0 and 1, got {nominal_coverage}"
    if len(outcomes) < MIN_SHIFTS:
        return None
    # Half a right and half a wrong answer more keep the odds of a flawless laboratory finite.
    odds = np.array([np.log((one.correct + 0.5) / (one.images - one.correct + 0.5)) for one in outcomes])
    names = sorted({cause for one in outcomes for cause in one.causes})
    has_cause = np.array([[name in one.causes for name in names] for one in outcomes])
    low, high = _bounds(odds, nominal_coverage)
    widening = _widening(odds, has_cause, nominal_coverage)
    held = []
    for cause in range(len(names)):
        affected = has_cause[:, cause]
        rest = odds[~affected]
        if len(rest):
            wider = _widening(rest, np.delete(has_cause[~affected], cause, axis=1), nominal_coverage)
            held.append(float((_overshoot(odds[affected], rest, nominal_coverage) <= wider).mean()))
    counts = np.array([len(one.causes) for one in outcomes])
    accuracies = np.array([one.accuracy for one in outcomes])
    middle = float(accuracies[counts >= np.median(counts)].mean())
    return Expectation(
        middle=middle,
        low=min(_share(low - widening), middle),
        high=max(_share(high + widening), middle),
        nominal_coverage=nominal_coverage,
        measured_coverage=float(np.mean(held)) if held else None,
        shifts=len(outcomes),
        causes=len(held),
    )


def _bounds(odds: np.ndarray, coverage: float) -> tuple[float, float]:
    """Order statistics that bound one more draw with at least this probability, where there are enough of them."""
    ordered = np.sort(odds)
    outside = min(max(int((1 - coverage) / 2 * (len(ordered) + 1)), 1), (len(ordered) + 1) // 2)
    return float(ordered[outside - 1]), float(ordered[-outside])


def _overshoot(targets: np.ndarray, known: np.ndarray, coverage: float) -> np.ndarray:
    """How far each target lies outside the bounds of the known ones, in log-odds; negative inside."""
    low, high = _bounds(known, coverage)
    return np.maximum(low - targets, targets - high)


def _widening(odds: np.ndarray, has_cause: np.ndarray, coverage: float) -> float:
    """The distance, 0 or more, within which the nominal share of left-out comparisons lies, each cause counting once."""
    distances, weights = [], []
    for affected in has_cause.T:
        if affected.any() and not affected.all():
            distances.append(_overshoot(odds[affected], odds[~affected], coverage))
            weights.append(np.full(affected.sum(), 1 / affected.sum()))
    if not distances:
        return 0.0
    distance, weight = np.concatenate(distances), np.concatenate(weights)
    order = np.argsort(distance)
    reached = np.cumsum(weight[order]) / weight.sum()
    return max(float(distance[order][np.searchsorted(reached, coverage - 1e-9)]), 0.0)


def _share(odds: float) -> float:
    return float(1 / (1 + np.exp(-odds)))


#: What the interval is about, for whoever reads it.
COVERED = (
    "Elsewhere is the accuracy in a laboratory nobody has seen, estimated from simulated ones in which stain, light, optics, "
    "camera, magnification and dirt differ, singly or all at once, mildly or harshly. Not covered: other patients, other "
    "opinions on what a cell is called, damaged slides, and cells of types that were not trained on."
)


def expectation_words(test: Mapping[str, Any]) -> str:
    """``same lab 98.2 % (97.8-98.6); elsewhere 84 % (71-92)``, from the fields of a run's ``test.json``.

    Args:
        test: with ``accuracy``, ``accuracy_low``, ``accuracy_high`` and ``elsewhere``, which has the fields of ``Expectation``.
    """
    home = [100 * float(test[name]) for name in ("accuracy", "accuracy_low", "accuracy_high")]
    away = [100 * float(test["elsewhere"][name]) for name in ("middle", "low", "high")]
    return f"Same lab {home[0]:.1f} % ({home[1]:.1f}-{home[2]:.1f}); elsewhere {away[0]:.0f} % ({away[1]:.0f}-{away[2]:.0f})"


def coverage_words(elsewhere: Mapping[str, Any]) -> str:
    """What an interval's coverage is meant to be and was found to be, from the fields of ``Expectation``."""
    measured = elsewhere["measured_coverage"]
    meant = (
        f"The interval is meant to hold in {elsewhere['nominal_coverage']:.0%} of laboratories; it comes from "
        f"{elsewhere['shifts']} simulated ones."
    )
    if measured is None:
        return meant
    return (
        f"{meant} Made without one of {elsewhere['causes']} kinds of cause at a time, it held in {measured:.0%} of those where "
        "that kind was at work."
    )
