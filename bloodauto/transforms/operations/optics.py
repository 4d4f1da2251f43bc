"""Optics: blur and sharpness. Kernels are float32, odd in size and sum to one."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.transforms.registry import image_filter
from bloodauto.types import Floats, Image

_BORDER = cv2.BORDER_REFLECT

#: Lengths below this, in pixels, blur by less than a rounding step.
_NO_BLUR_PIXELS = 0.05

#: OpenCV applies kernels of more values than this through a Fourier transform, which for thin ones takes ten times as long.
_MAX_DIRECT_VALUES = 129
#: The quarters of kernels that are larger than this exceed that number as well.
_MAX_QUARTERED_SIZE = 21
#: Parts of a level that are kept while the quarters of a kernel are added up.
_SUBLEVELS = 64.0

#: A Gaussian blur of deviation s looks like a disc of radius 2 s (equal second moments) and a box of width sqrt(12) s.
_DISC_OVER_DEVIATION = 2.0
#: Pixels in a hundredth of the side of a usual image of a cell, whose pixel grid the sensor's families refer to.
_PIXELS_PER_PERCENT = 0.96


@functools.cache
def _offsets(reach: int) -> tuple[Floats, Floats, Floats]:
    """Distances of a kernel's positions from its centre, along x, along y and in all; float64 (2 * reach + 1,) squared."""
    along = np.arange(-reach, reach + 1, dtype=np.float64)
    x, y = np.meshgrid(along, along)
    return x, y, np.hypot(x, y)


def _clipped(values: Floats, maximum: float = 1.0) -> Floats:
    return np.minimum(np.maximum(values, 0.0), maximum)


def _normalized(weights: Floats) -> NDArray[np.float32]:
    normalized: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return normalized


def gaussian_weights(deviation_pixels: float) -> NDArray[np.float32]:
    """A Gaussian along one axis, cut off at three standard deviations; (k,)."""
    reach = max(1, math.ceil(3.0 * deviation_pixels))
    return _normalized(np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation_pixels, 0.05)) ** 2))


def disc_kernel(radius_pixels: float) -> NDArray[np.float32]:
    """A disc with a soft rim of one pixel; (k, k)."""
    reach = max(1, math.ceil(radius_pixels))
    distance = _offsets(reach)[2]
    # The centre always counts, and the rim grows from nothing: no jump as the radius grows from zero.
    disc = _clipped(radius_pixels + 0.5 - distance, min(1.0, radius_pixels + 0.5))
    if radius_pixels < 0.5:
        disc[distance > 0] *= 2.0 * radius_pixels
    return _normalized(disc)


def streak_kernel(length_pixels: float, angle_radians: float) -> NDArray[np.float32]:
    """A straight line with soft ends and sides; 0 radians is along x; (k, k)."""
    reach = max(1, math.ceil(length_pixels / 2))
    x, y, distance = _offsets(reach)
    cosine, sine = math.cos(angle_radians), math.sin(angle_radians)
    along, across = np.abs(x * cosine + y * sine), np.abs(x * sine - y * cosine)
    line = _clipped(length_pixels / 2 + 0.5 - along) * _clipped(1.0 - across)
    if length_pixels < 1.0:
        line[distance > 0] *= length_pixels
    return _normalized(line)


def _quarters(kernel: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], tuple[int, int]]]:
    """A kernel in four parts, each with the position (x, y) of the kernel's centre in it; parts without weight are omitted.

    They share the centre's row and column, which count in the first part only.
    """
    centre = len(kernel) // 2
    parts = []
    for rows, y in ((slice(0, centre + 1), centre), (slice(centre, None), 0)):
        for columns, x in ((slice(0, centre + 1), centre), (slice(centre, None), 0)):
            part = kernel[rows, columns].copy()
            if y == 0:
                part[0] = 0.0
            if x == 0:
                part[:, 0] = 0.0
            if part.any():
                parts.append((part, (x, y)))
    return parts


