"""When not to answer: how sure a model is of an image, and below what it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from bloodauto.evaluation.calibration import PROBABILITY_FLOOR

ConfidenceScore = Literal["max_probability", "margin", "entropy"]
CONFIDENCE_SCORES: tuple[ConfidenceScore, ...] = get_args(ConfidenceScore)
#: Share of the training laboratory's images that get an answer; the usual point of comparison of methods that detect what
#: a model has not seen (Hendrycks and Gimpel, arXiv:1610.02136; Liu et al., arXiv:2010.03759: "FPR at 95 % TPR").
DEFAULT_COVERAGE = 0.95
_CURVE_POINTS = 40


def confidence_score(probabilities: np.ndarray, name: ConfidenceScore) -> np.ndarray:
    """How sure answers are, larger is surer.

    Args:
        probabilities: float, (n, c), calibrated; rows sum to 1.
        name: ``max_probability`` (0-1), ``margin`` between the two likeliest classes (0-1), or minus the ``entropy`` (nats,
            at most 0).

    Returns:
        float64, (n,).
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if name == "max_probability":
        return values.max(axis=1)
    if name == "margin":
        highest = np.sort(values, axis=1)
        return highest[:, -1] - highest[:, -2]
    return (values * np.log(np.maximum(values, PROBABILITY_FLOOR))).sum(axis=1)


@dataclass(frozen=True)
class RiskCoverage:
    """What leaving the least sure images unanswered buys (Geifman and El-Yaniv, arXiv:1705.08500).

    Attributes:
        answered: shares of images that get an answer, rising, the last is 1.
        wrong: share of these answers that are wrong, one for each.
        area: mean of the wrong shares over all numbers of answered images; smaller is better.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float


@dataclass(frozen=True)
class SelectiveAccuracy:
    """What the threshold does to some images: how many there are, the share answered, and how often these are right."""

    images: int
    coverage: float
    accuracy: float | None
    curve: RiskCoverage


@dataclass(frozen=True)
class Abstention:
    """A rule for marking images "not sure, or none of these cells", by what a model answers alone.

    Attributes:
        sureness: which measure; ``threshold``: images below it are marked.
        clean, shifted: what it does to the images it was set by, and to shifted views of them (None without views).
    """

    confidence_score: ConfidenceScore
    threshold: float
    clean: SelectiveAccuracy
    shifted: SelectiveAccuracy | None


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> RiskCoverage:
    """The curve of answers taken from the surest on; equally sure ones share the mean of their errors.

    Args:
        sure: float, (n,), n at least 1.
        correct: bool, (n,).
    """
    order = np.argsort(-confidence, kind="stable")
    _, group_of, sizes = np.unique(-confidence[order], return_inverse=True, return_counts=True)
    shared = np.bincount(group_of, ~correct[order]) / sizes
    risk = np.cumsum(shared[group_of]) / np.arange(1, len(confidence) + 1)
    points = np.unique(np.linspace(0, len(confidence) - 1, _CURVE_POINTS).round().astype(int))
    return RiskCoverage(
        coverage=tuple(((points + 1) / len(confidence)).tolist()),
        risk=tuple(risk[points].tolist()),
        aurc=float(risk.mean()),
    )


def fit_abstention(
    clean: np.ndarray,
    labels: np.ndarray,
    shifted: np.ndarray,
    shifted_labels: np.ndarray,
    *,
    name: ConfidenceScore = "entropy",
    coverage: float = DEFAULT_COVERAGE,
) -> Abstention:
    """Sets the threshold so that this share of the training laboratory's own images is answered.

    Images of another laboratory are marked more often, and images of no known cell more often still; how often, the curves
    and ``benchmarks/abstention.py`` say.

    Args:
        clean, shifted: float, (n, c) and (m, c), calibrated answers for images that were not trained on; n at least 1.
        labels, shifted_labels: int, (n,) and (m,).
        name: which measure; why this one, see ``docs/expectation.md``.
        coverage: above 0, at most 1.
    """
    confidence = confidence_score(clean, name)
    threshold = float(np.quantile(confidence, 1 - coverage, method="lower"))
    of_views = (
        selective_accuracy(confidence_score(shifted, name), shifted.argmax(axis=1) == shifted_labels, threshold)
        if len(shifted_labels)
        else None
    )
    return Abstention(
        confidence_score=name,
        threshold=threshold,
        clean=selective_accuracy(confidence, clean.argmax(axis=1) == labels, threshold),
        shifted=of_views,
    )


def is_confident(probabilities: np.ndarray, name: ConfidenceScore, threshold: float) -> np.ndarray:
    """Which answers stand, bool (n,); the others are to be marked."""
    return confidence_score(probabilities, name) >= threshold


def selective_accuracy(confidence: np.ndarray, correct: np.ndarray, threshold: float) -> SelectiveAccuracy:
    """What a threshold does to some images.

    Args:
        sure: float, (n,), n at least 1, larger is surer; images at or above the threshold are answered.
        correct: bool, (n,).
    """
    stands = confidence >= threshold
    return SelectiveAccuracy(
        images=len(confidence),
        coverage=float(stands.mean()),
        accuracy=float(correct[stands].mean()) if stands.any() else None,
        curve=risk_coverage(confidence, correct),
    )
