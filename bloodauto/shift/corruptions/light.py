"""Light: lamp, exposure and the camera's colour processing. Images are assumed to be encoded with a gamma of 2.2."""

from __future__ import annotations

import cv2
import numpy as np

from bloodauto.shift.corruptions.registry import corruption_family, map_levels, random_sign, short_side_px, to_uint8
from bloodauto.transforms.physics import CHANNEL_NANOMETRES, ENCODING_GAMMA, RADIATION_CONSTANT_NM_KELVIN
from bloodauto.types import Floats, Image

#: Rec. 709 luma weights of red, green and blue.
LUMA = np.array([0.2126, 0.7152, 0.0722])

#: For each stop that the white point of another camera is lower: the fraction of an image's mean light that its lenses spread
#: over the image, and the doublings of its response's exponent.
_GLARE_PER_STOP = 0.1
_RESPONSE_PER_STOP = 0.5

_GREY = np.arange(256, dtype=np.float64)


def channel_gains(mired_shift: float) -> Floats:
    """Gains of red, green and blue, float64 (3,), in linear light, when a lamp's colour temperature changes.

    In Wien's approximation of Planck's law the ratio of two lamps depends only on the difference of their reciprocal
    temperatures, the mired shift (positive is warmer). The luma of a grey pixel is kept, as automatic exposure does.
    """
    gains: Floats = np.exp(-RADIATION_CONSTANT_NM_KELVIN / CHANNEL_NANOMETRES * mired_shift * 1e-6)
    gains /= LUMA @ gains
    return gains


@corruption_family(
    "brightness",
    group="light",
    factor="exposure",
    unit="exposure in stops, brighter or darker",
    levels=(0.2, 0.4, 0.65, 0.95, 1.3),
    source="ImageNet-C, arXiv:1903.12261, and MedMNIST-C, arXiv:2406.17536 (brightness), as exposure in linear light.",
)
def _brightness(image: Image, level: float, rng: np.random.Generator) -> Image:
    factor = 2.0 ** (random_sign(level, rng) / ENCODING_GAMMA)
    return map_levels(image, _GREY * factor)


@corruption_family(
    "contrast",
    group="light",
    factor="exposure",
    unit="log2 of the slope about the mean grey, steeper or flatter",
    levels=(0.25, 0.5, 0.8, 1.15, 1.55),
    source="ImageNet-C, arXiv:1903.12261 (contrast); MedMNIST-C, arXiv:2406.17536 (contrast up and down).",
)
def _contrast(image: Image, level: float, rng: np.random.Generator) -> Image:
    middle = image.mean()
    return map_levels(image, middle + (_GREY - middle) * 2.0 ** random_sign(level, rng))


@corruption_family(
    "gamma",
    group="light",
    factor="exposure",
    unit="log2 of the exponent, darker or brighter mid-tones",
    levels=(0.25, 0.5, 0.75, 1.05, 1.4),
    source="Camera response; MedMNIST-C, arXiv:2406.17536 (gamma corruption).",
)
def _gamma(image: Image, level: float, rng: np.random.Generator) -> Image:
    return map_levels(image, 255 * (_GREY / 255) ** (2.0 ** random_sign(level, rng)))


@corruption_family(
    "vignette",
    group="light",
    factor="exposure",
    unit="light lost at the corners, %",
    levels=(20, 35, 52, 70, 90),
    source="Uneven Koehler illumination, quadratic fall-off; compare Zheng et al. 2009, doi:10.1109/TPAMI.2008.263.",
)
def _vignette(image: Image, level: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    offset_y, offset_x = rng.uniform(-0.15, 0.15, size=2) * short_side_px(image)
    y = np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2 + offset_y)
    x = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2 + offset_x)
    corner_squared = (height**2 + width**2) / 4
    gain = 1 - np.float32(level / 100) * ((y**2)[:, None] + (x**2)[None, :]) / np.float32(corner_squared)
    return to_uint8(image * np.maximum(gain, 0)[:, :, None])


@corruption_family(
    "colour_temperature",
    group="light",
    factor="lamp_colour",
    unit="mired shift of the lamp, warmer or colder",
    levels=(15, 30, 50, 75, 110),
    source="Planck's law in Wien's approximation; why it matters: Afifi and Brown, arXiv:1912.06960.",
)
def _colour_temperature(image: Image, level: float, rng: np.random.Generator) -> Image:
    encoded_gains = channel_gains(random_sign(level, rng)) ** (1 / ENCODING_GAMMA)
    return map_levels(image, _GREY[:, None, None] * encoded_gains)


@corruption_family(
    "saturation",
    group="light",
    factor="lamp_colour",
    unit="change of the distance from grey, %",
    levels=(18, 33, 50, 70, 90),
    source="ImageNet-C, arXiv:1903.12261 (saturate); MedMNIST-C, arXiv:2406.17536. About Rec. 709 luma.",
)
def _saturation(image: Image, level: float, rng: np.random.Generator) -> Image:
    strength = 1 + random_sign(level, rng) / 100
    result: Image = cv2.transform(image, strength * np.eye(3) + (1 - strength) * np.tile(LUMA, (3, 1)))
    return result


@corruption_family(
    "camera",
    group="light",
    factor="camera",
    unit="stops by which the white point of each channel may be lower; glare and response change with them",
    levels=(0.2, 0.4, 0.65, 0.95, 1.3),
    source=(
        "Response: Grossberg and Nayar 2003, doi:10.1109/CVPR.2003.1211522; veiling glare: ISO 9358; white balance: Afifi and "
        "Brown, arXiv:1912.06960."
    ),
)
def _camera(image: Image, level: float, rng: np.random.Generator) -> Image:
    stops = rng.random(3) * level
    glare = rng.random() * level * _GLARE_PER_STOP
    exponent = 2.0 ** random_sign(level * _RESPONSE_PER_STOP, rng)
    light = (_GREY / 255)[:, None] ** ENCODING_GAMMA * 2.0**-stops
    # Glare is light of the image itself, spread evenly.
    counts = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)], axis=1)
    mean = (counts * light).sum(axis=0) / counts.sum(axis=0)
    light = (1 - glare) * light + glare * mean
    return map_levels(image, 255 * light[:, None] ** (exponent / ENCODING_GAMMA))
