"""Figures of merit from labels and probabilities; plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Metrics:
    """How good probabilities are on clean images.

    Attributes:
        loss: mean negative log-likelihood, nats.
        accuracy, balanced_accuracy, macro_f1: 0-1; classes absent from the labels do not count.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float


def confusion_matrix(labels: np.ndarray, predicted_classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 (c, c): rows are the true classes, columns the answers."""
    cells = np.bincount(labels.astype(np.int64) * num_classes + predicted_classes, minlength=num_classes * num_classes)
    return cells.reshape(num_classes, num_classes)


def balanced_accuracy(confusion: np.ndarray) -> float:
    """Mean recall of the classes that occur among the labels."""
    totals = confusion.sum(axis=1)
    present = totals > 0
    return float((np.diag(confusion)[present] / totals[present]).mean())


def macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 of the classes that occur among labels or answers."""
    support = confusion.sum(axis=1) + confusion.sum(axis=0)
    present = support > 0
    return float((2 * np.diag(confusion)[present] / support[present]).mean())


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the images, in nats; probabilities are floored at 1e-7 so that one sure mistake stays finite."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_truth, 1e-7)).mean())


def compute_metrics(labels: np.ndarray, probabilities: np.ndarray) -> Metrics:
    """Metrics of float (n, c) probabilities against int (n,) labels."""
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    return Metrics(
        loss=negative_log_likelihood(labels, probabilities),
        accuracy=float(np.trace(confusion) / confusion.sum()),
        balanced_accuracy=balanced_accuracy(confusion),
        macro_f1=macro_f1(confusion),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Float (n, c) logits -> float32 probabilities."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
