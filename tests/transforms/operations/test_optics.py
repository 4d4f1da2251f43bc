"""Blur and sharpness: kernels, correlation, and widths as declared."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from bloodauto.transforms.operations import optics
from bloodauto.types import Image
from tests.transforms.applying import ZEROS, apply_operation


def gaussian_kernel(deviation_pixels: float) -> NDArray[np.float32]:
    weights = optics.gaussian_weights(deviation_pixels)
    return np.outer(weights, weights)


@pytest.mark.parametrize(
    "kernel",
    [optics.disc_kernel(radius) for radius in (0.2, 1.0, 5.0, 6.3, 9.6, 14.0)]
    + [optics.streak_kernel(length, angle) for length in (0.5, 9.0, 14.0, 20.0, 31.0) for angle in (0.0, 0.7, 1.6, 2.6)]
    + [gaussian_kernel(2.2)],
    ids=lambda kernel: f"{len(kernel)} px",
)
def test_correlating_equals_the_sum_of_shifted_images(textured_image: Image, kernel: NDArray[np.float32]) -> None:
    reach = len(kernel) // 2
    padded = cv2.copyMakeBorder(textured_image, reach, reach, reach, reach, cv2.BORDER_REFLECT).astype(np.float64)
    height, width = textured_image.shape[:2]
    expected = sum(
        kernel[y, x] * padded[y : y + height, x : x + width] for y in range(len(kernel)) for x in range(len(kernel))
    )
    out = np.empty_like(textured_image)
    optics.correlate(textured_image, out, kernel)
    assert np.abs(out - expected).max() <= 0.55


def test_kernels_sum_to_one_and_grow_out_of_nothing() -> None:
    for size in (0.06, 0.2, 0.5, 0.9, 1.7, 4.2):
        for kernel in (gaussian_kernel(size), optics.disc_kernel(size), optics.streak_kernel(size, 0.7)):
            assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
            assert kernel.min() >= 0
            assert size > 0.1 or kernel.max() > 0.8


def dot(size: int) -> Image:
    image = np.zeros((size, size, 3), np.uint8)
    image[size // 2, size // 2] = 255
    return image


def spread_pixels(image: Image) -> tuple[float, float]:
    weights = image[..., 0].astype(float)
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]] - image.shape[0] // 2
    along_x, along_y = ((weights * distance**2).sum() / weights.sum() for distance in (xs, ys))
    return float(np.sqrt(along_x)), float(np.sqrt(along_y))


def test_blurs_spread_a_dot_by_the_declared_lengths() -> None:
    block = cv2.dilate(dot(81), np.ones((5, 5)))
    original = spread_pixels(block)[0]
    x, y = spread_pixels(apply_operation("gaussian_blur", 2.5, block))
    assert np.sqrt(x**2 - original**2) == pytest.approx(0.025 * 81, rel=0.12)
    assert y == pytest.approx(x, rel=0.02)
    x, y = spread_pixels(apply_operation("defocus_blur", 3.0, block))
    # A disc's deviation is half its radius.
    assert np.sqrt(x**2 - original**2) == pytest.approx(0.03 * 81 / 2, rel=0.15)
    x, y = spread_pixels(apply_operation("motion_blur", 8.0, block, ZEROS))
    assert np.sqrt(x**2 - original**2) == pytest.approx(0.08 * 81 / np.sqrt(12), rel=0.15)
    assert y == pytest.approx(original, rel=0.05)


def test_sharpness_goes_both_ways(textured_image: Image) -> None:
    def detail(image: Image) -> float:
        return float(np.abs(cv2.Laplacian(image, cv2.CV_32F)).mean())

    blurred, sharpened = (detail(apply_operation("sharpness", strength, textured_image)) for strength in (-0.6, 0.6))
    assert blurred < 0.7 * detail(textured_image)
    assert sharpened > 1.3 * detail(textured_image)
