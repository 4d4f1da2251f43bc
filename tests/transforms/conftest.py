from __future__ import annotations

import cv2
import numpy as np
import pytest

from bloodauto.types import Image


def _noise_image(height: int, width: int, smoothness: float, seed: int) -> Image:
    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), smoothness) if smoothness > 0 else noise
    low, high = smooth.min(axis=(0, 1)), smooth.max(axis=(0, 1))
    return np.rint(10 + 230 * (smooth - low) / (high - low)).astype(np.uint8)


@pytest.fixture
def smooth_image() -> Image:
    """uint8 (64, 72, 3) without detail of a few pixels, all channels different."""
    return _noise_image(64, 72, 6.0, seed=7)


@pytest.fixture
def textured_image() -> Image:
    """uint8 (64, 64, 3) with detail of one pixel."""
    return _noise_image(64, 64, 0.8, seed=8)
