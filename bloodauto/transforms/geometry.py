"""Geometric operations as affine maps from output to input pixels, made for many images at once.

Every function takes one drawn strength per image, float64 (m,), and the image's height and width in pixels, and returns
float64 (m, 3, 3). Pixel centres have integer coordinates, so the middle of an image is at ((width - 1) / 2, (height -
1) / 2). Fusing is multiplication: applying A and then B reads through ``A @ B``.
"""

from __future__ import annotations

import numpy as np


def _centred(linear: np.ndarray, height: int, width: int) -> np.ndarray:
    """Linear maps (m, 2, 2) -> affine maps (m, 3, 3) that leave the middle of the image where it is."""
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    result = np.zeros((len(linear), 3, 3))
    result[:, :2, :2] = linear
    result[:, :2, 2] = middle - linear @ middle
    result[:, 2, 2] = 1.0
    return result


def _shifted(x_pixels: np.ndarray, y_pixels: np.ndarray) -> np.ndarray:
    """Maps that move the content by (x, y) pixels."""
    result = np.tile(np.eye(3), (len(x_pixels), 1, 1))
    result[:, 0, 2] = -x_pixels
    result[:, 1, 2] = -y_pixels
    return result


def shear_x(factor: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """x is read from x + factor * y, about the top left pixel as keras-cv and Pillow do."""
    result = np.tile(np.eye(3), (len(factor), 1, 1))
    result[:, 0, 1] = factor
    return result


def shear_y(factor: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """y is read from y + factor * x, about the top left pixel as keras-cv and Pillow do."""
    result = np.tile(np.eye(3), (len(factor), 1, 1))
    result[:, 1, 0] = factor
    return result


def translate_x(fraction: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """Moves the content right by a fraction of the width."""
    return _shifted(fraction * width, np.zeros(len(fraction)))


def translate_y(fraction: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """Moves the content down by a fraction of the height."""
    return _shifted(np.zeros(len(fraction)), fraction * height)


def translate(fraction: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """Moves the content by a fraction of the image's size, in a direction drawn evenly from all."""
    direction = 2 * np.pi * extra[:, 0]
    return _shifted(fraction * width * np.cos(direction), fraction * height * np.sin(direction))


def rotate(degrees: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """Turns the content counter-clockwise about the middle."""
    radians = np.deg2rad(degrees)
    cosine, sine = np.cos(radians), np.sin(radians)
    linear = np.empty((len(degrees), 2, 2))
    linear[:, 0, 0] = linear[:, 1, 1] = cosine
    linear[:, 0, 1] = -sine
    linear[:, 1, 0] = sine
    return _centred(linear, height, width)


def zoom(octaves: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarges the content by 2 ** octaves about the middle."""
    return _centred(np.exp2(-octaves)[:, None, None] * np.eye(2), height, width)


def stretch(octaves: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stretches by 2 ** (octaves / 2) along a direction drawn evenly and shrinks as much across it: area is kept."""
    angle = np.pi * extra[:, 0]
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    along = axis[:, :, None] * axis[:, None, :]
    across = np.eye(2) - along
    scale = np.exp2(octaves / 2)[:, None, None]
    return _centred(along / scale + across * scale, height, width)


#: The eight symmetries of the square as linear maps: quarter turns 0-3 counter-clockwise, then the same, each
#: followed by a left-right flip.
_QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])
_SYMMETRIES = np.stack(
    [np.linalg.matrix_power(_QUARTER, turns) @ flip for flip in (np.eye(2), np.diag([-1.0, 1.0])) for turns in range(4)]
)


def symmetry(index: np.ndarray, height: int, width: int) -> np.ndarray:
    """One of the eight symmetries of the square about the middle; ``index`` int (m,) in 0..7."""
    return _centred(_SYMMETRIES[index], height, width)


def flip_horizontal(strength: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """Left becomes right."""
    return symmetry(np.full(len(strength), 4), height, width)


def flip_vertical(strength: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """Top becomes bottom."""
    return symmetry(np.full(len(strength), 6), height, width)


def quarter_turn(strength: np.ndarray, extra: np.ndarray, height: int, width: int) -> np.ndarray:
    """A turn by 90, 180 or 270 degrees about the middle, drawn evenly."""
    return symmetry(1 + (3 * extra[:, 0]).astype(np.int64), height, width)
