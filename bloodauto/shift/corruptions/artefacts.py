"""Artefacts: objects on the slide beside the cell. Shapes are drawn as soft masks and blended once."""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.shift.corruptions.registry import corruption_family, short_side_px, to_uint8
from bloodauto.types import Floats, Image

#: Precipitated Romanowsky dye: nearly black violet.
DEPOSIT_RGB = np.array([52, 26, 78], dtype=np.float32)
#: The smallest and the largest radius of a granule, % of the short side; small ones are more frequent.
GRANULE_RADIUS_PERCENT = (0.6, 3.6)
#: Granules are a pixel or two wide; drawn this many times larger and averaged down they are round.
_SUPERSAMPLING = 4
#: Fractional bits of OpenCV's drawing coordinates: shapes move by parts of a pixel, as on a real slide.
_SUBPIXEL_BITS = 4


def _fixed_point(*values: float) -> tuple[int, ...]:
    return tuple(round(float(value) * (1 << _SUBPIXEL_BITS)) for value in values)


def _blend(image: Image, colour: Floats, mask: Floats) -> Image:
    """Moves each pixel towards ``colour`` by ``mask``, float32 (h, w), 0-1."""
    return to_uint8(image + (colour - image) * mask[:, :, None])


def _centre(image: Image, rng: np.random.Generator) -> tuple[float, float]:
    height, width = image.shape[:2]
    across, down = rng.random(2)
    return across * width, down * height


@corruption_family(
    "stain_deposit",
    group="artefacts",
    factor="artefacts",
    unit="area covered by granules, overlaps counted twice, %",
    levels=(1.5, 3, 5.5, 9, 14),
    source="MedMNIST-C, arXiv:2406.17536 (stain deposit), as many small granules instead of a few blots.",
)
def _stain_deposit(image: Image, level: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    smallest, largest = GRANULE_RADIUS_PERCENT
    spread = largest - smallest
    # The mean of (smallest + spread * u**2)**2 over uniform u, times pi: a granule's mean area, % x % of the side.
    mean_area = np.pi * (smallest**2 + 2 / 3 * smallest * spread + spread**2 / 5)
    count = round(level * 100 * height * width / (mean_area * short_side_px(image) ** 2))
    # One row per granule: a harsher level keeps the granules of a milder one and adds more.
    granules = rng.random((max(1, count), 3))
    granules[:, :2] *= (width, height)
    granules[:, 2] = (smallest + spread * granules[:, 2] ** 2) / 100 * short_side_px(image)
    mask = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    for x, y, radius in np.rint(granules * _SUPERSAMPLING).astype(int).tolist():
        cv2.circle(mask, (x, y), max(radius, 1), 255, cv2.FILLED)
    soft_mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return _blend(image, DEPOSIT_RGB, soft_mask * np.float32(0.92 / 255))


@corruption_family(
    "bubble",
    group="artefacts",
    factor="artefacts",
    unit="diameter, % of the short side",
    levels=(20, 32, 45, 60, 80),
    source="MedMNIST-C, arXiv:2406.17536 (bubble), drawn with a refracting rim instead of from pictures.",
)
def _bubble(image: Image, level: float, rng: np.random.Generator) -> Image:
    side = short_side_px(image)
    radius = level / 100 * side / 2
    centre_x, centre_y = _centre(image, rng)
    height, width = image.shape[:2]
    distance = np.hypot(
        np.arange(width, dtype=np.float32)[None, :] - np.float32(centre_x),
        np.arange(height, dtype=np.float32)[:, None] - np.float32(centre_y),
    )
    rim_width = np.float32(max(0.02 * side, 0.5))
    inside = np.clip((radius - distance) / rim_width + 0.5, 0, 1)
    rim = np.exp(-(((distance - radius) / rim_width) ** 2))
    # Air instead of mounting medium: the light inside is diffuse and out of focus, the edge refracts it away.
    blurred = cv2.blur(image, (2 * max(1, round(0.015 * side)) + 1,) * 2, borderType=cv2.BORDER_REFLECT_101)
    hazy = 255 - (255 - blurred.astype(np.float32)) * np.float32(0.72)
    bright = image + (hazy - image) * inside[:, :, None]
    return to_uint8(bright * (1 - np.float32(0.6) * rim)[:, :, None])


@corruption_family(
    "crease",
    group="artefacts",
    factor="artefacts",
    unit="width of the fold, % of the short side",
    levels=(4, 8, 14, 21, 32),
    source="Folds in whole slides; Schoemig-Markiefka et al. 2021, doi:10.1038/s41379-021-00859-x.",
)
def _crease(image: Image, level: float, rng: np.random.Generator) -> Image:
    side = short_side_px(image)
    centre_x, centre_y = _centre(image, rng)
    angle = rng.uniform(0, np.pi)
    height, width = image.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(centre_x)
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(centre_y)
    across = np.abs(x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))
    half_width = np.float32(level / 100 * side / 2)
    soft = np.float32(max(0.01 * side, 0.5))
    fold = np.clip((half_width - across) / soft + 0.5, 0, 1)
    edge = np.exp(-(((across - half_width) / soft) ** 2))
    # Two layers absorb twice: inside the fold the light passes the second layer as well.
    single = image.astype(np.float32) / 255
    doubled = single * (1 + (single * np.float32(0.9) - 1) * fold[:, :, None])
    return to_uint8(255 * doubled * (1 - np.float32(0.35) * edge)[:, :, None])


@corruption_family(
    "occlusion",
    group="artefacts",
    factor="artefacts",
    unit="area of an opaque speck, a part of which may lie outside the image, %",
    levels=(3, 6, 10, 15, 24),
    source="Dirt or pen on the cover slip; compare cutout, arXiv:1708.04552, with an ellipse instead of a square.",
)
def _occlusion(image: Image, level: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    centre_x, centre_y = _centre(image, rng)
    elongation = rng.uniform(1.0, 2.2)
    angle_degrees = rng.uniform(0, 180)
    colour = np.full(3, rng.uniform(10, 90), dtype=np.float32) + rng.uniform(-10, 10, 3).astype(np.float32)
    mean_radius = np.sqrt(level / 100 * height * width / np.pi)
    axes = (mean_radius * np.sqrt(elongation), mean_radius / np.sqrt(elongation))
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(
        mask,
        _fixed_point(centre_x, centre_y),
        _fixed_point(*axes),
        angle_degrees,
        0,
        360,
        255,
        cv2.FILLED,
        cv2.LINE_AA,
        _SUBPIXEL_BITS,
    )
    return _blend(image, colour, mask * np.float32(1 / 255))
