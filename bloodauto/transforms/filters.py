"""Operations that need neighbouring pixels, noise or a codec, one image at a time.

Each has two functions. ``draw_*`` takes the drawn strengths (m,), further uniform draws in [0, 1), float64 (m, e), and the
image's size, and returns the parameters of each image in physical units. ``apply_*`` reads an image, uint8 (height,
width, 3), and writes the result to ``target`` of the same shape; neither function keeps anything between calls.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from bloodauto.transforms.kernels import BORDER, correlate, disc_kernel, gaussian_weights, streak_kernel
from bloodauto.transforms.runs import PIXELS_PER_CHUNK, pixel_chunks

#: Lengths below this, in pixels, blur by less than a rounding step.
_NO_BLUR_PIXELS = 0.05


class Streak(NamedTuple):
    """Motion blur: how far and in which direction (0 is along x)."""

    length_pixels: float
    angle_radians: float


class Noise(NamedTuple):
    """Noise: its standard deviation, and which stretch of the noise source is used."""

    deviation_levels: float
    seed: int


class Rectangle(NamedTuple):
    """A part of an image: rows top..bottom-1, columns left..right-1."""

    top: int
    bottom: int
    left: int
    right: int


class Grid(NamedTuple):
    """A grid of square holes."""

    period_pixels: int
    hole_pixels: int
    x_offset: int
    y_offset: int


def draw_relative_length(percent: np.ndarray, extra: np.ndarray, height: int, width: int) -> Sequence[float]:
    """Percent of the shorter side -> pixels."""
    return (percent * (min(height, width) / 100.0)).tolist()


def apply_gaussian_blur(image: np.ndarray, target: np.ndarray, deviation_pixels: float) -> None:
    """Gaussian blur, cut off at three standard deviations."""
    if deviation_pixels < _NO_BLUR_PIXELS:
        np.copyto(target, image)
        return
    # Float kernels: OpenCV's exact integer Gaussian takes three times as long.
    weights = gaussian_weights(deviation_pixels)
    cv2.sepFilter2D(image, -1, weights, weights, dst=target, borderType=BORDER)


def apply_defocus_blur(image: np.ndarray, target: np.ndarray, radius_pixels: float) -> None:
    """Blur by a disc, as a lens out of focus does."""
    if radius_pixels < _NO_BLUR_PIXELS:
        np.copyto(target, image)
        return
    correlate(image, target, disc_kernel(radius_pixels))


def draw_motion_blur(percent: np.ndarray, extra: np.ndarray, height: int, width: int) -> Sequence[Streak]:
    """Length in percent of the shorter side; the direction is drawn evenly from all."""
    lengths = draw_relative_length(percent, extra, height, width)
    return [Streak(length, np.pi * turn) for length, turn in zip(lengths, extra[:, 0].tolist(), strict=True)]


def apply_motion_blur(image: np.ndarray, target: np.ndarray, streak: Streak) -> None:
    """Blur along a straight line, as a stage that moves does."""
    if streak.length_pixels < _NO_BLUR_PIXELS:
        np.copyto(target, image)
        return
    correlate(image, target, streak_kernel(*streak))


_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float64) / 13.0
_KEEP = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float64)


def draw_sharpness(change: np.ndarray, extra: np.ndarray, height: int, width: int) -> Sequence[np.ndarray]:
    """Kernels, float32 (3, 3): the factor 1 + change away from the smoothed image."""
    return list((_SMOOTH + (1.0 + change)[:, None, None] * (_KEEP - _SMOOTH)).astype(np.float32))


def apply_kernel(image: np.ndarray, target: np.ndarray, kernel: np.ndarray) -> None:
    """Correlates every channel with a kernel."""
    cv2.filter2D(image, -1, kernel, dst=target, borderType=BORDER)


def draw_noise(deviation_levels: np.ndarray, extra: np.ndarray, height: int, width: int) -> Sequence[Noise]:
    """Standard deviation in levels, and a seed."""
    seeds = (extra[:, 0] * 2.0**31).astype(np.int64).tolist()
    return [Noise(deviation, seed) for deviation, seed in zip(deviation_levels.tolist(), seeds, strict=True)]


_NOISE_BANK_PIXELS = 350_000
#: How far apart neighbouring runs of an image's pixels read the bank; a prime, so that they come round late.
_BANK_STRIDE = 122_477


@functools.cache
def _noise_bank() -> np.ndarray:
    """Standard normal float32 values; drawing them afresh for each image would take longer than all other work."""
    return np.random.default_rng(20011).standard_normal((1, _NOISE_BANK_PIXELS, 3), dtype=np.float32)


def _noise_of_chunk(noise: Noise, chunk: int, pixels: int) -> np.ndarray:
    """The standard normal values of the numbered run of an image's pixels, a view (1, pixels, 3) of the bank."""
    start = (noise.seed + chunk * _BANK_STRIDE) % (_NOISE_BANK_PIXELS - PIXELS_PER_CHUNK)
    return _noise_bank()[:, start : start + pixels]


