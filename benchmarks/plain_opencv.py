"""RandAugment as it is commonly written with OpenCV: image by image, operation by operation.

The operations, ranges and borders of keras-cv's RandAugment at a fixed magnitude; each operation draws and applies its effect.
``benchmarks/augment.py`` compares fusion with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from bloodauto.types import Floats, Image

_LEVELS = np.arange(256, dtype=np.float32)


def _per_channel(image: Image, tables: Sequence[Floats]) -> Image:
    table = np.clip(np.stack(tables, axis=-1), 0, 255).astype(np.uint8)
    result: Image = cv2.LUT(image, table[None])
    return result


def _auto_contrast(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    tables = []
    for plane in cv2.split(image):
        low, high, _, _ = cv2.minMaxLoc(plane)
        tables.append((_LEVELS - low) * (255.0 / (high - low)) if high > low else _LEVELS)
    return _per_channel(image, tables)


def _equalize(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    tables = []
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (counts.sum() - counts[counts > 0].min()) // 255
        tables.append((np.cumsum(counts) - counts + step // 2) // step if step else _LEVELS)
    return _per_channel(image, tables)


def _solarize(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    raised = np.minimum(_LEVELS + 110 * magnitude, 255)
    result: Image = cv2.LUT(image, np.where(raised < 255 * (1 - magnitude), raised, 255 - raised).astype(np.uint8))
    return result


def _color(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    result: Image = cv2.addWeighted(image, 1 - magnitude, grey, magnitude, 0)
    return result


def _contrast(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    factor = rng.uniform(1 - magnitude, 1 + magnitude)
    return _per_channel(image, [(_LEVELS - mean) * factor + mean for mean in cv2.mean(image)[:3]])


def _brightness(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    delta = 255 * rng.uniform(-magnitude, magnitude)
    result: Image = cv2.LUT(image, np.clip(_LEVELS + delta, 0, 255).astype(np.uint8))
    return result


def _warp(image: Image, matrix: list[list[float]]) -> Image:
    height, width = image.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    result: Image = cv2.warpAffine(image, np.array(matrix), (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return result


def _shear_x(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    return _warp(image, [[1, magnitude if rng.random() < 0.5 else -magnitude, 0], [0, 1, 0]])


def _shear_y(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    return _warp(image, [[1, 0, 0], [magnitude if rng.random() < 0.5 else -magnitude, 1, 0]])


def _translate_x(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    return _warp(image, [[1, 0, image.shape[1] * rng.uniform(-magnitude, magnitude)], [0, 1, 0]])


def _translate_y(image: Image, magnitude: float, rng: np.random.Generator) -> Image:
    return _warp(image, [[1, 0, 0], [0, 1, image.shape[0] * rng.uniform(-magnitude, magnitude)]])


_OPERATIONS: tuple[Callable[[Image, float, np.random.Generator], Image], ...] = (
    _auto_contrast, _equalize, _solarize, _color, _contrast, _brightness,
    _shear_x, _shear_y, _translate_x, _translate_y,
)  # fmt: skip


def rand_augment(image: Image, num_ops: int, magnitude: float, rng: np.random.Generator) -> Image:
    """Applies ``num_ops`` operations drawn with replacement to one image."""
    for _ in range(num_ops):
        image = _OPERATIONS[rng.integers(len(_OPERATIONS))](image, magnitude, rng)
    return image
