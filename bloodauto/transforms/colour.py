"""Operations that mix the channels of a pixel: by a 3x4 matrix in levels, or in optical density.

Light that passes a stain is weakened exponentially, so stains add up in optical density, ``-ln(transmitted share)``
(Beer-Lambert; Ruifrok and Johnston 2001, PMID 11531144). There every pixel is a sum of stain vectors, and changing how
strongly a stain took is a 3x3 matrix.
"""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.transforms.runs import pixel_chunks

#: Grey from RGB as ITU-R BT.601 weighs it; the weights TensorFlow and keras-cv use.
GREY_WEIGHTS = np.array([0.2989, 0.587, 0.114])

#: How strongly the stains of a Giemsa-like stain absorb red, green and blue: methylene blue, eosin (the "Giemsa"
#: vectors of G. Landini's colour deconvolution) and, to make it a basis, what is at right angles to both.
_METHYLENE_BLUE = np.array([0.834750233, 0.513556283, 0.196330403])
_EOSIN = np.array([0.092789, 0.954111, 0.283111])


def _stain_basis() -> np.ndarray:
    residual = np.cross(_METHYLENE_BLUE, _EOSIN)
    return np.stack([v / np.linalg.norm(v) for v in (_METHYLENE_BLUE, _EOSIN, residual)], axis=1)


_STAINS = _stain_basis()
_STAINS_INVERSE = np.linalg.inv(_STAINS)

#: The natural logarithm of the share of light that passes, minus the optical density: -5.5 (black) to 0 (white).
_LOG_TRANSMITTANCE = np.log((np.arange(256) + 1) / 256.0).astype(np.float32)
#: Turns a matrix for densities into one for the logarithm: only the offset changes its sign.
_TO_LOG_TRANSMITTANCE = np.array([1.0, 1.0, 1.0, -1.0])

_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_INVERSE = np.linalg.inv(_YIQ)


def _without_offset(linear: np.ndarray) -> np.ndarray:
    """(m, 3, 3) -> (m, 3, 4) with a last column of zeros."""
    return np.concatenate([linear, np.zeros((len(linear), 3, 1))], axis=2)


def saturation(change: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Moves each pixel away from its grey by the factor 1 + ``change``; float64 (m, 3, 4)."""
    grey = np.tile(GREY_WEIGHTS, (3, 1))
    return _without_offset(grey + (1.0 + change)[:, None, None] * (np.eye(3) - grey))


def desaturate(fraction: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Mixes each pixel with its grey: ``share`` 0 keeps it, 1 leaves grey; float64 (m, 3, 4)."""
    return saturation(-fraction, extra)


def hue(degrees: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Turns the hue about the grey axis of YIQ, so lightness is kept; float64 (m, 3, 4)."""
    radians = np.deg2rad(degrees)
    turn = np.zeros((len(degrees), 3, 3))
    turn[:, 0, 0] = 1.0
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(radians)
    turn[:, 1, 2] = -np.sin(radians)
    turn[:, 2, 1] = np.sin(radians)
    return _without_offset(_YIQ_INVERSE @ turn @ _YIQ)


def stain_jitter(strength: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Scales each stain by 1 + U(-strength, strength) and shifts it by U(-strength, strength) / 5; float64 (m, 3, 4).

    Acts on optical density; the shift is in density units.
    """
    jitter = strength[:, None] * (2.0 * extra[:, :6] - 1.0)
    matrix = np.empty((len(strength), 3, 4))
    matrix[:, :, :3] = (_STAINS * (1.0 + jitter[:, None, :3])) @ _STAINS_INVERSE
    matrix[:, :, 3] = (jitter[:, 3:] / 5.0) @ _STAINS.T
    return matrix


def apply_mix(image: np.ndarray, target: np.ndarray, matrix: np.ndarray) -> None:
    """Mixes levels; rounds and clips to 0..255."""
    cv2.transform(image, matrix, dst=target)


def apply_optical_mix(image: np.ndarray, target: np.ndarray, matrix: np.ndarray) -> None:
    """Mixes optical densities; what would be brighter than white is white, what would be darker than black is level 0 or 1.

    In float32, which OpenCV computes faster than a table that is fine enough is looked up.
    """
    for_logarithms = matrix * _TO_LOG_TRANSMITTANCE
    for source, result in pixel_chunks(image, target):
        log_share = cv2.LUT(source, _LOG_TRANSMITTANCE)
        mixed = cv2.transform(log_share, for_logarithms)
        cv2.exp(mixed, dst=mixed)
        # The conversion takes absolute values, which are below 1 of what is below 0; clipping first takes as long again.
        cv2.convertScaleAbs(mixed, dst=result, alpha=256.0, beta=-1.0)
