"""Estimates how much a site's images have to be magnified for a model, from unlabelled images of the site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bloodauto.errors import DataError
from bloodauto.evaluation.tta import zoom_images
from bloodauto.types import Images, Probabilities

#: Sites differ in magnification by 0.6 to 1.8; between two neighbours accuracies differ little.
MAGNIFICATIONS = (0.6, 0.7, 0.85, 1.0, 1.15, 1.3, 1.45, 1.6, 1.8)
#: Fewer images than this say nothing; more than ``_MAX_IMAGES`` cost time only.
MIN_IMAGES, _MAX_IMAGES = 24, 256
_RESAMPLES = 500
#: How often resampled images have to prefer the estimate to a magnification of 1.
_EVIDENCE = 0.95


@dataclass(frozen=True)
class MagnificationEstimate:
    """How much larger a site's images have to be made.

    Attributes:
        factor: 1 where the images cannot tell.
        low: lower bound of the middle 90 % of resampled estimates.
        high: upper bound.
        is_certain: whether the images tell the factor from 1, or 1 from the others.
        images: how many it was estimated from.
        confidences: mean highest probability at each of ``MAGNIFICATIONS``.
    """

    factor: float
    low: float
    high: float
    is_certain: bool
    images: int
    confidences: tuple[float, ...]

    def text(self) -> str:
        """For people.

        Example:
            >>> MagnificationEstimate(1.3, 1.15, 1.45, True, 200, ()).text()
            'magnification 1.3 (1.15-1.45), estimated from 200 images'
        """
        if not self.is_certain:
            return (
                f"magnification: {self.images} images cannot tell ({self.low:g}-{self.high:g}); they stay as they are"
            )
        return f"magnification {self.factor:g} ({self.low:g}-{self.high:g}), estimated from {self.images} images"


def estimate_magnification(
    predict: Callable[[Images], Probabilities], images: Images, *, seed: int = 0
) -> MagnificationEstimate:
    """Finds the magnification at which a model is most confident about the images of a site.

    Networks are least sure of cells that are larger or smaller than those they were trained on. The mean highest probability
    of all images is compared between magnifications, and the images are resampled for the interval. Where the resampled
    images do not prefer the best magnification to 1 in 95 % of the draws, the estimate is 1.

    Args:
        predict: images uint8 (k, height, width, 3) -> class probabilities (k, classes).
        images: unlabelled images of one site, uint8 (n, height, width, 3); at most 256 are used, drawn at random.
        seed: of the draws.

    Raises:
        DataError: fewer than 24 images.
    """
    if len(images) < MIN_IMAGES:
        raise DataError(
            f"site images: expected at least {MIN_IMAGES} to estimate a magnification from, got {len(images)}. Give more, or "
            "the magnification itself."
        )
    rng = np.random.default_rng([seed, 90])
    drawn = images[rng.permutation(len(images))[:_MAX_IMAGES]]
    confidences = np.stack([predict(zoom_images(drawn, factor)).max(axis=1) for factor in MAGNIFICATIONS])
    counts = rng.multinomial(len(drawn), np.full(len(drawn), 1 / len(drawn)), size=_RESAMPLES)
    resampled = counts @ confidences.T / len(drawn)
    means = confidences.mean(axis=1)
    best, unchanged = int(means.argmax()), MAGNIFICATIONS.index(1.0)
    low, high = _middle(MAGNIFICATIONS, resampled.argmax(axis=1).tolist())
    if best == unchanged:
        is_certain = bool((resampled.argmax(axis=1) == unchanged).mean() >= _EVIDENCE)
    else:
        is_certain = bool((resampled[:, best] > resampled[:, unchanged]).mean() >= _EVIDENCE)
    return MagnificationEstimate(
        factor=MAGNIFICATIONS[best] if is_certain else 1.0,
        low=low,
        high=high,
        is_certain=is_certain,
        images=len(drawn),
        confidences=tuple(means.tolist()),
    )


def _middle(factors: Sequence[float], chosen: Sequence[int]) -> tuple[float, float]:
    ordered = sorted(factors[index] for index in chosen)
    outside = round(0.05 * len(ordered))
    return ordered[outside], ordered[len(ordered) - 1 - outside]
