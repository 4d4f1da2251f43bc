"""Conformance suites: what every implementation of a seam promises, as checks that raise ``AssertionError``.

The checks need no test framework. A test calls them for each implementation::

    import pytest
    from bloodauto.testing.conformance.operations import OPERATION_CHECKS
    from bloodauto.transforms import OPERATIONS

    @pytest.mark.parametrize("check", OPERATION_CHECKS, ids=lambda check: check.__name__)
    def test_my_operation(check):
        check(OPERATIONS["my_operation"])
"""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.types import Images


def sample_cells(count: int, side: int = 96, seed: int = 0) -> Images:
    """Draws cells: pale ground, red cells, one stained nucleus with texture.

    Args:
        count: The number of images.
        side: Their height and width in pixels, at least 16.
        seed: Of everything that is drawn.

    Returns:
        uint8 (count, side, side, 3).
    """
    rng = np.random.default_rng(seed)
    images = np.empty((count, side, side, 3), np.uint8)
    for index in range(count):
        image = np.full((side, side, 3), (246, 226, 206), np.uint8)
        for _ in range(4):
            x, y = rng.integers(0, side, 2).tolist()
            cv2.circle(image, (x, y), side // 6, (200, 160, 165), cv2.FILLED, cv2.LINE_AA)
        x, y = rng.integers(2 * side // 5, 3 * side // 5, 2).tolist()
        cv2.circle(image, (x, y), side // 3, (205, 170, 205), cv2.FILLED, cv2.LINE_AA)
        axes = (int(rng.integers(side // 8, side // 4)), int(rng.integers(side // 8, side // 5)))
        angle_degrees = float(rng.uniform(0, 180))
        cv2.ellipse(image, (x, y), axes, angle_degrees, 0, 360, (85, 40, 130), cv2.FILLED, cv2.LINE_AA)
        images[index] = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    return images
