"""Every metric of the project: functions of labels, predictions and class probabilities, on scikit-learn and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax as scipy_softmax
from scipy.stats import binomtest, kendalltau, spearmanr
from sklearn.metrics import roc_auc_score

from bloodauto.run.artifacts import Metrics, ReliabilityBin, ValidationFigures
from bloodauto.types import Floats, Labels, Logits, Mask, Probabilities, Scores

#: Numbers of images, or sums of their weights, by class.
Counts: TypeAlias = NDArray[np.number]

#: Bins of equal width in which confidence is compared with accuracy. The reliability diagram and the error use the same.
NUM_ECE_BINS = 15
#: The smallest probability in a log-likelihood: about the resolution of a float32 softmax. One confident mistake then costs
#: at most 16 nats; with a smaller floor it could outweigh all other images.
NLL_FLOOR = 1e-7


def compute_metrics(labels: Labels, probabilities: Probabilities) -> Metrics:
    """Computes all metrics of one model on one set of images.

    Args:
        labels: Shape (n,), n at least 1.
        probabilities: Shape (n, classes).

    Example:
        >>> import numpy as np
        >>> compute_metrics(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])).balanced_accuracy
        0.75
    """
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    return Metrics(
        loss=negative_log_likelihood(labels, probabilities),
        accuracy=accuracy(confusion),
        balanced_accuracy=float(balanced_accuracy(confusion)),
        macro_f1=macro_f1(confusion),
    )


def confusion_matrix(labels: Labels, predictions: Labels, num_classes: int, *, weights: Floats | None = None) -> Counts:
    """Counts predictions by class.

    The same as ``sklearn.metrics.confusion_matrix``, which takes thirty times as long: the ensemble selection and the
    bootstrap call this thousands of times.

    Args:
        labels: Shape (n,).
        predictions: The predicted classes, shape (n,).
        num_classes: Number of classes.
        weights: Weight of each image, shape (n,), at least 0; every image counts 1 when None.

    Returns:
        Shape (classes, classes): rows are the true classes, columns the predicted ones. int64 without weights, float64
        with them.
    """
    cells = np.asarray(labels, dtype=np.int64) * num_classes + predictions
    return np.bincount(cells, weights, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def accuracy(confusion: Counts) -> float:
    """Fraction of correct predictions, 0-1, from a confusion matrix (classes, classes)."""
    return float(np.trace(confusion) / confusion.sum())


def per_class_recall(correct: Counts, total: Counts) -> NDArray[np.float64]:
    """Recall of each class, 0-1; NaN for classes without images.

    Args:
        correct: Number (or weight) of the correctly predicted images of each class, shape (..., classes).
        total: Number (or weight) of the images of each class, shape (..., classes).
    """
    return np.asarray(np.divide(correct, total, out=np.full(np.shape(total), np.nan), where=total > 0))


def mean_recall(correct: Counts, total: Counts) -> NDArray[np.float64]:
    """Balanced accuracy, 0-1, from counts or weights per class: the mean recall of the classes that have images.

    Args:
        correct: As in ``per_class_recall``, shape (..., classes).
        total: As in ``per_class_recall``, shape (..., classes).

    Returns:
        Shape (...).
    """
    return np.asarray(np.nanmean(per_class_recall(correct, total), axis=-1))


def balanced_accuracy(confusion: Counts) -> NDArray[np.float64]:
    """Balanced accuracy, 0-1, shape (...), from confusion matrices (..., classes, classes)."""
    return mean_recall(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def weighted_balanced_accuracy(labels: Labels, correct: Mask, *, weights: Floats | None = None) -> float:
    """Balanced accuracy of weighted images, 0-1.

    Args:
        labels: Shape (n,).
        correct: Whether each prediction is the label, shape (n,).
        weights: Weight of each image, shape (n,), at least 0; every image counts 1 when None.
    """
    image_weights = np.ones(len(labels)) if weights is None else weights
    return float(mean_recall(np.bincount(labels, image_weights * correct), np.bincount(labels, image_weights)))


def macro_f1(confusion: Counts) -> float:
    """Mean F1, 0-1, of the classes that occur among labels or predictions, from a confusion matrix (classes, classes)."""
    support = confusion.sum(axis=1) + confusion.sum(axis=0)
    present = support > 0
    return float((2 * np.diag(confusion)[present] / support[present]).mean())


def negative_log_likelihood(labels: Labels, probabilities: Probabilities, *, weights: Floats | None = None) -> float:
    """Mean negative log-likelihood of the labels, nats; probabilities below ``NLL_FLOOR`` count as that.

    Args:
        labels: Shape (n,), n at least 1.
        probabilities: Shape (n, classes).
        weights: Weight of each image, shape (n,), with a sum of 1; equal when None.
    """
    of_label = np.maximum(probabilities[np.arange(len(labels)), labels], NLL_FLOOR)
    return float(-np.log(of_label).mean() if weights is None else -(weights @ np.log(of_label)))


def reliability_bins(labels: Labels, probabilities: Probabilities) -> tuple[ReliabilityBin, ...]:
    """Compares confidence with accuracy in ``NUM_ECE_BINS`` bins of equal width (Guo et al. 2017, arXiv:1706.04599).

    An image's confidence is its highest class probability. Lower bounds are exclusive, upper bounds inclusive.

    Args:
        labels: Shape (n,), n at least 1.
        probabilities: Shape (n, classes).

    Returns:
        The bins that contain images, in the order of their confidence.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bounds = np.linspace(0, 1, NUM_ECE_BINS + 1)
    # Rounding can lift a confidence above 1; it belongs to the last bin.
    bin_of = np.clip(np.searchsorted(bounds, confidence, side="left") - 1, 0, NUM_ECE_BINS - 1)
    return tuple(
        ReliabilityBin(
            low=float(bounds[index]),
            high=float(bounds[index + 1]),
            images=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(correct[inside].mean()),
        )
        for index in range(NUM_ECE_BINS)
        if (inside := bin_of == index).any()
    )


