"""Point-wise operations: what becomes of each level of each channel, whatever its place and its other channels.

Such an operation is given in one of two forms:

- a *table*, uint8 (256,) for all channels alike or (256, 3), level -> level;
- a *ramp*, float64 (3, 4), diagonal in its first three columns: level times the diagonal plus the last column. OpenCV
  applies a ramp to pixels several times faster than a table, with the same arithmetic that makes a table out of it, so
  both forms give the same image to the bit.
"""

from __future__ import annotations

import cv2
import numpy as np

LEVELS = np.arange(256, dtype=np.float64)
_LEVELS_AS_PIXELS = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
_CHANNELS = np.arange(3)
_BINS, _RANGE = [256], [0, 256]


def _ramps(factors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Factors and offsets, (..., 3) or (..., 1) each -> ramps (..., 3, 4)."""
    result = np.zeros((*factors.shape[:-1], 3, 4))
    result[..., _CHANNELS, _CHANNELS] = factors
    result[..., 3] = offsets
    return result


def is_ramp(values: np.ndarray) -> bool:
    """Whether a point-wise operation is given as a ramp."""
    return values.dtype.kind == "f"


def as_table(values: np.ndarray) -> np.ndarray:
    """A table or a ramp -> a table."""
    return cv2.transform(_LEVELS_AS_PIXELS, values)[0] if is_ramp(values) else values


def compose(first: np.ndarray | None, second: np.ndarray) -> np.ndarray:
    """The table of applying ``first`` and then ``second``, tables both."""
    if first is None:
        return second
    if first.ndim == 1 and second.ndim == 1:
        return second[first]
    columns = first if first.ndim == 2 else np.repeat(first[:, None], 3, axis=1)
    return cv2.LUT(columns[None], second if second.ndim == 1 else second[None])[0]


def brightness(delta: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Adds ``delta`` times 255 levels; ramps (m, 3, 4)."""
    return _ramps(np.ones((len(delta), 1)), 255.0 * delta[:, None])


def exposure(octaves: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Multiplies by 2 ** octaves; ramps (m, 3, 4)."""
    return _ramps(np.exp2(octaves)[:, None], np.zeros((len(octaves), 1)))


def white_balance(octaves: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Multiplies each channel by a gain of its own, 2 ** U(-octaves, octaves); ramps (m, 3, 4)."""
    gains = np.exp2(octaves[:, None] * (2.0 * extra[:, :3] - 1.0))
    return _ramps(gains, np.zeros((len(octaves), 1)))


def invert(strength: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """255 minus the level; ramps (m, 3, 4)."""
    return _ramps(np.full((len(strength), 1), -1.0), np.full((len(strength), 1), 255.0))


def _to_levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def solarize(strength: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Adds 110 * strength levels, then inverts what reaches 255 * (1 - strength); tables (m, 256).

    As keras-cv, but at strength zero nothing is inverted; there, keras-cv turns white pixels black.
    """
    raised = np.minimum(LEVELS + 110.0 * strength[:, None], 255.0)
    threshold = np.where(strength > 0, 255.0 * (1.0 - strength), np.inf)[:, None]
    return _to_levels(np.where(raised < threshold, raised, 255.0 - raised))


def posterize(bits_dropped: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Clears the lowest bits, rounded to a whole number of them; tables (m, 256)."""
    step = np.left_shift(1, np.rint(bits_dropped).astype(np.int64))[:, None]
    return (np.arange(256) // step * step).astype(np.uint8)


def gamma(octaves: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Raises the level, as a share of 255, to the power 2 ** octaves; tables (m, 256)."""
    return _to_levels(255.0 * (LEVELS / 255.0) ** np.exp2(octaves)[:, None])


class Statistics:
    """Per-channel statistics of an image as it would be after ``table``, without making that image.

    Attributes:
        table: what has been done to the image since, uint8 (256,) or (256, 3); None for nothing. May be set anew.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.table: np.ndarray | None = None
        self._image = image
        self._counts: np.ndarray | None = None

    def histograms(self) -> np.ndarray:
        """How often each level occurs, a new float64 (3, 256)."""
        if self._counts is None:
            images = [self._image]
            counts = [cv2.calcHist(images, channel, None, _BINS, _RANGE).ravel() for channel in ([0], [1], [2])]
            self._counts = np.array(counts, np.float64)
        if self.table is None:
            return self._counts.copy()
        columns = np.broadcast_to(self.table[:, None], (256, 3)) if self.table.ndim == 1 else self.table
        flat = (columns + 256 * _CHANNELS).T.ravel()
        return np.bincount(flat, weights=self._counts.ravel(), minlength=768).reshape(3, 256)

    def means(self) -> np.ndarray:
        """Mean level, float64 (3,). Only without a table."""
        assert self.table is None
        return np.array(cv2.mean(self._image)[:3])

    def extremes(self) -> list[tuple[float, float]]:
        """Lowest and highest level that occur, for each channel. Only without a table."""
        assert self.table is None
        return [cv2.minMaxLoc(plane)[:2] for plane in cv2.split(self._image)]


def contrast(statistics: Statistics, change: float) -> np.ndarray:
    """Moves each channel away from its mean by the factor 1 + change; a ramp (3, 4)."""
    return _ramps(np.array([1.0 + change]), -change * statistics.means())


def auto_contrast(statistics: Statistics, strength: float) -> np.ndarray:
    """Stretches each channel to 0..255, a constant one is left alone; a ramp (3, 4)."""
    ramp = np.zeros((3, 4))
    for channel, (low, high) in enumerate(statistics.extremes()):
        factor = 255.0 / (high - low) if high > low else 1.0
        ramp[channel, channel] = factor
        ramp[channel, 3] = -low * factor if high > low else 0.0
    return ramp


def equalize(statistics: Statistics, strength: float) -> np.ndarray:
    """Spreads each channel's histogram evenly; a table (256, 3).

    As keras-cv: the step is taken from the smallest count that occurs, where Pillow takes the count of the highest level
    that occurs.
    """
    counts = statistics.histograms()
    mapping = np.add.accumulate(counts, axis=1)
    totals = mapping[:, -1].copy()
    rarest = np.minimum.reduce(counts, axis=1, where=counts > 0, initial=np.inf)
    steps = (totals - rarest) // 255
    mapping -= counts
    mapping += (steps // 2)[:, None]
    mapping /= np.maximum(steps, 1.0)[:, None]
    np.minimum(mapping, 255.0, out=mapping)
    if steps.min() == 0:  # too few pixels, or all of one level: the channel stays as it is
        mapping[steps == 0] = LEVELS
    return mapping.T.astype(np.uint8, order="C")
