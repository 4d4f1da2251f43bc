"""Point-wise operations: a map from level to level for each channel, whatever the position and the other channels.

Such an operation has one of two forms:

- a *table*, uint8 (256,) for all channels alike or (256, 3), level -> level;
- a *ramp*, float64 (3, 4), diagonal in its first three columns: level times the diagonal plus the last column. OpenCV
  applies a ramp to pixels several times faster than a table, with the same arithmetic that makes a table out of it, so
  both forms give the same image to the bit.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.transforms.steps import LevelMap
from bloodauto.types import Floats, Image

LEVELS = np.arange(256, dtype=np.float64)
_LEVELS_AS_PIXELS = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
_CHANNELS = np.arange(3)
_BINS, _RANGE = [256], [0, 256]


def ramps(factors: Floats, offsets: Floats) -> Floats:
    """Factors and offsets, (..., 3) or (..., 1) each -> ramps, float64 (..., 3, 4)."""
    result = np.zeros((*factors.shape[:-1], 3, 4))
    result[..., _CHANNELS, _CHANNELS] = factors
    result[..., 3] = offsets
    return result


def is_ramp(values: LevelMap) -> bool:
    """Whether a point-wise operation has the form of a ramp."""
    return values.dtype.kind == "f"


def as_table(values: LevelMap) -> NDArray[np.uint8]:
    """A table or a ramp -> a table, uint8 (256,) or (256, 3)."""
    return cast("NDArray[np.uint8]", cv2.transform(_LEVELS_AS_PIXELS, values)[0] if is_ramp(values) else values)


def compose(first: NDArray[np.uint8] | None, second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The table of applying the table ``first``, None for no effect, and then the table ``second``."""
    if first is None:
        return second
    if first.ndim == 1 and second.ndim == 1:
        return second[first]
    columns = first if first.ndim == 2 else np.repeat(first[:, None], 3, axis=1)
    table: NDArray[np.uint8] = cv2.LUT(columns[None], second if second.ndim == 1 else second[None])[0]
    return table


class Statistics:
    """Per-channel statistics of an image as it would be after a table, without making that image.

    Args:
        image: uint8 (height, width, 3).

    Attributes:
        table: The table, uint8 (256,) or (256, 3); None: no effect. May be set anew.
    """

    def __init__(self, image: Image) -> None:
        self.table: NDArray[np.uint8] | None = None
        self._image = image
        self._counts: Floats | None = None

    def histograms(self) -> Floats:
        """How often each level occurs, a new float64 (3, 256)."""
        if self._counts is None:
            images = [self._image]
            counts = [cv2.calcHist(images, channel, None, _BINS, _RANGE).ravel() for channel in ([0], [1], [2])]
            self._counts = np.array(counts, np.float64)
        if self.table is None:
            return self._counts.copy()
        columns = np.broadcast_to(self.table[:, None], (256, 3)) if self.table.ndim == 1 else self.table
        flat = (columns + 256 * _CHANNELS).T.ravel()
        return (
            np.bincount(flat, weights=self._counts.ravel(), minlength=768)
            .reshape(3, 256)
            .astype(np.float64, copy=False)
        )

    def means(self) -> Floats:
        """The mean level of each channel, float64 (3,); only without a table."""
        assert self.table is None
        return np.array(cv2.mean(self._image)[:3])

    def extremes(self) -> list[tuple[float, float]]:
        """The lowest and the highest level that occur in each channel; only without a table."""
        assert self.table is None
        return [cv2.minMaxLoc(plane)[:2] for plane in cv2.split(self._image)]
