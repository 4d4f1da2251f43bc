"""Label-free estimates that did not rank networks in another laboratory; kept so that the comparison can be repeated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

#: Shares of exactly 0 or 1 have no probit.
_MIN_FRACTION = 0.005


def _confidence_score(probabilities: np.ndarray) -> np.ndarray:
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
    """
    confidence_score = np.sort(_confidence_score(known))
    wrong = int((known.argmax(axis=1) != labels).sum())
    if wrong == 0:
        return 1.0
    # As many known images lie below the threshold as are answered wrongly.
    threshold = confidence_score[wrong] if wrong < len(confidence_score) else np.inf
    return float((_confidence_score(target) >= threshold).mean())


def estimate_by_agreement(
    accuracies: np.ndarray, known: Sequence[np.ndarray], target: Sequence[np.ndarray]
) -> np.ndarray:
    """Agreement on the line (ALine-S; Baek et al., arXiv:2206.13089): each network's accuracy on the target, float64 (k,).

    In probits the networks' pairwise agreement on target images is a line in that on known images, and their accuracy
    follows the same line, which the agreement tells without a label.

    Args:
        accuracies: float (k,), 0-1, on the known images.
        known, target: the k networks' probabilities on either, k >= 3 so that a line can be laid.
    """
    pairs = np.triu_indices(len(known), k=1)
    inside, outside = (_probit(_agreement(answers)[pairs]) for answers in (known, target))
    spread = ((inside - inside.mean()) ** 2).sum()
    slope = ((inside - inside.mean()) * (outside - outside.mean())).sum() / spread if spread > 0 else 1.0
    return norm.cdf(outside.mean() + slope * (_probit(accuracies) - inside.mean()))


def _agreement(answers: Sequence[np.ndarray]) -> np.ndarray:
    chosen = np.stack([one.argmax(axis=1) for one in answers])
    return (chosen[:, None] == chosen[None]).mean(axis=2)


def _probit(shares: np.ndarray) -> np.ndarray:
    return norm.ppf(np.clip(shares, _MIN_FRACTION, 1 - _MIN_FRACTION))
