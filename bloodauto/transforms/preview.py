"""A picture of what a policy does to images."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from bloodauto.transforms.policies import check_count
from bloodauto.types import check_images

_GAP_PIXELS = 2
_BACKGROUND_LEVEL = 255


def augmentation_sheet(
    images: np.ndarray,
    change: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    seed: int,
    columns: int = 8,
    tile_pixels: int = 96,
) -> np.ndarray:
    """One row for each image: the image itself, a wider gap, then differently augmented versions of it.

    Args:
        images: uint8 (n, height, width, 3).
        change: a policy, or any other change of all images together, drawn anew for each column.
        seed: of the draws.
        columns: tiles in a row, the image itself included; at least 2.
        tile_pixels: the longer side of a tile; images are enlarged or reduced to it after augmentation.

    Returns:
        uint8 (rows, columns, 3), white where there is no image.

    Raises:
        DataError: other images than these.
        RecipeError: fewer than two columns, or a tile without pixels.
    """
    check_images(images, "augmentation_sheet")
    check_count(columns, "columns", minimum=2)
    check_count(tile_pixels, "tile_pixels", minimum=1)
    height, width = images.shape[1:3]
    scale = tile_pixels / max(height, width)
    tile_height, tile_width = max(1, round(height * scale)), max(1, round(width * scale))
    rng = np.random.default_rng(seed)
    sheet = np.full(
        (len(images) * (tile_height + _GAP_PIXELS) + _GAP_PIXELS, columns * (tile_width + _GAP_PIXELS) + 3 * _GAP_PIXELS, 3),
        _BACKGROUND_LEVEL,
        np.uint8,
    )  # fmt: skip
    shown = [images, *(change(images, rng) for _ in range(columns - 1))]
    for column, versions in enumerate(shown):
        left = _GAP_PIXELS + column * (tile_width + _GAP_PIXELS) + (2 * _GAP_PIXELS if column else 0)
        for row, tile in enumerate(versions):
            top = _GAP_PIXELS + row * (tile_height + _GAP_PIXELS)
            resized = cv2.resize(tile, (tile_width, tile_height), interpolation=cv2.INTER_AREA)
            sheet[top : top + tile_height, left : left + tile_width] = resized
    return sheet
