"""The contact sheet: many small images on one, with or without captions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bloodauto.errors import DataError
from bloodauto.types import Image, Images, check_images

_CAPTION_HEIGHT_PX = 14
_GAP_PX = 2
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.38


def contact_sheet(
    images: Images,
    captions: Sequence[str] | None = None,
    *,
    columns: int = 8,
    tile_size_px: int | None = None,
    separate_first_column: bool = False,
) -> Image:
    """Lays images out in rows, left to right and top to bottom, on white.

    Args:
        images: uint8, (n, height, width, 3), RGB, n at least 1.
        captions: one per image, written below it and shrunk to the image's width; None for no captions.
        columns: images in a row, at least 1; fewer where there are fewer images.
        tile_size_px: the longer side to which every image is resized; None: images keep their size.
        separate_first_column: whether a wider gap follows the first column, for example between originals and what was
            made of them.

    Returns:
        uint8, (sheet height, sheet width, 3), RGB. Empty tiles of the last row are white.

    Raises:
        DataError: ``images`` is no stack of RGB images or is empty, the captions do not match, or there are no columns
            or no pixels in a tile.

    Example:
        >>> contact_sheet(np.zeros((3, 10, 10, 3), np.uint8), columns=2).shape
        (26, 26, 3)
    """
    check_images(images, "contact sheet")
    if len(images) == 0:
        raise DataError("contact sheet: expected at least one image, got none.")
    if captions is not None and len(captions) != len(images):
        raise DataError(
            f"contact sheet: expected one caption per image ({len(images)}), got {len(captions)}. "
            "Give None for no captions."
        )
    if columns < 1:
        raise DataError(f"contact sheet: expected at least 1 column, got {columns}.")
    tiles = images if tile_size_px is None else _resized(images, tile_size_px)
    n, height, width, _ = tiles.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    caption_height = 0 if captions is None else _CAPTION_HEIGHT_PX
    step_y, step_x = height + caption_height + _GAP_PX, width + _GAP_PX
    extra_gap = 2 * _GAP_PX if separate_first_column else 0
    canvas = np.full((rows * step_y + _GAP_PX, columns * step_x + _GAP_PX + extra_gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = _GAP_PX + row * step_y, _GAP_PX + column * step_x + (extra_gap if column else 0)
        canvas[top : top + height, left : left + width] = tile
        if captions is not None:
            canvas[top + height : top + height + caption_height, left : left + width] = _caption(captions[index], width)
    return canvas


def _resized(images: Images, tile_size_px: int) -> Images:
    if tile_size_px < 1:
        raise DataError(f"contact sheet: expected tiles of at least 1 px, got {tile_size_px}.")
    height, width = images.shape[1:3]
    scale = tile_size_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])


def _caption(text: str, width_px: int) -> Image:
    """One line of text, black on white, uint8 (14, width, 3)."""
    strip = np.full((_CAPTION_HEIGHT_PX, width_px, 3), 255, np.uint8)
    scale = _FONT_SCALE
    (text_width, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    if text_width > width_px - 2:
        scale *= (width_px - 2) / text_width
    cv2.putText(strip, text, (1, _CAPTION_HEIGHT_PX - 4), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
