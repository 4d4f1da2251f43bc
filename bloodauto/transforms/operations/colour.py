"""Colour and stain: operations that mix the channels of a pixel, by a 3x4 matrix in levels or in optical density.

Light that passes a stain is weakened exponentially, so stains add up in optical density, ``-ln(transmitted fraction)``
(Beer-Lambert; Ruifrok and Johnston 2001, PMID 11531144). There every pixel is a sum of stain vectors, and a change of how
much of each stain the cells took up is a 3x3 matrix.
"""

from __future__ import annotations

import math

import numpy as np

from bloodauto.transforms.physics import EOSIN_DENSITY, METHYLENE_BLUE_DENSITY
from bloodauto.transforms.registry import channel_mix
from bloodauto.types import Floats

#: Grey from RGB by the weights of ITU-R BT.601, which TensorFlow and keras-cv use.
GREY_WEIGHTS = np.array([0.2989, 0.587, 0.114])


def _stain_basis() -> Floats:
    """Unit vectors of the two dyes and, to make a basis, what is at right angles to both; columns of float64 (3, 3)."""
    residual = np.cross(METHYLENE_BLUE_DENSITY, EOSIN_DENSITY)
    return np.stack([v / np.linalg.norm(v) for v in (METHYLENE_BLUE_DENSITY, EOSIN_DENSITY, residual)], axis=1)


_STAINS = _stain_basis()
_STAINS_INVERSE = np.linalg.inv(_STAINS)

_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_INVERSE = np.linalg.inv(_YIQ)


def _without_offset(linear: Floats) -> Floats:
    """(m, 3, 3) -> (m, 3, 4) with a last column of zeros."""
    return np.concatenate([linear, np.zeros((len(linear), 3, 1))], axis=2)


def _percent(fraction: float) -> float:
    return 100 * fraction


@channel_mix("saturation", covers={"saturation": _percent})
def saturation(change: Floats, uniforms: Floats) -> Floats:
    """Scales the distance of each pixel from its grey by 1 + ``change``; float64 (m, 3, 4)."""
    grey = np.tile(GREY_WEIGHTS, (3, 1))
    return _without_offset(grey + (1.0 + change)[:, None, None] * (np.eye(3) - grey))


@channel_mix("color", covers={"saturation": _percent})
def desaturate(fractions: Floats, uniforms: Floats) -> Floats:
    """Mixes each pixel with its grey: fraction 0 keeps it, 1 leaves grey; float64 (m, 3, 4)."""
    return saturation(-fractions, uniforms)


@channel_mix("hue", covers={"stain_hue": lambda degrees: degrees})
def hue(degrees: Floats, uniforms: Floats) -> Floats:
    """Turns the hue about the grey axis of YIQ, which keeps the lightness; float64 (m, 3, 4)."""
    radians = np.deg2rad(degrees)
    turn = np.zeros((len(degrees), 3, 3))
    turn[:, 0, 0] = 1.0
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(radians)
    turn[:, 1, 2] = -np.sin(radians)
    turn[:, 2, 1] = np.sin(radians)
    return _without_offset(_YIQ_INVERSE @ turn @ _YIQ)


def _stain_octaves(fraction: float) -> float:
    """log2 of the factor on a dye's density."""
    return math.log2(1 + fraction)


@channel_mix(
    "stain_jitter",
    of="densities",
    covers=dict.fromkeys(("blue_stain_intensity", "eosin_intensity", "staining_time"), _stain_octaves),
)
def stain_jitter(strengths: Floats, uniforms: Floats) -> Floats:
    """Scales each stain by 1 + U(-strength, strength) and shifts it by U(-strength, strength) / 5; float64 (m, 3, 4).

    The shift is in units of optical density.
    """
    jitter = strengths[:, None] * (2.0 * uniforms[:, :6] - 1.0)
    matrix = np.empty((len(strengths), 3, 4))
    matrix[:, :, :3] = (_STAINS * (1.0 + jitter[:, None, :3])) @ _STAINS_INVERSE
    matrix[:, :, 3] = (jitter[:, 3:] / 5.0) @ _STAINS.T
    return matrix
