"""Pictures of a trial as PNG files: its learning curve and its confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bloodauto.run.artifacts import EpochReport
from bloodauto.types import Image

_WIDTH_PX, _HEIGHT_PX = 720, 420
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 60, 20, 44, 48
_FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Red, green, blue. The three lines differ for the colour-blind, too (Okabe and Ito).
_LINES = (("objective", (0, 114, 178)), ("accuracy", (0, 158, 115)), ("training accuracy", (230, 159, 0)))
_INK, _GRID = (60, 60, 60), (220, 220, 220)
#: Steps between the numbers of the epochs.
_MAX_TICKS = 10
_CELL_PX, _MAX_LABEL_CHARACTERS = 54, 14


def _png(canvas: Image) -> bytes:
    written, encoded = cv2.imencode(".png", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))
    assert written
    return bytes(encoded.tobytes())


def _text(canvas: Image, text: str, at: tuple[int, int], *, scale: float = 0.45, colour: Sequence[int] = _INK) -> None:
    # OpenCV's fonts are ASCII.
    cv2.putText(canvas, text.encode("ascii", "replace").decode(), at, _FONT, scale, colour, 1, cv2.LINE_AA)


def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, 1)[0][0])


def learning_curve_png(history: Sequence[EpochReport], title: str) -> bytes:
    """Objective, accuracy and training accuracy by epoch.

    Args:
        history: At least one epoch.
        title: Above the picture.

    Returns:
        A PNG file.
    """
    canvas: Image = np.full((_HEIGHT_PX, _WIDTH_PX, 3), 255, np.uint8)
    epochs = [report.epoch for report in history]
    series = [
        [report.objective for report in history],
        [report.accuracy for report in history],
        [report.train_accuracy for report in history],
    ]
    first, last = epochs[0], max(epochs[-1], epochs[0] + 1)
    low = np.floor(min(map(min, series)) * 10) / 10
    right, bottom = _WIDTH_PX - _RIGHT_PX, _HEIGHT_PX - _BOTTOM_PX

    def position(epoch: float, value: float) -> tuple[int, int]:
        across = (epoch - first) / (last - first)
        up = (value - low) / (1 - low) if low < 1 else 0.5
        return round(_LEFT_PX + across * (right - _LEFT_PX)), round(bottom - up * (bottom - _TOP_PX))

    for value in np.linspace(low, 1.0, 6):
        _, y = position(first, float(value))
        cv2.line(canvas, (_LEFT_PX, y), (right, y), _GRID, 1)
        _text(canvas, f"{value:.2f}", (12, y + 4))
    for epoch in range(first, last + 1, -(-(last - first) // _MAX_TICKS)):
        x, _ = position(epoch, low)
        _text(canvas, str(epoch), (x - 4, bottom + 18))
    _text(canvas, "epoch", ((_LEFT_PX + right) // 2 - 20, _HEIGHT_PX - 10))
    _text(canvas, title, (_LEFT_PX, 18), scale=0.5)
    x = _LEFT_PX
    for (name, colour), values in zip(_LINES, series, strict=True):
        points = [position(epoch, value) for epoch, value in zip(epochs, values, strict=True)]
        cv2.polylines(
            canvas, [np.array(points, np.int32)], isClosed=False, color=colour, thickness=2, lineType=cv2.LINE_AA
        )
        for point in points:
            cv2.circle(canvas, point, 3, colour, -1, cv2.LINE_AA)
        cv2.line(canvas, (x, 32), (x + 16, 32), colour, 3)
        _text(canvas, name, (x + 22, 36))
        x += 22 + _text_width(name, 0.45) + 24
    return _png(canvas)


def confusion_png(confusion: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> bytes:
    """A confusion matrix: rows are true classes, columns predicted ones; darker is a larger part of the row.

    Args:
        confusion: Images by true and predicted class.
        classes: Names, in the order of the rows.
        title: Above the picture.

    Returns:
        A PNG file.
    """
    names = [name[:_MAX_LABEL_CHARACTERS] for name in classes]
    margin = 16 + max((_text_width(name, 0.4) for name in names), default=0)
    side = _CELL_PX * len(names)
    top = margin + 34
    canvas: Image = np.full((top + side + 12, max(margin + side + 12, 420), 3), 255, np.uint8)
    _text(canvas, title, (8, 18), scale=0.5)
    for row, counts in enumerate(confusion):
        total = max(sum(counts), 1)
        y = top + row * _CELL_PX
        _text(canvas, names[row], (8, y + _CELL_PX // 2 + 4), scale=0.4)
        for column, count in enumerate(counts):
            x, part = margin + column * _CELL_PX, count / total
            shade = tuple(round(255 - part * (255 - channel)) for channel in _LINES[0][1])
            cv2.rectangle(canvas, (x, y), (x + _CELL_PX - 2, y + _CELL_PX - 2), shade, -1)
            ink = (255, 255, 255) if part > 0.55 else _INK
            text = str(count)
            _text(
                canvas,
                text,
                (x + (_CELL_PX - _text_width(text, 0.4)) // 2, y + _CELL_PX // 2 + 4),
                scale=0.4,
                colour=ink,
            )
    _draw_column_names(canvas, names, margin, top)
    return _png(canvas)


def _draw_column_names(canvas: Image, names: Sequence[str], left: int, bottom: int) -> None:
    """Upright, from the bottom up."""
    for column, name in enumerate(names):
        width = _text_width(name, 0.4) + 4
        strip: Image = np.full((16, width, 3), 255, np.uint8)
        _text(strip, name, (2, 12), scale=0.4)
        turned = np.rot90(strip)
        x = left + column * _CELL_PX + _CELL_PX // 2 - 8
        canvas[bottom - 6 - width : bottom - 6, x : x + 16] = turned
