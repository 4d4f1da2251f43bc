"""Geometric operations: affine maps from output to input pixels, made for many images at once.

Every operation takes one strength for each image, float64 (m,), and the height and width of the images in pixels, and returns
float64 (m, 3, 3). Pixel centres have integer coordinates, so the centre of an image is ((width - 1) / 2, (height - 1) / 2).
Fusing is multiplication: applying A and then B reads through ``A @ B``.
"""

from __future__ import annotations

import numpy as np

from bloodauto.transforms.registry import geometric
from bloodauto.types import Floats, Rows


def _about_centre(linear: Floats, height: int, width: int) -> Floats:
    """Linear maps (m, 2, 2) -> affine maps (m, 3, 3) that keep the centre of the image where it is."""
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    result = np.zeros((len(linear), 3, 3))
    result[:, :2, :2] = linear
    result[:, :2, 2] = centre - linear @ centre
    result[:, 2, 2] = 1.0
    return result


def _shifts(x_pixels: Floats, y_pixels: Floats) -> Floats:
    """Maps that move the content by (x, y) pixels."""
    result = np.tile(np.eye(3), (len(x_pixels), 1, 1))
    result[:, 0, 2] = -x_pixels
    result[:, 1, 2] = -y_pixels
    return result


def _percent(fraction: float) -> float:
    return 100 * fraction


@geometric("shear_x", covers={})
def shear_x(factors: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Reads x from x + factor * y, about the top left pixel as keras-cv and Pillow do."""
    result = np.tile(np.eye(3), (len(factors), 1, 1))
    result[:, 0, 1] = factors
    return result


@geometric("shear_y", covers={})
def shear_y(factors: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Reads y from y + factor * x, about the top left pixel as keras-cv and Pillow do."""
    result = np.tile(np.eye(3), (len(factors), 1, 1))
    result[:, 1, 0] = factors
    return result


@geometric("translate_x", covers={"translation": _percent})
def translate_x(fractions: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Moves the content right by a fraction of the width."""
    return _shifts(fractions * width, np.zeros(len(fractions)))


@geometric("translate_y", covers={"translation": _percent})
def translate_y(fractions: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Moves the content down by a fraction of the height."""
    return _shifts(np.zeros(len(fractions)), fractions * height)


@geometric("translate", covers={"translation": _percent})
def translate(fractions: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Moves the content by a fraction of the image's size in a direction that is drawn uniformly."""
    direction = 2 * np.pi * uniforms[:, 0]
    return _shifts(fractions * width * np.cos(direction), fractions * height * np.sin(direction))


@geometric("rotate", covers={"rotation": lambda degrees: degrees})
@geometric("rotate_any", covers={"rotation": lambda degrees: degrees})
def rotate(degrees: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Rotates the content counter-clockwise about the centre."""
    radians = np.deg2rad(degrees)
    cosine, sine = np.cos(radians), np.sin(radians)
    linear = np.empty((len(degrees), 2, 2))
    linear[:, 0, 0] = linear[:, 1, 1] = cosine
    linear[:, 0, 1] = -sine
    linear[:, 1, 0] = sine
    return _about_centre(linear, height, width)


@geometric("zoom", covers={"scale": lambda octaves: octaves, "crop": lambda octaves: 100 * (1 - 2.0**-octaves)})
def zoom(octaves: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Magnifies the content by 2 ** octaves about the centre."""
    return _about_centre(np.exp2(-octaves)[:, None, None] * np.eye(2), height, width)


@geometric("stretch", covers={})
def stretch(octaves: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Stretches by 2 ** (octaves / 2) along a direction drawn uniformly and shrinks as much across it."""
    angle = np.pi * uniforms[:, 0]
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    along = axis[:, :, None] * axis[:, None, :]
    across = np.eye(2) - along
    scale = np.exp2(octaves / 2)[:, None, None]
    return _about_centre(along / scale + across * scale, height, width)


#: The eight symmetries of the square as linear maps: quarter turns 0-3 counter-clockwise, then the same, each
#: followed by a left-right flip.
_QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])
_SYMMETRIES = np.stack(
    [np.linalg.matrix_power(_QUARTER, turns) @ flip for flip in (np.eye(2), np.diag([-1.0, 1.0])) for turns in range(4)]
)


def symmetry(index: Rows, height: int, width: int) -> Floats:
    """One of the eight symmetries of the square about the centre for each of m images.

    Args:
        index: int (m,), 0-7: quarter turns counter-clockwise, plus 4 for a left-right flip after them.
        height: The height of the images in pixels.
        width: The width of the images in pixels.

    Returns:
        float64 (m, 3, 3).
    """
    return _about_centre(_SYMMETRIES[index], height, width)


@geometric("flip_horizontal", covers={}, lossless=True)
def flip_horizontal(strengths: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Swaps left and right."""
    return symmetry(np.full(len(strengths), 4), height, width)


@geometric("flip_vertical", covers={}, lossless=True)
def flip_vertical(strengths: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Swaps top and bottom."""
    return symmetry(np.full(len(strengths), 6), height, width)


# It meets the family ``rotation`` in the one point of 90 degrees, which covers nothing.
@geometric("quarter_turn", covers={}, lossless=True)
def quarter_turn(strengths: Floats, uniforms: Floats, height: int, width: int) -> Floats:
    """Rotates by 90, 180 or 270 degrees about the centre, equally likely."""
    return symmetry(1 + (3 * uniforms[:, 0]).astype(np.int64), height, width)
