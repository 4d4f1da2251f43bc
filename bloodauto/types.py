"""Types that say dtype, shape and unit. Shapes are documented, not checked: numpy's typing has no shapes yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

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
#: A mask, bool (n,) or (height, width).
Mask: TypeAlias = NDArray[np.bool_]
#: Seconds on a clock that never goes back, such as ``time.monotonic``; tests and the simulator pass their own.
Clock: TypeAlias = Callable[[], float]
