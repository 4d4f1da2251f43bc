"""Long images in pieces, for operations that need memory of their own for each pixel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: One piece of float32 values is then below what the C library asks the system for anew each time (128 KiB), and fits the
#: second cache.
PIXELS_PER_CHUNK = 10_000


def pixel_chunks(image: np.ndarray, target: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pieces of an image and of what is to be written: views (1, at most PIXELS_PER_CHUNK, 3) in the order of the pixels.

    Args:
        image: uint8 (height, width, 3).
        target: uint8 of the same shape, contiguous.
    """
    assert target.flags.c_contiguous, "expected contiguous memory to write to"
    source, result = image.reshape(1, -1, 3), target.reshape(1, -1, 3)
    for start in range(0, source.shape[1], PIXELS_PER_CHUNK):
        yield source[:, start : start + PIXELS_PER_CHUNK], result[:, start : start + PIXELS_PER_CHUNK]
