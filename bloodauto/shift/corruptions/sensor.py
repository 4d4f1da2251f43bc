"""Sensor: noise, sampling and compression."""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.shift.corruptions.registry import corruption_family, to_uint8
from bloodauto.transforms.images import jpeg_round_trip
from bloodauto.types import Image


@corruption_family(
    "gaussian_noise",
    group="sensor",
    factor="sensor",
    unit="standard deviation, grey levels of 255",
    levels=(5, 9, 15, 23, 34),
    source="ImageNet-C, arXiv:1903.12261 (Gaussian noise), weaker, since a microscope camera has enough light.",
)
def _gaussian_noise(image: Image, level: float, rng: np.random.Generator) -> Image:
    return to_uint8(image + level * rng.standard_normal(image.shape, dtype=np.float32))


@corruption_family(
    "shot_noise",
    group="sensor",
    factor="sensor",
    unit="photons that make a pixel white",
    levels=(1600, 600, 240, 100, 45),
    source="ImageNet-C, arXiv:1903.12261 (shot noise), as the Gaussian limit of Poisson noise.",
)
def _shot_noise(image: Image, level: float, rng: np.random.Generator) -> Image:
    # Poisson noise of k photons has deviation sqrt(k). Its Gaussian limit costs a sixth of exact Poisson draws, and at
    # the 40 or more photons of a white pixel used here the two look alike.
    photons = image * np.float32(level / 255)
    noisy = photons + np.sqrt(photons) * rng.standard_normal(image.shape, dtype=np.float32)
    return to_uint8(noisy * np.float32(255 / level))


@corruption_family(
    "jpeg",
    group="sensor",
    factor="sensor",
    unit="JPEG quality, 100 is best",
    levels=(50, 30, 18, 11, 6),
    source="ImageNet-C, arXiv:1903.12261 (JPEG compression); MedMNIST-C, arXiv:2406.17536.",
)
def _jpeg(image: Image, level: float, rng: np.random.Generator) -> Image:
    return jpeg_round_trip(image, int(level))


def _resample(image: Image, coarser: float, interpolation: int) -> Image:
    height, width = image.shape[:2]
    small = (max(1, round(width / coarser)), max(1, round(height / coarser)))
    result: Image = cv2.resize(
        cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=interpolation
    )
    return result


@corruption_family(
    "pixelation",
    group="sensor",
    factor="sensor",
    unit="times coarser than the image's own grid, shown as blocks",
    levels=(1.5, 2.0, 2.7, 3.6, 4.8),
    source="ImageNet-C, arXiv:1903.12261 (pixelate); MedMNIST-C, arXiv:2406.17536.",
)
def _pixelation(image: Image, level: float, rng: np.random.Generator) -> Image:
    return _resample(image, level, cv2.INTER_NEAREST)


@corruption_family(
    "resolution",
    group="sensor",
    factor="sensor",
    unit="times coarser than the image's own grid, interpolated",
    levels=(1.6, 2.2, 3.0, 4.0, 5.4),
    source="A lower magnification or a smaller file enlarged; after pixelate in ImageNet-C, arXiv:1903.12261.",
)
def _resolution(image: Image, level: float, rng: np.random.Generator) -> Image:
    return _resample(image, level, cv2.INTER_CUBIC)
