"""Geometry: where the cell lies and how large it is. What lies outside is filled by reflection."""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.shift.corruptions.family import CorruptionFamily, random_sign, short_side_px


def _warp_about_centre(
    image: np.ndarray,
    *,
    rotation_degrees: float = 0.0,
    zoom: float = 1.0,
    shift_px: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Rotates and enlarges about the centre, then shifts by (x, y) pixels; the frame keeps its size."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rotation_degrees, zoom)
    matrix[:, 2] += shift_px
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _rotation(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _warp_about_centre(image, rotation_degrees=random_sign(level, rng))


def _scale(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _warp_about_centre(image, zoom=2.0 ** random_sign(level, rng))


def _translation(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    length_px = level / 100 * short_side_px(image)
    return _warp_about_centre(image, shift_px=(length_px * np.cos(angle), length_px * np.sin(angle)))


def _crop(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    zoom = 1 / (1 - level / 100)
    slack_x_px, slack_y_px = (zoom - 1) * width / 2, (zoom - 1) * height / 2
    place_x, place_y = rng.uniform(-1, 1, size=2)
    return _warp_about_centre(image, zoom=zoom, shift_px=(place_x * slack_x_px, place_y * slack_y_px))


FAMILIES = (
    CorruptionFamily(
        "rotation",
        "geometry",
        "degrees, either way",
        (10, 20, 35, 60, 90),
        "Orientation on a slide is arbitrary; Engstrom et al., arXiv:1712.02779 (rotations).",
        _rotation,
    ),
    CorruptionFamily(
        "scale",
        "geometry",
        "log2 of the magnification, larger or smaller",
        (0.1, 0.2, 0.3, 0.4, 0.5),
        "Another objective or pixel pitch; Tellez et al., arXiv:1902.06543 (scaling).",
        _scale,
    ),
    CorruptionFamily(
        "translation",
        "geometry",
        "shift in any direction, % of the short side",
        (4, 8, 12, 17, 22),
        "Another cell detector; Engstrom et al., arXiv:1712.02779 (translations).",
        _translation,
    ),
    CorruptionFamily(
        "crop",
        "geometry",
        "side that is cut away, %, the rest enlarged to the frame",
        (6, 12, 20, 29, 38),
        "A tighter, off-centre cut-out; compare random crops in Szegedy et al., arXiv:1409.4842.",
        _crop,
    ),
)
