"""Blur kernels, and correlating an image with one. All are float32, odd in size and sum to one."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

BORDER = cv2.BORDER_REFLECT

#: Kernels of more values than this OpenCV applies through a Fourier transform, which for thin ones takes ten times as long.
_MAX_DIRECT_VALUES = 129
#: The quarters of larger kernels than this are too large as well.
_MAX_QUARTERED_SIZE = 21
#: Levels are kept in this many parts while the quarters of a kernel are added up.
_SUBLEVELS = 64.0


@functools.cache
def _offsets(reach: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each place of a kernel from its middle: along x, along y, and the distance; float64 (2 * reach + 1,) squared."""
    along = np.arange(-reach, reach + 1, dtype=np.float64)
    x, y = np.meshgrid(along, along)
    return x, y, np.hypot(x, y)


def _clipped(values: np.ndarray, most: float = 1.0) -> np.ndarray:
    return np.minimum(np.maximum(values, 0.0), most)


def _normalised(weights: np.ndarray) -> np.ndarray:
    return (weights / weights.sum()).astype(np.float32)


def gaussian_weights(deviation_pixels: float) -> np.ndarray:
    """A Gaussian along one axis, cut off at three standard deviations; (k,)."""
    reach = max(1, math.ceil(3.0 * deviation_pixels))
    return _normalised(np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation_pixels, 0.05)) ** 2))


def gaussian_kernel(deviation_pixels: float) -> np.ndarray:
    """A Gaussian cut off at three standard deviations; (k, k)."""
    weights = gaussian_weights(deviation_pixels)
    return np.outer(weights, weights)


def disc_kernel(radius_pixels: float) -> np.ndarray:
    """A disc with a soft rim of one pixel; (k, k)."""
    reach = max(1, math.ceil(radius_pixels))
    distance = _offsets(reach)[2]
    # The middle always counts, and the rim grows from nothing: no jump as the radius grows from zero.
    disc = _clipped(radius_pixels + 0.5 - distance, min(1.0, radius_pixels + 0.5))
    if radius_pixels < 0.5:
        disc[distance > 0] *= 2.0 * radius_pixels
    return _normalised(disc)


def streak_kernel(length_pixels: float, angle_radians: float) -> np.ndarray:
    """A straight line with soft ends and sides, 0 radians being along x; (k, k)."""
    reach = max(1, math.ceil(length_pixels / 2))
    x, y, distance = _offsets(reach)
    cosine, sine = math.cos(angle_radians), math.sin(angle_radians)
    along, across = np.abs(x * cosine + y * sine), np.abs(x * sine - y * cosine)
    line = _clipped(length_pixels / 2 + 0.5 - along) * _clipped(1.0 - across)
    if length_pixels < 1.0:
        line[distance > 0] *= length_pixels
    return _normalised(line)


def _quarters(kernel: np.ndarray) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Four parts that share the middle's row and column, which count in the first only, and where the middle is in each.

    Parts without any weight are left out.
    """
    middle = len(kernel) // 2
    parts = []
    for rows, y in ((slice(0, middle + 1), middle), (slice(middle, None), 0)):
        for columns, x in ((slice(0, middle + 1), middle), (slice(middle, None), 0)):
            part = kernel[rows, columns].copy()
            if y == 0:
                part[0] = 0.0
            if x == 0:
                part[:, 0] = 0.0
            if part.any():
                parts.append((part, (x, y)))
    return parts


def correlate(image: np.ndarray, target: np.ndarray, kernel: np.ndarray) -> None:
    """Correlates every channel of an image, uint8 (height, width, 3), with a kernel (k, k); rounds once."""
    if kernel.size <= _MAX_DIRECT_VALUES or len(kernel) > _MAX_QUARTERED_SIZE:
        cv2.filter2D(image, -1, kernel, dst=target, borderType=BORDER)
        return
    total: np.ndarray | None = None
    for part, anchor in _quarters(kernel * np.float32(_SUBLEVELS)):
        levels = cv2.filter2D(image, cv2.CV_16S, part, anchor=anchor, borderType=BORDER)
        total = levels if total is None else cv2.add(total, levels, dst=total)
    cv2.convertScaleAbs(total, dst=target, alpha=1.0 / _SUBLEVELS)
