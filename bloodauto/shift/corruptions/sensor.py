"""Sensor: noise, sampling and compression."""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.shift.corruptions.family import CorruptionFamily, to_uint8


def _gaussian_noise(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return to_uint8(image + level * rng.standard_normal(image.shape, dtype=np.float32))


def _shot_noise(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    # Poisson noise of k photons has deviation sqrt(k). Its Gaussian limit costs a sixth of exact Poisson draws, and at
    # the 40 or more photons of a white pixel used here the two look alike.
    photons = image * np.float32(level / 255)
    noisy = photons + np.sqrt(photons) * rng.standard_normal(image.shape, dtype=np.float32)
    return to_uint8(noisy * np.float32(255 / level))


def _jpeg(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    # OpenCV reads channels as BGR; without the swap the luma weights of red and blue would be exchanged.
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, int(level)])[1]
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _resample(image: np.ndarray, coarser: float, enlarge: int) -> np.ndarray:
    height, width = image.shape[:2]
    small = (max(1, round(width / coarser)), max(1, round(height / coarser)))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=enlarge)


def _pixelation(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _resample(image, level, cv2.INTER_NEAREST)


def _resolution(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _resample(image, level, cv2.INTER_CUBIC)


FAMILIES = (
    CorruptionFamily(
        "gaussian_noise",
        "sensor",
        "standard deviation, grey levels of 255",
        (5, 9, 15, 23, 34),
        "ImageNet-C, arXiv:1903.12261 (Gaussian noise), weaker: a microscope camera has light enough.",
        _gaussian_noise,
    ),
    CorruptionFamily(
        "shot_noise",
        "sensor",
        "photons that make a pixel white",
        (1600, 600, 240, 100, 45),
        "ImageNet-C, arXiv:1903.12261 (shot noise), as the Gaussian limit of Poisson noise.",
        _shot_noise,
    ),
    CorruptionFamily(
        "jpeg",
        "sensor",
        "JPEG quality, 100 is best",
        (50, 30, 18, 11, 6),
        "ImageNet-C, arXiv:1903.12261 (JPEG compression); MedMNIST-C, arXiv:2406.17536.",
        _jpeg,
    ),
    CorruptionFamily(
        "pixelation",
        "sensor",
        "times coarser than the image's own grid, shown as blocks",
        (1.5, 2.0, 2.7, 3.6, 4.8),
        "ImageNet-C, arXiv:1903.12261 (pixelate); MedMNIST-C, arXiv:2406.17536.",
        _pixelation,
    ),
    CorruptionFamily(
        "resolution",
        "sensor",
        "times coarser than the image's own grid, interpolated",
        (1.6, 2.2, 3.0, 4.0, 5.4),
        "A lower magnification or a smaller file enlarged; after pixelate in ImageNet-C, arXiv:1903.12261.",
        _resolution,
    ),
)
