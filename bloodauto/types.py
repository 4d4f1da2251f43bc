"""Types that say dtype, shape and unit, and the one check of image arrays.

numpy's typing has no shapes yet, so shapes are documented here and checked where data enter.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bloodauto.errors import DataError

#: Images, uint8 RGB 0-255, (n, height, width, 3).
Images: TypeAlias = NDArray[np.uint8]
#: One image, uint8 RGB 0-255, (height, width, 3).
Image: TypeAlias = NDArray[np.uint8]
#: Class probabilities, (n, classes); rows sum to one. float32 as networks predict them, float64 once they are calibrated.
Probabilities: TypeAlias = NDArray[np.floating]
#: Network outputs before softmax, float32 (n, classes).
Logits: TypeAlias = NDArray[np.float32]
#: Class indices, (n,), 0 <= label < classes.
Labels: TypeAlias = NDArray[np.integer]
#: Targets of a loss, float32 (n, classes); one-hot or smoothed.
Targets: TypeAlias = NDArray[np.float32]
#: Row indices into some array, int (n,).
Rows: TypeAlias = NDArray[np.integer]
#: One number for each row, float (n,).
Scores: TypeAlias = NDArray[np.floating]
#: Any other array of floats.
Floats: TypeAlias = NDArray[np.floating]
#: One text for each row, str (n,).
Strings: TypeAlias = NDArray[np.str_]
#: A mask, bool (n,) or (height, width).
Mask: TypeAlias = NDArray[np.bool_]


def check_images(images: Images, where: str) -> None:
    """Checks that an array holds RGB images.

    Args:
        images: anything; n may be 0, height and width may not.
        where: what the message begins with: a file, a class or a function.

    Raises:
        DataError: no uint8 array (n, height, width, 3) with at least one pixel per image.
    """
    if not isinstance(images, np.ndarray):
        raise DataError(
            f"{where}: expected images as a uint8 array (n, height, width, 3), got {type(images).__name__}."
        )
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]:
        raise DataError(
            f"{where}: expected images as a uint8 array (n, height, width, 3), got {images.dtype} {images.shape}."
        )
