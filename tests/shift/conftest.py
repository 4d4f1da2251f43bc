"""Cells drawn from a seed: pale ground, red cells, one stained nucleus with texture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest


def drawn_cells(n: int, side: int = 96, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    images = np.empty((n, side, side, 3), np.uint8)
    for place in range(n):
        image = np.full((side, side, 3), (246, 226, 206), np.uint8)
        for _ in range(4):
            centre = tuple(int(value) for value in rng.integers(0, side, 2))
            cv2.circle(image, centre, side // 6, (200, 160, 165), cv2.FILLED, cv2.LINE_AA)
        middle = tuple(int(value) for value in rng.integers(2 * side // 5, 3 * side // 5, 2))
        cv2.circle(image, middle, side // 3, (205, 170, 205), cv2.FILLED, cv2.LINE_AA)
        axes = (int(rng.integers(side // 8, side // 4)), int(rng.integers(side // 8, side // 5)))
        cv2.ellipse(image, middle, axes, float(rng.uniform(0, 180)), 0, 360, (85, 40, 130), cv2.FILLED, cv2.LINE_AA)
        texture = rng.normal(0, 6, image.shape)
        images[place] = np.clip(image + texture, 0, 255).astype(np.uint8)
    return images


@pytest.fixture(scope="session")
def cells() -> np.ndarray:
    """uint8 (24, 96, 96, 3)."""
    return drawn_cells(24)