def apply_noise(image: np.ndarray, target: np.ndarray, noise: Noise) -> None:
    """Adds Gaussian noise, alike everywhere, as a sensor's read-out does."""
    for number, (source, result) in enumerate(pixel_chunks(image, target)):
        field = _noise_of_chunk(noise, number, source.shape[1])
        cv2.addWeighted(source, 1.0, field, noise.deviation_levels, 0.0, dst=result, dtype=cv2.CV_8U)


_SQUARE_ROOT = np.sqrt(np.arange(256, dtype=np.float32) / 255.0)


def apply_shot_noise(image: np.ndarray, target: np.ndarray, noise: Noise) -> None:
    """Adds noise that grows with the square root of the light, as counted photons do; the deviation is that of white."""
    for number, (source, result) in enumerate(pixel_chunks(image, target)):
        field = cv2.LUT(source, _SQUARE_ROOT)
        cv2.multiply(field, _noise_of_chunk(noise, number, source.shape[1]), dst=field)
        cv2.addWeighted(source, 1.0, field, noise.deviation_levels, 0.0, dst=result, dtype=cv2.CV_8U)


def draw_jpeg(loss: np.ndarray, extra: np.ndarray, height: int, width: int) -> Sequence[int]:
    """Quality lost -> quality, 100 - loss rounded; 100 stands for not compressing at all."""
    return (100 - np.rint(loss).astype(np.int64)).tolist()


_JPEG_MAX_SIDE = 65_500


def apply_jpeg(image: np.ndarray, target: np.ndarray, quality: int) -> None:
    """Compresses and decompresses; an image with a side JPEG cannot hold (over 65,500 pixels) is left alone."""
    if quality >= 100 or max(image.shape[:2]) > _JPEG_MAX_SIDE:
        np.copyto(target, image)
        return
    # JPEG's luminance weighs red and blue differently, so the channels must be in the order OpenCV expects.
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB, dst=target)


def draw_cutout(fraction: np.ndarray, extra: np.ndarray, height: int, width: int) -> Sequence[Rectangle]:
    """A square with ``share`` of the shorter side, its middle anywhere in the image, clipped at the edges."""
    side = fraction * min(height, width)
    top = np.rint(extra[:, 0] * height - side / 2).astype(np.int64)
    left = np.rint(extra[:, 1] * width - side / 2).astype(np.int64)
    length = np.rint(side).astype(np.int64)
    edges = np.stack(
        [np.maximum(top, 0), np.minimum(top + length, height), np.maximum(left, 0), np.minimum(left + length, width)],
        axis=1,
    )
    return [Rectangle(*row) for row in edges.tolist()]


def _mean_colour(image: np.ndarray) -> np.ndarray:
    return np.rint(cv2.mean(image)[:3]).astype(np.uint8)


def apply_cutout(image: np.ndarray, target: np.ndarray, hole: Rectangle) -> None:
    """Paints a rectangle in the image's mean colour."""
    np.copyto(target, image)
    target[hole.top : hole.bottom, hole.left : hole.right] = _mean_colour(image)


def draw_grid_mask(fraction: np.ndarray, extra: np.ndarray, height: int, width: int) -> Sequence[Grid]:
    """A period drawn evenly from an eighth to a third of the shorter side; holes of ``share`` of the period a side."""
    period = np.maximum(2, np.rint(min(height, width) * (1 / 8 + extra[:, 0] * (1 / 3 - 1 / 8)))).astype(np.int64)
    holes = np.rint(fraction * period).astype(np.int64)
    offsets = (extra[:, 1:3] * period[:, None]).astype(np.int64)
    return [Grid(*row) for row in np.concatenate([period[:, None], holes[:, None], offsets], axis=1).tolist()]


def apply_grid_mask(image: np.ndarray, target: np.ndarray, grid: Grid) -> None:
    """Paints a grid of square holes in the image's mean colour."""
    np.copyto(target, image)
    if grid.hole_pixels == 0:
        return
    height, width = image.shape[:2]
    rows = (np.arange(height) + grid.y_offset) % grid.period_pixels < grid.hole_pixels
    columns = (np.arange(width) + grid.x_offset) % grid.period_pixels < grid.hole_pixels
    target[rows[:, None] & columns[None, :]] = _mean_colour(image)
