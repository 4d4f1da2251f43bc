"""Optics: what the microscope does to light before it reaches the sensor."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.shift.corruptions.registry import corruption_family, short_side_px
from bloodauto.types import Floats, Image


def defocus_kernel(radius_px: float) -> NDArray[np.float32]:
    """A uniform disc with anti-aliased rim, float32 (k, k), sum 1: the image of a point out of focus."""
    half = int(np.ceil(radius_px))
    axis = np.arange(-half, half + 1, dtype=np.float32)
    distance = np.hypot(axis[:, None], axis[None, :])
    kernel = np.clip(radius_px + 0.5 - distance, 0.0, 1.0)
    kernel /= kernel.sum()
    return kernel.astype(np.float32)


def motion_kernel(length_px: float, angle_radians: float) -> NDArray[np.float32]:
    """An anti-aliased line through the centre, float32 (k, k), sum 1: the path of a point while the stage moves."""
    half = int(np.ceil(length_px / 2))
    axis = np.arange(-half, half + 1, dtype=np.float32)
    cosine, sine = np.cos(angle_radians), np.sin(angle_radians)
    along = axis[None, :] * cosine + axis[:, None] * sine
    across = axis[:, None] * cosine - axis[None, :] * sine
    kernel: Floats = np.clip(length_px / 2 + 0.5 - np.abs(along), 0.0, 1.0) * np.clip(1.0 - np.abs(across), 0.0, 1.0)
    kernel /= kernel.sum()
    return kernel.astype(np.float32)


def _filter(image: Image, kernel: NDArray[np.float32]) -> Image:
    result: Image = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return result


@corruption_family(
    "defocus",
    group="optics",
    factor="optics",
    unit="radius of the disc of confusion, % of the short side",
    levels=(0.8, 1.4, 2.1, 3.0, 4.2),
    source="ImageNet-C, arXiv:1903.12261 (defocus blur); MedMNIST-C, arXiv:2406.17536. Radius relative to the image.",
)
def _defocus(image: Image, level: float, rng: np.random.Generator) -> Image:
    return _filter(image, defocus_kernel(level / 100 * short_side_px(image)))


@corruption_family(
    "motion",
    group="optics",
    factor="optics",
    unit="path length during exposure, % of the short side",
    levels=(2.5, 4.0, 6.0, 8.5, 12.0),
    source="ImageNet-C, arXiv:1903.12261 (motion blur); MedMNIST-C, arXiv:2406.17536. A uniform path, no Gaussian tail.",
)
def _motion(image: Image, level: float, rng: np.random.Generator) -> Image:
    return _filter(image, motion_kernel(level / 100 * short_side_px(image), rng.uniform(0, np.pi)))
