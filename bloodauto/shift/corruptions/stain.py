"""Stain: how much of each dye the cells took up, its hue, and the colour of the empty slide.

By Beer and Lambert the dyes' optical densities add, so every change is a 3 x 3 matrix in optical-density space. Blood
smears are stained after Romanowsky (azure B or methylene blue, and eosin Y), not with haematoxylin and eosin as tissue
is; the basis is therefore the Giemsa pair of the colour-deconvolution literature.
"""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.shift.corruptions.registry import corruption_family, map_levels, random_sign
from bloodauto.transforms.physics import EOSIN_DENSITY, METHYLENE_BLUE_DENSITY
from bloodauto.types import Floats, Image

#: Optical density in red, green and blue per unit of dye, float64 (3, 3). Rows: methylene blue, eosin, and their cross product,
#: for the part that neither explains.
GIEMSA_BASIS = np.array([METHYLENE_BLUE_DENSITY, EOSIN_DENSITY, [0.0, 0.0, 0.0]])
GIEMSA_BASIS[2] = np.cross(GIEMSA_BASIS[0], GIEMSA_BASIS[1])
GIEMSA_BASIS /= np.linalg.norm(GIEMSA_BASIS, axis=1, keepdims=True)
_TO_DYES = np.linalg.inv(GIEMSA_BASIS)

#: Natural optical density of each grey level; level 0 counts as 1, else its density would be infinite.
DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
#: Pixels along each side that the empty slide's colour is taken from: enough for a percentile at a tenth of the cost.
_WHITE_SAMPLES_PER_SIDE = 32


def dye_matrix(factors: tuple[float, float]) -> Floats:
    """The matrix, float64 (3, 3), that multiplies the amounts of (methylene blue, eosin) in a row of densities."""
    matrix: Floats = _TO_DYES @ np.diag([*factors, 1.0]) @ GIEMSA_BASIS
    return matrix


def hue_matrix(angle_degrees: float) -> Floats:
    """The matrix, float64 (3, 3), that turns densities about the grey axis: hue moves, mean density stays."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(angle_degrees)
    matrix: Floats = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return matrix


def empty_slide_density(image: Image) -> Floats:
    """Optical density of the brightest twentieth of each channel, float32 (3,): plasma, glass and lamp, not dye."""
    rows, columns = (max(1, side // _WHITE_SAMPLES_PER_SIDE) for side in image.shape[:2])
    return DENSITY[np.percentile(image[::rows, ::columns].reshape(-1, 3), 95, axis=0).astype(np.uint8)]


def change_stain(image: Image, matrix: Floats) -> Image:
    """Applies a density matrix to an image, relative to the empty slide, which keeps its colour.

    Args:
        image: uint8 (height, width, 3).
        matrix: float64 (3, 3), by which a row of densities is multiplied.

    Returns:
        uint8 (height, width, 3), a new array.
    """
    white = empty_slide_density(image)
    # densities @ M + (white - white @ M), as one affine map of column vectors.
    affine = np.column_stack([matrix.T, white - white @ matrix])
    return from_density(cv2.transform(cv2.LUT(image, DENSITY), affine))


def from_density(density: Floats) -> Image:
    """Natural optical densities, float32 (height, width, 3) -> levels, uint8."""
    result: Image = cv2.convertScaleAbs(cv2.exp(-density), alpha=255)
    return result


@corruption_family(
    "blue_stain_intensity",
    group="stain",
    factor="stain_intensity",
    unit="log2 of the amount of azure/methylene blue, more or less",
    levels=(0.25, 0.45, 0.7, 1.0, 1.4),
    source="Ruifrok and Johnston 2001 (colour deconvolution), Tellez et al., arXiv:1902.06543; Giemsa basis.",
)
def _blue_intensity(image: Image, level: float, rng: np.random.Generator) -> Image:
    return change_stain(image, dye_matrix((2.0 ** random_sign(level, rng), 1.0)))


@corruption_family(
    "eosin_intensity",
    group="stain",
    factor="stain_intensity",
    unit="log2 of the amount of eosin, more or less",
    levels=(0.25, 0.45, 0.7, 1.0, 1.4),
    source="Ruifrok and Johnston 2001 (colour deconvolution), Tellez et al., arXiv:1902.06543; Giemsa basis.",
)
def _eosin_intensity(image: Image, level: float, rng: np.random.Generator) -> Image:
    return change_stain(image, dye_matrix((1.0, 2.0 ** random_sign(level, rng))))


@corruption_family(
    "staining_time",
    group="stain",
    factor="stain_intensity",
    unit="log2 of the amount of all dyes, more or less",
    levels=(0.25, 0.45, 0.7, 1.0, 1.4),
    source="Macenko et al. 2009, doi:10.1109/ISBI.2009.5193250 (densities add); one factor for the whole stain.",
)
def _staining_time(image: Image, level: float, rng: np.random.Generator) -> Image:
    factor = 2.0 ** random_sign(level, rng)
    return change_stain(image, factor * np.eye(3))


@corruption_family(
    "stain_hue",
    group="stain",
    factor="stain_hue",
    unit="degrees about the grey axis of density space, either way",
    levels=(6, 12, 20, 30, 42),
    source="Tellez et al., arXiv:1902.06543 (hue), moved from HSV into optical-density space.",
)
def _stain_hue(image: Image, level: float, rng: np.random.Generator) -> Image:
    return change_stain(image, hue_matrix(random_sign(level, rng)))


@corruption_family(
    "background_colour",
    group="stain",
    factor="stain_hue",
    unit="natural optical density added in the tint's strongest channel",
    levels=(0.06, 0.12, 0.2, 0.3, 0.45),
    source="Plasma, buffer and mounting medium absorb too; added density as in Tellez et al., arXiv:1902.06543.",
)
def _background_colour(image: Image, level: float, rng: np.random.Generator) -> Image:
    tint = rng.random(3)
    tint = (tint - tint.min()) / max(float(np.ptp(tint)), 1e-6)
    return map_levels(image, np.arange(256)[:, None, None] * np.exp(-level * tint))
