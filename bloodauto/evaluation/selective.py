"""Selective prediction: confidence scores, the abstention threshold, and risk-coverage curves."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bloodauto.evaluation.calibration import PROBABILITY_FLOOR
from bloodauto.run.artifacts import Abstention, AbstentionRule, ConfidenceScore, RiskCoverage, SelectiveAccuracy
from bloodauto.types import Labels, Mask, Probabilities, Scores

CONFIDENCE_SCORES: tuple[ConfidenceScore, ...] = get_args(ConfidenceScore)
#: Fraction of in-domain images that get a prediction. It is the usual operating point in the literature on OOD detection:
#: FPR at 95 % TPR (Hendrycks and Gimpel, arXiv:1610.02136; Liu et al., arXiv:2010.03759).
DEFAULT_COVERAGE = 0.95
_CURVE_POINTS = 40


def confidence_score(probabilities: Probabilities, name: ConfidenceScore) -> NDArray[np.float64]:
    """Computes how confident predictions are; larger is more confident.

    Args:
        probabilities: Calibrated, shape (n, classes), rows sum to 1.
        name: ``max_probability`` (0-1), ``margin`` between the two most probable classes (0-1), or minus the ``entropy``
            (nats, at most 0).

    Returns:
        Shape (n,).

    Example:
        >>> confidence_score(np.array([[0.7, 0.2, 0.1]]), "margin").round(3)
        array([0.5])
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if name == "max_probability":
        return np.asarray(values.max(axis=1))
    if name == "margin":
        highest = np.sort(values, axis=1)
        return np.asarray(highest[:, -1] - highest[:, -2])
    return np.asarray((values * np.log(np.maximum(values, PROBABILITY_FLOOR))).sum(axis=1))


def is_confident(probabilities: Probabilities, rule: AbstentionRule) -> Mask:
    """Whether each image gets a prediction, shape (n,); the model abstains from the others.

    Args:
        probabilities: Calibrated, shape (n, classes).
        rule: Confidence score and threshold.
    """
    return confidence_score(probabilities, rule.confidence_score) >= rule.threshold


def risk_coverage(confidence: Scores, correct: Mask) -> RiskCoverage:
    """The error rate against the fraction of images that get a prediction, from the most confident image on.

    Images of equal confidence share the mean of their errors (Geifman and El-Yaniv, arXiv:1705.08500).

    Args:
        confidence: Shape (n,), n at least 1; larger is more confident.
        correct: Whether each prediction is correct, shape (n,).

    Example:
        >>> risk_coverage(np.array([0.9, 0.8]), np.array([True, False])).risk
        (0.0, 0.5)
    """
    order = np.argsort(-confidence, kind="stable")
    _, group_of, sizes = np.unique(-confidence[order], return_inverse=True, return_counts=True)
    error_rate = np.bincount(group_of, ~correct[order]) / sizes
    risk = np.cumsum(error_rate[group_of]) / np.arange(1, len(confidence) + 1)
    points = np.unique(np.linspace(0, len(confidence) - 1, _CURVE_POINTS).round().astype(int))
    return RiskCoverage(
        coverage=tuple(((points + 1) / len(confidence)).tolist()),
        risk=tuple(risk[points].tolist()),
        aurc=float(risk.mean()),
    )


def selective_accuracy(confidence: Scores, correct: Mask, threshold: float) -> SelectiveAccuracy:
    """What an abstention threshold does to some images.

    Args:
        confidence: Shape (n,), n at least 1; larger is more confident.
        correct: Whether each prediction is correct, shape (n,).
        threshold: Images at or above it get a prediction.
    """
    covered = confidence >= threshold
    return SelectiveAccuracy(
        images=len(confidence),
        coverage=float(covered.mean()),
        accuracy=float(correct[covered].mean()) if covered.any() else None,
        curve=risk_coverage(confidence, correct),
    )


def fit_abstention(
    clean: Probabilities,
    labels: Labels,
    shifted: Probabilities,
    shifted_labels: Labels,
    *,
    name: ConfidenceScore = "entropy",
    coverage: float = DEFAULT_COVERAGE,
) -> Abstention:
    """Sets the threshold at which a given fraction of the clean images gets a prediction.

    Images of an external site are abstained from more often, and images that show no known cell more often still. How often,
    the curves and ``benchmarks/abstention.py`` say.

    Args:
        clean: Calibrated probabilities for clean images that were held out of training, shape (n, classes), n at least 1.
        labels: Shape (n,).
        shifted: The same for shifted images, shape (m, classes); m may be 0.
        shifted_labels: Shape (m,).
        name: The confidence score.
        coverage: Above 0, at most 1.
    """
    confidence = confidence_score(clean, name)
    threshold = float(np.quantile(confidence, 1 - coverage, method="lower"))
    of_shifted = None
    if len(shifted_labels):
        correct = shifted.argmax(axis=1) == shifted_labels
        of_shifted = selective_accuracy(confidence_score(shifted, name), correct, threshold)
    return Abstention(
        rule=AbstentionRule(confidence_score=name, threshold=threshold),
        clean=selective_accuracy(confidence, clean.argmax(axis=1) == labels, threshold),
        shifted=of_shifted,
    )
