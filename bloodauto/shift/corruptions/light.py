"""Light: lamp, exposure and the camera's colour processing. Images are taken to be encoded with a gamma of 2.2."""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.shift.corruptions.family import CorruptionFamily, random_sign, short_side_px, to_uint8

ENCODING_GAMMA = 2.2
#: Rec. 709 luma weights of red, green and blue.
LUMA = np.array([0.2126, 0.7152, 0.0722])
#: Wavelengths that stand for the three channels, and Planck's second radiation constant.
CHANNEL_NANOMETRES = np.array([610.0, 540.0, 465.0])
RADIATION_CONSTANT_NM_KELVIN = 1.4388e7

#: Share of an image's mean light that another camera's lenses spread over it, and doublings of its response's exponent, for
#: each stop that its white point lies lower.
_GLARE_PER_STOP = 0.1
_RESPONSE_PER_STOP = 0.5

_GREY = np.arange(256, dtype=np.float64)


def channel_gains(mired_shift: float) -> np.ndarray:
    """Gains of red, green and blue, float64 (3,), in linear light, when a lamp's colour temperature changes.

    In Wien's approximation of Planck's law the ratio of two lamps depends only on the difference of their reciprocal
    temperatures, the mired shift (positive is warmer). The luma of a grey pixel is kept, as automatic exposure does.
    """
    gains = np.exp(-RADIATION_CONSTANT_NM_KELVIN / CHANNEL_NANOMETRES * mired_shift * 1e-6)
    return gains / (LUMA @ gains)


def _brightness(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    factor = 2.0 ** (random_sign(level, rng) / ENCODING_GAMMA)
    return cv2.LUT(image, to_uint8(_GREY * factor))


def _contrast(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    middle = image.mean()
    return cv2.LUT(image, to_uint8(middle + (_GREY - middle) * 2.0 ** random_sign(level, rng)))


def _gamma(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return cv2.LUT(image, to_uint8(255 * (_GREY / 255) ** (2.0 ** random_sign(level, rng))))


def _vignette(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    offset_y, offset_x = rng.uniform(-0.15, 0.15, size=2) * short_side_px(image)
    y = np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2 + offset_y)
    x = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2 + offset_x)
    corner_squared = (height**2 + width**2) / 4
    gain = 1 - np.float32(level / 100) * ((y**2)[:, None] + (x**2)[None, :]) / np.float32(corner_squared)
    return to_uint8(image * np.maximum(gain, 0)[:, :, None])


def _colour_temperature(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    encoded_gains = channel_gains(random_sign(level, rng)) ** (1 / ENCODING_GAMMA)
    return cv2.LUT(image, to_uint8(_GREY[:, None, None] * encoded_gains))


def _saturation(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    strength = 1 + random_sign(level, rng) / 100
    return cv2.transform(image, strength * np.eye(3) + (1 - strength) * np.tile(LUMA, (3, 1)))


def _camera(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    stops = rng.random(3) * level
    glare = rng.random() * level * _GLARE_PER_STOP
    exponent = 2.0 ** random_sign(level * _RESPONSE_PER_STOP, rng)
    light = (_GREY / 255)[:, None] ** ENCODING_GAMMA * 2.0**-stops
    # Glare is light of the image itself, spread evenly.
    counts = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)], axis=1)
    mean = (counts * light).sum(axis=0) / counts.sum(axis=0)
    light = (1 - glare) * light + glare * mean
    return cv2.LUT(image, to_uint8(255 * light[:, None] ** (exponent / ENCODING_GAMMA)))


FAMILIES = (
    CorruptionFamily(
        "brightness",
        "light",
        "exposure in stops, brighter or darker",
        (0.2, 0.4, 0.65, 0.95, 1.3),
        "ImageNet-C, arXiv:1903.12261, and MedMNIST-C, arXiv:2406.17536 (brightness), as exposure in linear light.",
        _brightness,
    ),
    CorruptionFamily(
        "contrast",
        "light",
        "log2 of the slope about the mean grey, steeper or flatter",
        (0.25, 0.5, 0.8, 1.15, 1.55),
        "ImageNet-C, arXiv:1903.12261 (contrast); MedMNIST-C, arXiv:2406.17536 (contrast up and down).",
        _contrast,
    ),
    CorruptionFamily(
        "gamma",
        "light",
        "log2 of the exponent, darker or brighter mid-tones",
        (0.25, 0.5, 0.75, 1.05, 1.4),
        "Camera response; MedMNIST-C, arXiv:2406.17536 (gamma corruption).",
        _gamma,
    ),
    CorruptionFamily(
        "vignette",
        "light",
        "light lost at the corners, %",
        (20, 35, 52, 70, 90),
        "Uneven Koehler illumination, quadratic fall-off; compare Zheng et al. 2009, doi:10.1109/TPAMI.2008.263.",
        _vignette,
    ),
    CorruptionFamily(
        "colour_temperature",
        "light",
        "mired shift of the lamp, warmer or colder",
        (15, 30, 50, 75, 110),
        "Planck's law in Wien's approximation; why it matters: Afifi and Brown, arXiv:1912.06960.",
        _colour_temperature,
    ),
    CorruptionFamily(
        "saturation",
        "light",
        "change of the distance from grey, %",
        (18, 33, 50, 70, 90),
        "ImageNet-C, arXiv:1903.12261 (saturate); MedMNIST-C, arXiv:2406.17536. About Rec. 709 luma.",
        _saturation,
    ),
    CorruptionFamily(
        "camera",
        "light",
        "stops by which each channel's white point may lie lower; glare and response differ with them",
        (0.2, 0.4, 0.65, 0.95, 1.3),
        "Response: Grossberg and Nayar 2003, doi:10.1109/CVPR.2003.1211522; veiling glare: ISO 9358; white balance: Afifi and "
        "Brown, arXiv:1912.06960.",
        _camera,
    ),
)