def correlate(image: Image, target: Image, kernel: NDArray[np.float32]) -> None:
    """Correlates every channel of an image with a kernel (k, k); rounds once.

    Args:
        image: uint8 (height, width, 3).
        target: What is written, as ``image``.
        kernel: float32 (k, k), k odd.
    """
    if kernel.size <= _MAX_DIRECT_VALUES or len(kernel) > _MAX_QUARTERED_SIZE:
        cv2.filter2D(image, -1, kernel, dst=target, borderType=_BORDER)
        return
    total: NDArray[np.int16] | None = None
    for part, anchor in _quarters(kernel * np.float32(_SUBLEVELS)):
        levels = cv2.filter2D(image, cv2.CV_16S, part, anchor=anchor, borderType=_BORDER)
        total = levels if total is None else cv2.add(total, levels, dst=total)
    cv2.convertScaleAbs(total, dst=target, alpha=1.0 / _SUBLEVELS)


def _lengths(percent: Floats, uniforms: Floats, height: int, width: int) -> Sequence[float]:
    """Percent of the shorter side -> pixels."""
    lengths: list[float] = (percent * (min(height, width) / 100.0)).tolist()
    return lengths


@image_filter(
    "gaussian_blur",
    draw=_lengths,
    covers={
        "defocus": lambda deviation: _DISC_OVER_DEVIATION * deviation,
        "resolution": lambda deviation: math.sqrt(12) * _PIXELS_PER_PERCENT * deviation,
    },
)
def gaussian_blur(image: Image, target: Image, deviation_pixels: float) -> None:
    """Blurs with a Gaussian that is cut off at three standard deviations."""
    if deviation_pixels < _NO_BLUR_PIXELS:
        np.copyto(target, image)
        return
    # Float kernels: OpenCV's exact integer Gaussian takes three times as long.
    weights = gaussian_weights(deviation_pixels)
    cv2.sepFilter2D(image, -1, weights, weights, dst=target, borderType=_BORDER)


@image_filter(
    "defocus_blur",
    draw=_lengths,
    covers={
        "defocus": lambda radius: radius,
        "resolution": lambda radius: math.sqrt(3) * _PIXELS_PER_PERCENT * radius,
    },
)
def defocus_blur(image: Image, target: Image, radius_pixels: float) -> None:
    """Blurs with a disc, as a lens that is out of focus does."""
    if radius_pixels < _NO_BLUR_PIXELS:
        np.copyto(target, image)
        return
    correlate(image, target, disc_kernel(radius_pixels))


class Streak(NamedTuple):
    """A motion blur.

    Attributes:
        length_pixels: How far the stage moved.
        angle_radians: In which direction; 0 is along x.
    """

    length_pixels: float
    angle_radians: float


def _streaks(percent: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Streak]:
    """Lengths in percent of the shorter side -> streaks in directions that are drawn uniformly."""
    lengths = _lengths(percent, uniforms, height, width)
    return [Streak(length, np.pi * turn) for length, turn in zip(lengths, uniforms[:, 0].tolist(), strict=True)]


@image_filter("motion_blur", draw=_streaks, covers={"motion": lambda length: length})
def motion_blur(image: Image, target: Image, streak: Streak) -> None:
    """Blurs along a straight line, as a moving stage does."""
    if streak.length_pixels < _NO_BLUR_PIXELS:
        np.copyto(target, image)
        return
    correlate(image, target, streak_kernel(*streak))


_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float64) / 13.0
_KEEP = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float64)


def _sharpening_kernels(change: Floats, uniforms: Floats, height: int, width: int) -> Sequence[NDArray[np.float32]]:
    """Kernels, float32 (3, 3), that scale the distance from the smoothed image by 1 + change."""
    return list((_SMOOTH + (1.0 + change)[:, None, None] * (_KEEP - _SMOOTH)).astype(np.float32))


@image_filter("sharpness", draw=_sharpening_kernels, covers={})
def sharpness(image: Image, target: Image, kernel: NDArray[np.float32]) -> None:
    """Scales the distance from a smoothed image, as Pillow's sharpness does."""
    cv2.filter2D(image, -1, kernel, dst=target, borderType=_BORDER)
