"""Geometry: the position and the size of the cell. Outside the image it is filled by reflection."""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.shift.corruptions.registry import corruption_family, random_sign, short_side_px
from bloodauto.types import Image


def _warp_about_centre(
    image: Image,
    *,
    rotation_degrees: float = 0.0,
    zoom: float = 1.0,
    shift_px: tuple[float, float] = (0.0, 0.0),
) -> Image:
    """Rotates and enlarges about the centre, then shifts by (x, y) pixels; the frame keeps its size."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rotation_degrees, zoom)
    matrix[:, 2] += shift_px
    result: Image = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return result


@corruption_family(
    "rotation",
    group="geometry",
    factor="geometry",
    unit="degrees, either way",
    levels=(10, 20, 35, 60, 90),
    source="Orientation on a slide is arbitrary; Engstrom et al., arXiv:1712.02779 (rotations).",
)
def _rotation(image: Image, level: float, rng: np.random.Generator) -> Image:
    return _warp_about_centre(image, rotation_degrees=random_sign(level, rng))


@corruption_family(
    "scale",
    group="geometry",
    factor="geometry",
    unit="log2 of the magnification, larger or smaller",
    levels=(0.1, 0.2, 0.3, 0.4, 0.5),
    source="Another objective or pixel pitch; Tellez et al., arXiv:1902.06543 (scaling).",
)
def _scale(image: Image, level: float, rng: np.random.Generator) -> Image:
    return _warp_about_centre(image, zoom=2.0 ** random_sign(level, rng))


@corruption_family(
    "translation",
    group="geometry",
    factor="geometry",
    unit="shift in any direction, % of the short side",
    levels=(4, 8, 12, 17, 22),
    source="Another cell detector; Engstrom et al., arXiv:1712.02779 (translations).",
)
def _translation(image: Image, level: float, rng: np.random.Generator) -> Image:
    angle = rng.uniform(0, 2 * np.pi)
    length_px = level / 100 * short_side_px(image)
    return _warp_about_centre(image, shift_px=(length_px * np.cos(angle), length_px * np.sin(angle)))


@corruption_family(
    "crop",
    group="geometry",
    factor="geometry",
    unit="part of each side that is cut away, %, the rest enlarged to the frame",
    levels=(6, 12, 20, 29, 38),
    source="A tighter, off-centre cut-out; compare random crops in Szegedy et al., arXiv:1409.4842.",
)
def _crop(image: Image, level: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    zoom = 1 / (1 - level / 100)
    slack_x_px, slack_y_px = (zoom - 1) * width / 2, (zoom - 1) * height / 2
    offset_x, offset_y = rng.uniform(-1, 1, size=2)
    return _warp_about_centre(image, zoom=zoom, shift_px=(offset_x * slack_x_px, offset_y * slack_y_px))
