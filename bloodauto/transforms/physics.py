"""Constants of dyes, lamps and cameras that image operations and corruption families share."""

from __future__ import annotations

import numpy as np

#: The gamma that images are taken to be encoded with.
ENCODING_GAMMA = 2.2

#: Wavelengths that stand for red, green and blue.
CHANNEL_NANOMETRES = np.array([610.0, 540.0, 465.0])
#: Planck's second radiation constant.
RADIATION_CONSTANT_NM_KELVIN = 1.4388e7

#: How strongly the dyes of a Giemsa-like stain absorb red, green and blue, float64 (3,) each: the "Giemsa" vectors of
#: G. Landini's colour deconvolution (Ruifrok and Johnston 2001, PMID 11531144).
METHYLENE_BLUE_DENSITY = np.array([0.834750233, 0.513556283, 0.196330403])
EOSIN_DENSITY = np.array([0.092789, 0.954111, 0.283111])


def mired_shift(log_red_over_blue: float) -> float:
    """The change of a lamp's reciprocal colour temperature that changes red against blue in linear light.

    By Wien's approximation of Planck's law.

    Args:
        log_red_over_blue: The natural logarithm of the factor on red over blue.

    Returns:
        Mired, positive is warmer.
    """
    red, _, blue = RADIATION_CONSTANT_NM_KELVIN * 1e-6 / CHANNEL_NANOMETRES
    return float(log_red_over_blue / (blue - red))
