"""Colour transfer: the channels of a site's images are brought to the mean and deviation of the source site's."""

from __future__ import annotations

import numpy as np

from bloodauto.adaptation.frozen_ensemble import ImageTransform
from bloodauto.types import Floats, Images

#: A channel that hardly varies would be amplified without bound.
_SMALLEST_DEVIATION = 4.0
_MAX_GAIN = 3.0


def colour_transfer(images: Images, source: Images) -> ImageTransform:
    """Fits one gain and one offset for each channel (Reinhard et al. 2001, doi:10.1109/38.946629).

    Deviations: the statistics are those of all images of a site together, so that an image keeps how it differs from the
    others, and the channels are red, green and blue, so that the exported model needs a multiplication and an addition.

    Args:
        images: of the site, uint8 (n, height, width, 3).
        source: of the source site, uint8 (m, height, width, 3).

    Example:
        >>> source = np.random.default_rng(0).integers(0, 200, (8, 16, 16, 3), dtype=np.uint8)
        >>> transform = colour_transfer(source // 2, source)
        >>> bool(abs(transform.apply_to_array(source // 2).mean() - source.mean()) < 1)
        True
    """
    (mean, deviation), (source_mean, source_deviation) = _statistics(images), _statistics(source)
    gain = np.clip(source_deviation / deviation, 1 / _MAX_GAIN, _MAX_GAIN)
    offset = source_mean - gain * mean
    red, green, blue = gain.tolist()
    return ImageTransform(colour_gain=(red, green, blue), colour_offset=tuple(offset.tolist()))


def _statistics(images: Images) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each channel, float64 (3,)."""
    values = images.reshape(-1, 3).astype(np.float64)
    return values.mean(axis=0), np.maximum(values.std(axis=0), _SMALLEST_DEVIATION)
