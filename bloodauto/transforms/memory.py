"""Memory for batches, used again once nobody refers to a batch any more.

A new batch of 64 images of 96 pixels is 1.8 MB that the system hands over page by page, zeroed: that takes as long as a
third of augmenting it.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

#: Free blocks are kept for the batches to come: a few, and small ones only, since nothing frees them but the process's
#: end. For a large batch new memory costs little beside the work.
_MAX_FREE_BLOCKS = 4
_MAX_REUSED_BYTES = 32 * 2**20

_free_blocks: deque[np.ndarray] = deque(maxlen=_MAX_FREE_BLOCKS)


class _BorrowedBlock:
    """Lends a block to one array and its views, whose base this is; when the last is gone the block is free again."""

    def __init__(self, block: np.ndarray, shape: tuple[int, ...]) -> None:
        self._block = block
        self.__array_interface__ = block[: math.prod(shape)].reshape(shape).__array_interface__

    def __del__(self) -> None:
        _free_blocks.append(self._block)


def empty_batch(shape: tuple[int, ...]) -> np.ndarray:
    """An array whose values are arbitrary, uint8 of the given shape; as ``np.empty``, from any thread."""
    size = math.prod(shape)
    if size > _MAX_REUSED_BYTES:
        return np.empty(shape, np.uint8)
    block = None
    while block is None and _free_blocks:
        try:
            candidate = _free_blocks.popleft()
        except IndexError:  # another thread was faster
            break
        # Blocks of another size than is now in use are let go; a last, shorter batch takes a part of one.
        if size <= candidate.size <= 4 * max(size, 1):
            block = candidate
    return np.asarray(_BorrowedBlock(np.empty(size, np.uint8) if block is None else block, shape))
