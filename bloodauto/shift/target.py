"""What unlabelled images of a target laboratory say about networks: estimates of their accuracy there.

No estimate can be right for every shift (Garg et al., arXiv:2201.04234, section 3); these are the published ones that need
nothing but the answers of networks that were trained anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from bloodauto.errors import DataError

#: Shares of exactly 0 or 1 have no probit.
_LEAST_SHARE = 0.005


def _sureness(probabilities: np.ndarray) -> np.ndarray:
    """Negative entropy, float64 (n,), nats: 0 for a sure answer, less for a doubtful one."""
    p = probabilities.astype(np.float64)
    return (p * np.log(np.maximum(p, 1e-12))).sum(axis=1)


def estimate_by_threshold(labels: np.ndarray, known: np.ndarray, target: np.ndarray) -> float:
    """Average thresholded confidence (ATC with negative entropy; Garg et al., arXiv:2201.04234): accuracy on the target, 0-1.

    The threshold is that at which as many labelled images are surer as are answered rightly; the estimate is the share of
    target images that are surer. Labelled images should be as far from those learnt from as can be had: with shifted views
    among them the estimate is less hopeful than with clean ones alone.

    Args:
        labels: int (n,), of images the network was not trained on.
        known: float (n, classes), its probabilities for them.
        target: float (m, classes), its probabilities for the target images.

    Raises:
        DataError: no images, or shapes that do not fit.
    """
    _check(labels, known, target)
    sureness = np.sort(_sureness(known))
    wrong = int((known.argmax(axis=1) != labels).sum())
    if wrong == 0:
        return 1.0
    # As many known images lie below the threshold as are answered wrongly.
    threshold = sureness[wrong] if wrong < len(sureness) else np.inf
    return float((_sureness(target) >= threshold).mean())


def mean_confidence(target: np.ndarray) -> float:
    """The mean of the highest probability, 0-1: what a calibrated network would get right. A control for the others."""
    return float(target.max(axis=1).mean())


def mean_agreement(answers: Sequence[np.ndarray]) -> np.ndarray:
    """For each of k >= 2 networks, how often it agrees with each other one, on average: float64 (k,), 0-1.

    Args:
        answers: the networks' probabilities for the same images, float (m, classes) each.
    """
    agreement = _agreement(answers)
    count = len(answers)
    return (agreement.sum(axis=1) - 1.0) / (count - 1)


def _agreement(answers: Sequence[np.ndarray]) -> np.ndarray:
    if len(answers) < 2:
        raise DataError(f"agreement: expected the answers of at least 2 networks, got {len(answers)}.")
    chosen = np.stack([one.argmax(axis=1) for one in answers])
    return (chosen[:, None] == chosen[None]).mean(axis=2)


def estimate_by_agreement(
    accuracies: np.ndarray, known: Sequence[np.ndarray], target: Sequence[np.ndarray]
) -> np.ndarray:
    """Agreement on the line (ALine-S; Baek et al., arXiv:2206.13089): each network's accuracy on the target, float64 (k,).

    In probits the networks' pairwise agreement on target images is a line in that on known images, and their accuracy
    follows the same line, which the agreement tells without a label.

    Args:
        accuracies: float (k,), 0-1, on the known images.
        known, target: the k networks' probabilities on either, k >= 3 so that a line can be laid.

    Raises:
        DataError: fewer networks.
    """
    if len(known) < 3:
        raise DataError(f"agreement on the line: expected at least 3 networks, got {len(known)}.")
    pairs = np.triu_indices(len(known), k=1)
    inside, outside = (_probit(_agreement(answers)[pairs]) for answers in (known, target))
    spread = ((inside - inside.mean()) ** 2).sum()
    slope = ((inside - inside.mean()) * (outside - outside.mean())).sum() / spread if spread > 0 else 1.0
    return norm.cdf(outside.mean() + slope * (_probit(accuracies) - inside.mean()))


def _probit(shares: np.ndarray) -> np.ndarray:
    return norm.ppf(np.clip(shares, _LEAST_SHARE, 1 - _LEAST_SHARE))


def _check(labels: np.ndarray, known: np.ndarray, target: np.ndarray) -> None:
    fits = known.ndim == target.ndim == 2 and known.shape[1] == target.shape[1] and labels.shape == known.shape[:1]
    if not fits or len(known) == 0 or len(target) == 0:
        raise DataError(
            f"target: expected labels (n,), answers (n, classes) and target answers (m, classes), n and m at least 1, "
            f"got {labels.shape}, {known.shape} and {target.shape}."
        )
