"""Warps by the cheap ways equal OpenCV's plain one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.transforms.steps import Warp
from bloodauto.transforms.warping import apply_warp
from bloodauto.types import Floats, Image


def plain(image: Image, matrix: Floats) -> Image:
    height, width = image.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix[:2], (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)


def warped(image: Image, matrix: Floats) -> Image:
    out = np.full_like(image, 77)
    apply_warp(image, out, Warp(matrix))
    return out


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    spread=st.sampled_from([0.05, 0.5, 2.0]),
    seed=st.integers(0, 10**6),
)
def test_any_map_of_any_image_is_within_a_level(height: int, width: int, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    matrix = np.eye(3)
    matrix[:2] += rng.normal(0.0, spread, (2, 3)) * [1.0, 1.0, 20.0]
    difference = np.abs(warped(image, matrix).astype(int) - plain(image, matrix))
    assert difference.max() <= 1


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (0.25, 0.0), (0.0, -7.5), (-11.3, 4.8), (0.0, 19.0)])
def test_shifts_are_within_a_level(smooth_image: Image, shift: tuple[float, float]) -> None:
    matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]], [0.0, 0.0, 1.0]])
    difference = np.abs(warped(smooth_image, matrix).astype(int) - plain(smooth_image, matrix))
    # OpenCV rounds a position to a thirty-second of a pixel.
    assert difference.max() <= 2
    assert difference.mean() < 0.3


def test_an_image_longer_than_can_be_padded_is_warped_all_the_same() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 31_990, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0.1, 25.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])
    assert np.abs(warped(image, matrix).astype(int) - plain(image, matrix)).max() <= 1
