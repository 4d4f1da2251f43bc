"""A contact sheet: many small images on one, each with a caption."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bloodauto.errors import DataError

_CAPTION_HEIGHT_PX = 14
_GAP_PX = 2
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(images: np.ndarray, captions: Sequence[str] | None = None, columns: int = 8) -> np.ndarray:
    """Lays images out in rows, left to right and top to bottom, on white.

    Args:
        images: uint8, (n, height, width, 3), RGB.
        captions: one per image, written below it and shrunk to the image's width; None for no captions.
        columns: images in a row.

    Returns:
        uint8, (sheet height, sheet width, 3), RGB. Places left over in the last row are white.

    Raises:
        DataError: ``images`` is no stack of RGB images or is empty, the captions do not match, or there are no columns.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) == 0:
        raise DataError(
            f"Contact sheet: expected at least one image as uint8 (n, height, width, 3), "
            f"got {images.dtype} {images.shape}."
        )
    if captions is not None and len(captions) != len(images):
        raise DataError(
            f"Contact sheet: expected one caption per image ({len(images)}), got {len(captions)}. "
            "Give None for no captions."
        )
    if columns < 1:
        raise DataError(f"Contact sheet: expected at least 1 column, got {columns}.")
    n, height, width, _ = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    caption_height = 0 if captions is None else _CAPTION_HEIGHT_PX
    step_y, step_x = height + caption_height + _GAP_PX, width + _GAP_PX
    sheet = np.full((rows * step_y + _GAP_PX, columns * step_x + _GAP_PX, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = _GAP_PX + index // columns * step_y, _GAP_PX + index % columns * step_x
        sheet[top : top + height, left : left + width] = image
        if captions is not None:
            sheet[top + height : top + height + caption_height, left : left + width] = _caption(captions[index], width)
    return sheet


def _caption(text: str, width_px: int) -> np.ndarray:
    """One line of text, black on white, uint8 (14, width, 3)."""
    strip = np.full((_CAPTION_HEIGHT_PX, width_px, 3), 255, np.uint8)
    scale = 0.38
    (text_width, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    if text_width > width_px - 2:
        scale *= (width_px - 2) / text_width
    cv2.putText(strip, text, (1, _CAPTION_HEIGHT_PX - 4), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
