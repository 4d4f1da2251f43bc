"""Estimates of a network's accuracy at a target site from unlabelled images of that site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from bloodauto.errors import DataError
from bloodauto.types import Floats, Labels, Probabilities


def estimate_by_transport(target: Probabilities, class_fractions: Floats | Labels) -> float:
    """Confidence optimal transport (COT; Lu et al., arXiv:2305.15640).

    The target images are assigned to the classes in given proportions so that each class gets the images that resemble it
    most; the estimate is the mean probability of the assigned class. Under strong shift networks are confident and wrong, and
    their confidence ranks them in reverse; but a wrong network puts too many images into a few classes, which lowers this
    estimate. It assumes that the class proportions of the target are those given: where they differ, the estimate is too low,
    for every network alike.

    Args:
        target: Class probabilities of the target images, float (m, classes), m at least 1.
        class_fractions: How often each class is expected there, as fractions or counts (classes,), 0 or more, not all 0.

    Returns:
        The estimated accuracy, 0-1.

    Raises:
        DataError: There are no images, or shapes or fractions do not fit.
    """
    fractions = np.asarray(class_fractions, dtype=np.float64)
    if target.ndim != 2 or len(target) == 0 or fractions.shape != target.shape[1:]:
        raise DataError(
            f"target: expected class probabilities (m, classes), m at least 1, and a fraction for each class, "
            f"got {target.shape} and {fractions.shape}."
        )
    if not (np.isfinite(fractions).all() and (fractions >= 0).all() and fractions.sum() > 0):
        raise DataError(f"target: expected class fractions of 0 or more, not all 0, got {fractions.tolist()}.")
    slots = _class_slots(fractions / fractions.sum(), len(target))
    images, assigned = linear_sum_assignment(target[:, slots], maximize=True)
    return float(target[images, slots[assigned]].mean())


def _class_slots(fractions: Floats, count: int) -> Labels:
    """``count`` class numbers in these proportions, by largest remainder, int64."""
    exact = fractions * count
    counts = np.floor(exact).astype(np.int64)
    remainders = np.argsort(-(exact - counts), kind="stable")
    counts[remainders[: count - counts.sum()]] += 1
    return np.repeat(np.arange(len(fractions)), counts)


def mean_agreement(probabilities: Sequence[Probabilities]) -> float:
    """How often two networks predict the same class, on average over the pairs.

    Args:
        probabilities: Class probabilities of at least two networks for the same images, float (m, classes) each.

    Returns:
        0-1.
    """
    assert len(probabilities) >= 2, f"expected the predictions of at least 2 networks, got {len(probabilities)}"
    predictions = np.stack([network_probabilities.argmax(axis=1) for network_probabilities in probabilities])
    pairs = np.triu_indices(len(probabilities), k=1)
    return float((predictions[pairs[0]] == predictions[pairs[1]]).mean())
