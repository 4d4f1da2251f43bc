"""What every module here does with arrays of pixels: memory for batches, pieces of large images, JPEG."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.types import Image, Images

#: A piece of so many float32 pixels is below the size for which the C library asks the system for new memory each time
#: (128 KiB), and fits the second cache.
PIXELS_PER_CHUNK = 10_000

#: Free blocks are kept for the batches to come: a few, and small ones only, since nothing frees them before the process ends.
#: For a large batch new memory costs little beside the work.
_MAX_FREE_BLOCKS = 4
_MAX_REUSED_BYTES = 32 * 2**20

_free_blocks: deque[NDArray[np.uint8]] = deque(maxlen=_MAX_FREE_BLOCKS)


class _BorrowedBlock:
    """Lends a block to one array and its views, whose base this is; when the last of them is gone the block is free again."""

    def __init__(self, block: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
        self._block = block
        self.__array_interface__: dict[str, Any] = block[: math.prod(shape)].reshape(shape).__array_interface__

    def __del__(self) -> None:
        _free_blocks.append(self._block)


def empty_batch(shape: tuple[int, ...]) -> Images:
    """An array of arbitrary values, in memory that is reused once nothing refers to the array.

    As ``np.empty``, from any thread. A new batch of 64 images of 96 pixels is 1.8 MB that the system hands over page by page,
    zeroed, which takes as long as a third of augmenting the batch.

    Args:
        shape: Usually (n, height, width, 3).

    Returns:
        uint8, of that shape, contiguous.
    """
    size = math.prod(shape)
    if size > _MAX_REUSED_BYTES:
        return np.empty(shape, np.uint8)
    block: NDArray[np.uint8] | None = None
    while block is None and _free_blocks:
        try:
            candidate = _free_blocks.popleft()
        except IndexError:  # another thread was faster
            break
        # Blocks that are much larger than what is now in use are let go.
        if size <= candidate.size <= 4 * max(size, 1):
            block = candidate
    return np.asarray(_BorrowedBlock(np.empty(size, np.uint8) if block is None else block, shape))


def pixel_chunks(image: Image, target: Image) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pieces of an image and of what is to be written, for operations that need memory for each pixel.

    Args:
        image: uint8 (height, width, 3).
        target: uint8 of the same shape, contiguous.

    Yields:
        Views (1, k, 3) of both, k at most ``PIXELS_PER_CHUNK``, in the order of the pixels.
    """
    assert target.flags.c_contiguous, "expected contiguous memory to write to"
    source, result = image.reshape(1, -1, 3), target.reshape(1, -1, 3)
    for start in range(0, source.shape[1], PIXELS_PER_CHUNK):
        yield source[:, start : start + PIXELS_PER_CHUNK], result[:, start : start + PIXELS_PER_CHUNK]


def jpeg_round_trip(image: Image, quality: int) -> Image:
    """An image after JPEG compression.

    Args:
        image: uint8 (height, width, 3), RGB, no side above 65,500 pixels.
        quality: 1-100.

    Returns:
        uint8 (height, width, 3), a new array.
    """
    # JPEG's luminance weighs red and blue differently, so the channels must be in the order that OpenCV expects.
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded: Image = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return decoded