def expected_calibration_error(labels: Labels, probabilities: Probabilities) -> float:
    """Mean distance between confidence and accuracy over ``reliability_bins``, weighted by images, 0-1.

    Args:
        labels: Shape (n,), n at least 1.
        probabilities: Shape (n, classes).
    """
    bins = reliability_bins(labels, probabilities)
    return sum(part.images * abs(part.confidence - part.accuracy) for part in bins) / len(labels)


def validation_figures(labels: Labels, probabilities: Probabilities) -> ValidationFigures:
    """Computes what the report draws of a model's predictions, so that the report itself computes nothing.

    Args:
        labels: Shape (n,), n at least 1.
        probabilities: Shape (n, classes).
    """
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    return ValidationFigures(
        confusion=tuple(map(tuple, confusion.tolist())),
        reliability=reliability_bins(labels, probabilities),
        ece=expected_calibration_error(labels, probabilities),
    )


def auroc(positive_scores: Scores, negative_scores: Scores) -> float:
    """Area under the ROC curve: the probability that a positive scores higher than a negative, ties count half.

    Args:
        positive_scores: Shape (n,), n at least 1.
        negative_scores: Shape (m,), m at least 1.
    """
    is_positive = np.repeat([1, 0], [len(positive_scores), len(negative_scores)])
    return float(roc_auc_score(is_positive, np.concatenate([positive_scores, negative_scores])))


@dataclass(frozen=True)
class RankCorrelation:
    """How well two orders agree.

    Attributes:
        spearman: Spearman's rho, -1 to 1.
        kendall: Kendall's tau b, -1 to 1.
    """

    spearman: float
    kendall: float


def rank_correlation(first: Sequence[float] | Scores, second: Sequence[float] | Scores) -> RankCorrelation | None:
    """Compares the order of two lists of n values, n at least 2; None where all values of one list are equal."""
    if min(len(set(np.asarray(values).tolist())) for values in (first, second)) < 2:
        return None
    return RankCorrelation(float(spearmanr(first, second).statistic), float(kendalltau(first, second).statistic))


def wilson_interval(correct: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of Wilson (1927, doi:10.1080/01621459.1927.10502953) for a fraction.

    It presumes independent images: for several shifted versions of one image it is too narrow.

    Args:
        correct: Number of successes, 0 to ``total``.
        total: Number of images.
        confidence: Between 0 and 1.

    Returns:
        Lower and upper bound, 0-1; (0, 1) when ``total`` is 0.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(low, 3), round(high, 3)
        (0.49, 0.943)
    """
    assert 0 <= correct <= total, f"expected 0 <= correct <= total, got {correct} of {total}"
    if total == 0:
        return 0.0, 1.0
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def softmax(logits: Logits) -> Probabilities:
    """Class probabilities, float32 (n, classes), computed in float64 from logits (n, classes)."""
    return np.asarray(scipy_softmax(logits.astype(np.float64), axis=1), dtype=np.float32)
