"""What unlabelled images of a target laboratory say about a network: an estimate of its accuracy there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from bloodauto.errors import DataError


def estimate_by_transport(target: np.ndarray, class_fractions: np.ndarray) -> float:
    """Confidence optimal transport (COT; Lu et al., arXiv:2305.15640): the accuracy on target images, 0-1.

    The target images are given to the classes in these shares so that each class gets the images that look most like it; the
    estimate is the mean probability of the class an image was given to. In a strong shift networks are sure and wrong, and
    confidence ranks them upside down; but a wrong network puts too many images into a few classes, which this sees.
    It takes the target's class shares to be those given: where they differ, the estimate is too low, for every network alike.

    Args:
        target: float (m, classes), a network's probabilities for the target images.
        class_fractions: float (classes,), 0 or more, not all 0: how often each class is expected there.

    Raises:
        DataError: no images, or shapes or shares that do not fit.
    """
    shares = np.asarray(class_fractions, dtype=np.float64)
    if target.ndim != 2 or len(target) == 0 or shares.shape != target.shape[1:]:
        raise DataError(
            f"target: expected answers (m, classes), m at least 1, and a share for each class, "
            f"got {target.shape} and {shares.shape}."
        )
    if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
        raise DataError(f"target: expected class shares of 0 or more, not all 0, got {shares.tolist()}.")
    places = _class_slots(shares / shares.sum(), len(target))
    images, given = linear_sum_assignment(target[:, places], maximize=True)
    return float(target[images, places[given]].mean())


def _class_slots(shares: np.ndarray, count: int) -> np.ndarray:
    """``count`` class numbers in these shares, by largest remainder, int64."""
    exact = shares * count
    counts = np.floor(exact).astype(np.int64)
    remainders = np.argsort(-(exact - counts), kind="stable")
    counts[remainders[: count - counts.sum()]] += 1
    return np.repeat(np.arange(len(shares)), counts)


def mean_agreement(probabilities: Sequence[np.ndarray]) -> float:
    """How often two of k >= 2 networks give the same answer, on average over the pairs, 0-1.

    Args:
        answers: the networks' probabilities for the same images, float (m, classes) each.
    """
    assert len(probabilities) >= 2, f"expected the answers of at least 2 networks, got {len(probabilities)}"
    chosen = np.stack([one.argmax(axis=1) for one in probabilities])
    pairs = np.triu_indices(len(probabilities), k=1)
    return float((chosen[pairs[0]] == chosen[pairs[1]]).mean())
