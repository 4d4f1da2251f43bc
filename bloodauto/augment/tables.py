"""Point-wise operations as lookup tables, made for many images at once, and the statistics some of them need."""

from __future__ import annotations

import cv2
import numpy as np

LEVELS = np.arange(256, dtype=np.float64)


def to_levels(values: np.ndarray) -> np.ndarray:
    """Rounds to the nearest level and clips to 0..255, uint8."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def brightness(delta: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Adds ``delta`` times 255 levels; uint8 (m, 256)."""
    return to_levels(LEVELS + 255.0 * delta[:, None])


def solarize(strength: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Adds 110 * strength levels, then inverts what lies above 255 * (1 - strength); uint8 (m, 256).

    keras-cv inverts what is *at or* above the threshold, which turns white pixels black at magnitude zero; we do not.
    """
    raised = np.minimum(LEVELS + 110.0 * strength[:, None], 255.0)
    return to_levels(np.where(raised <= 255.0 * (1.0 - strength[:, None]), raised, 255.0 - raised))


def posterize(bits_dropped: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Clears the lowest bits, rounded to a whole number of them; uint8 (m, 256)."""
    step = np.left_shift(1, np.rint(bits_dropped).astype(np.int64))[:, None]
    return (np.arange(256) // step * step).astype(np.uint8)


def gamma(octaves: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Raises the value, as a share of 255, to the power 2 ** octaves; uint8 (m, 256)."""
    return to_levels(255.0 * (LEVELS / 255.0) ** np.exp2(octaves)[:, None])


def exposure(octaves: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Multiplies the value by 2 ** octaves; uint8 (m, 256)."""
    return to_levels(LEVELS * np.exp2(octaves)[:, None])


def invert(strength: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """255 minus the value; uint8 (m, 256)."""
    return np.tile(np.arange(255, -1, -1, dtype=np.uint8), (len(strength), 1))


def white_balance(octaves: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Multiplies each channel by a gain of its own, 2 ** U(-octaves, octaves); uint8 (m, 256, 3)."""
    gains = np.exp2(octaves[:, None] * (2.0 * extra[:, :3] - 1.0))
    return to_levels(LEVELS[None, :, None] * gains[:, None, :])


class Statistics:
    """Per-channel statistics of ``table[image]``, each computed only when asked for."""

    def __init__(self, image: np.ndarray, table: np.ndarray | None) -> None:
        self._image = image
        self._table = table

    def _raw_histogram(self, channel: int) -> np.ndarray:
        return cv2.calcHist([self._image], [channel], None, [256], [0, 256]).ravel()

    def histograms(self) -> np.ndarray:
        """Counts, float64 (3, 256)."""
        result = np.empty((3, 256))
        for channel in range(3):
            counts = self._raw_histogram(channel)
            if self._table is not None:
                column = self._table if self._table.ndim == 1 else self._table[:, channel]
                counts = np.bincount(column, weights=counts, minlength=256)
            result[channel] = counts
        return result

    def means(self) -> np.ndarray:
        """Mean level, float64 (3,)."""
        if self._table is None:
            return np.array(cv2.mean(self._image)[:3])
        counts = self.histograms()
        return counts @ LEVELS / counts[0].sum()

    def extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest level that occur, float64 (3,) each."""
        present = self.histograms() > 0
        return present.argmax(axis=1).astype(np.float64), 255.0 - present[:, ::-1].argmax(axis=1)


def contrast(statistics: Statistics, factor: float) -> np.ndarray:
    """Moves each channel away from its mean by the factor 1 + ``factor``; uint8 (256, 3)."""
    means = statistics.means()
    return to_levels((LEVELS[:, None] - means) * (1.0 + factor) + means)


def auto_contrast(statistics: Statistics, strength: float) -> np.ndarray:
    """Stretches each channel to 0..255; a constant channel is left alone; uint8 (256, 3)."""
    low, high = statistics.extremes()
    constant = low == high
    scale = 255.0 / np.where(constant, 1.0, high - low)
    return to_levels(np.where(constant, LEVELS[:, None], (LEVELS[:, None] - low) * scale))


def equalize(statistics: Statistics, strength: float) -> np.ndarray:
    """Spreads each channel's histogram evenly; uint8 (256, 3).

    As keras-cv: the step is taken from the smallest count that occurs, where Pillow takes the count of the highest level
    that occurs.
    """
    counts = statistics.histograms().astype(np.int64)
    smallest = np.where(counts > 0, counts, np.iinfo(np.int64).max).min(axis=1)
    step = (counts.sum(axis=1) - smallest) // 255
    safe_step = np.maximum(step, 1)[:, None]
    below = np.cumsum(counts, axis=1) - counts
    mapping = (below + safe_step // 2) // safe_step
    result = np.where(step[:, None] == 0, np.arange(256), np.minimum(mapping, 255))
    return np.ascontiguousarray(result.T).astype(np.uint8)


def compose(first: np.ndarray | None, second: np.ndarray) -> np.ndarray:
    """The table of applying ``first`` and then ``second``; each (256,) or (256, 3)."""
    if first is None:
        return second
    if second.ndim == 1:
        return second[first]
    if first.ndim == 1:
        return second[first, :]
    return np.take_along_axis(second, first.astype(np.intp), axis=0)
