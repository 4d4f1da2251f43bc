"""Sensor: noise and compression."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.transforms.images import PIXELS_PER_CHUNK, jpeg_round_trip, pixel_chunks
from bloodauto.transforms.registry import image_filter
from bloodauto.types import Floats, Image

_NOISE_BANK_PIXELS = 350_000
#: How far apart neighbouring pieces of an image read the bank; a prime, so that they repeat late.
_BANK_STRIDE = 122_477


class Noise(NamedTuple):
    """Noise of one image.

    Attributes:
        deviation_levels: The standard deviation in levels.
        seed: Where in the noise bank the image's noise begins.
    """

    deviation_levels: float
    seed: int


def _noises(deviation_levels: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Noise]:
    seeds = (uniforms[:, 0] * 2.0**31).astype(np.int64).tolist()
    return [Noise(deviation, seed) for deviation, seed in zip(deviation_levels.tolist(), seeds, strict=True)]


@functools.cache
def _noise_bank() -> NDArray[np.float32]:
    """Standard normal values, (1, _NOISE_BANK_PIXELS, 3); drawing new ones for each image would take longer than all else."""
    return np.random.default_rng(20011).standard_normal((1, _NOISE_BANK_PIXELS, 3), dtype=np.float32)


def _noise_of_chunk(noise: Noise, chunk: int, pixels: int) -> NDArray[np.float32]:
    """The standard normal values of the numbered piece of an image's pixels, a view (1, pixels, 3) of the bank."""
    start = (noise.seed + chunk * _BANK_STRIDE) % (_NOISE_BANK_PIXELS - PIXELS_PER_CHUNK)
    return _noise_bank()[:, start : start + pixels]


def _photons(deviation: float) -> float:
    """The photons of a white pixel whose noise has this standard deviation in levels."""
    return (255 / max(deviation, 1e-6)) ** 2


@image_filter("noise", draw=_noises, covers={"gaussian_noise": lambda deviation: deviation, "shot_noise": _photons})
def read_out_noise(image: Image, target: Image, noise: Noise) -> None:
    """Adds Gaussian noise of the same deviation everywhere, as a sensor's read-out does."""
    for number, (source, result) in enumerate(pixel_chunks(image, target)):
        field = _noise_of_chunk(noise, number, source.shape[1])
        cv2.addWeighted(source, 1.0, field, noise.deviation_levels, 0.0, dst=result, dtype=cv2.CV_8U)


_SQUARE_ROOT = np.sqrt(np.arange(256, dtype=np.float32) / 255.0)


@image_filter(
    "shot_noise",
    draw=_noises,
    covers={"shot_noise": _photons, "gaussian_noise": lambda deviation: deviation / math.sqrt(2)},
)
def shot_noise(image: Image, target: Image, noise: Noise) -> None:
    """Adds noise that grows with the square root of the light, as counted photons do; the deviation is that of white."""
    for number, (source, result) in enumerate(pixel_chunks(image, target)):
        field = cv2.LUT(source, _SQUARE_ROOT)
        cv2.multiply(field, _noise_of_chunk(noise, number, source.shape[1]), dst=field)
        cv2.addWeighted(source, 1.0, field, noise.deviation_levels, 0.0, dst=result, dtype=cv2.CV_8U)


_JPEG_MAX_SIDE = 65_500


def _qualities(loss: Floats, uniforms: Floats, height: int, width: int) -> Sequence[int]:
    """Quality lost -> quality, 100 - loss rounded; 100 stands for no compression at all."""
    qualities: list[int] = (100 - np.rint(loss).astype(np.int64)).tolist()
    return qualities


@image_filter("jpeg", draw=_qualities, covers={"jpeg": lambda quality_lost: 100 - quality_lost})
def jpeg(image: Image, target: Image, quality: int) -> None:
    """Compresses and decompresses; an image with a side that JPEG cannot hold (over 65,500 pixels) stays as it is."""
    compresses = quality < 100 and max(image.shape[:2]) <= _JPEG_MAX_SIDE
    np.copyto(target, jpeg_round_trip(image, quality) if compresses else image)
