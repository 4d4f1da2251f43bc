"""Fuses the steps drawn for an image and applies them with OpenCV.

Neighbouring geometric steps become one affine warp: one interpolation, so less blur and less work than one each.
Neighbouring point-wise steps become one lookup table, exactly, unless applying one of them is cheaper than composing it.
Steps are never reordered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from bloodauto.augment import colour, tables
from bloodauto.augment.steps import Adaptive, Border, Chain, Filter, Kind, Levels, Mix, Warp
from bloodauto.errors import DataError


class Lookup(NamedTuple):
    """Neighbouring point-wise steps."""

    parts: list[Levels | Adaptive]


class Optical(NamedTuple):
    """A mix of optical densities."""

    matrix: np.ndarray


Stage = Warp | Lookup | Mix | Optical | Filter

_BORDER_FLAGS = {
    "reflect": cv2.BORDER_REFLECT,
    "reflect_101": cv2.BORDER_REFLECT_101,
    "edge": cv2.BORDER_REPLICATE,
    "wrap": cv2.BORDER_WRAP,
    "fill": cv2.BORDER_CONSTANT,
}
_WARP_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def fuse(chain: Chain) -> list[Stage]:
    """The fewest stages that do what the chain does, in its order."""
    stages: list[Stage] = []
    for _, kind, payload in chain:
        last = stages[-1] if stages else None
        if kind is Kind.GEOMETRIC:
            assert isinstance(payload, Warp)
            if type(last) is Warp and (last.border is None or payload.border is None or last.border == payload.border):
                stages[-1] = Warp(
                    last.matrix @ payload.matrix,
                    payload.border if last.border is None else last.border,
                    last.lossless and payload.lossless,
                )
            else:
                stages.append(payload)
        elif kind is Kind.POINTWISE:
            assert isinstance(payload, (Levels, Adaptive))
            if type(last) is Lookup:
                last.parts.append(payload)
            else:
                stages.append(Lookup([payload]))
        elif kind is Kind.OPTICAL:
            assert isinstance(payload, Mix)
            stages.append(Optical(payload.matrix))
        else:
            assert isinstance(payload, (Mix, Filter))
            stages.append(payload)
    return stages


def static_table(parts: Sequence[Levels]) -> np.ndarray:
    """The table of point-wise steps that do not depend on the image; uint8 (256,) or (256, 3)."""
    table: np.ndarray | None = None
    for part in parts:
        table = tables.compose(table, tables.as_table(part.values))
    assert table is not None
    return table


def _look_up(image: np.ndarray, target: np.ndarray, parts: Sequence[Levels | Adaptive]) -> None:
    """Applies point-wise steps in turn, putting off whatever is cheaper to compose than to apply.

    A ramp goes straight over the pixels while no table is pending: that costs a sixth of a lookup and is the same to the
    bit. A ramp that needs the image's mean or extremes has a pending table applied first, because working them out
    through a table takes a histogram, which costs more than the lookup.
    """
    statistics = tables.Statistics(image)
    source = image
    for part in parts:
        if isinstance(part, Adaptive):
            if part.gives_ramp and statistics.table is not None:
                _apply_table(source, target, statistics.table)
                source, statistics = target, tables.Statistics(target)
            values = part.build(statistics, part.strength)
        else:
            values = part.values
        if tables.is_ramp(values) and statistics.table is None:
            cv2.transform(source, values, dst=target)
            source, statistics = target, tables.Statistics(target)
        else:
            statistics.table = tables.compose(statistics.table, tables.as_table(values))
    if statistics.table is not None:
        _apply_table(source, target, statistics.table)


def _apply_table(image: np.ndarray, target: np.ndarray, table: np.ndarray) -> None:
    cv2.LUT(image, table if table.ndim == 1 else table[None], dst=target)


def _permute(image: np.ndarray, target: np.ndarray, matrix: np.ndarray) -> None:
    """A symmetry of the square: a transposition where x is read from y, then flips."""
    transposed = abs(matrix[0, 0]) < 0.5
    # Once the source is transposed, each axis is read from itself, forwards or backwards.
    x_reversed = matrix[1 if transposed else 0, 0] < 0
    y_reversed = matrix[0 if transposed else 1, 1] < 0
    source = cv2.transpose(image) if transposed else image
    if x_reversed or y_reversed:
        cv2.flip(source, -1 if x_reversed and y_reversed else 1 if x_reversed else 0, dst=target)
    else:
        np.copyto(target, source)


def _shift(image: np.ndarray, target: np.ndarray, x: float, y: float, border: Border) -> None:
    """Reads each pixel ``x`` to the right and ``y`` below: pads, then blends two views along each axis.

    The same bilinear interpolation as a warp's for a fifth of its time; rounds once for each axis that is not moved by
    whole pixels.
    """
    height, width = image.shape[:2]
    left, top = math.floor(x), math.floor(y)
    x_share, y_share = x - left, y - top
    padded = cv2.copyMakeBorder(
        image, max(0, -top), max(0, top + 1), max(0, -left), max(0, left + 1),
        _BORDER_FLAGS[border.mode], value=border.colour,
    )  # fmt: skip
    left, top = max(0, left), max(0, top)
    rows = padded[top : top + height + 1]
    if y_share == 0:
        rows = rows[:height]
    if x_share > 0:
        first, second = rows[:, left : left + width], rows[:, left + 1 : left + 1 + width]
        rows = cv2.addWeighted(first, 1.0 - x_share, second, x_share, 0.0, dst=None if y_share else target)
    else:
        rows = rows[:, left : left + width]
    if y_share > 0:
        cv2.addWeighted(rows[:height], 1.0 - y_share, rows[1:], y_share, 0.0, dst=target)
    elif x_share == 0:
        np.copyto(target, rows)


def _warp(image: np.ndarray, target: np.ndarray, warp: Warp) -> None:
    if warp.lossless:
        _permute(image, target, warp.matrix)
        return
    height, width = image.shape[:2]
    border = warp.border if warp.border is not None else Border("reflect")
    (xx, xy, x), (yx, yy, y) = warp.matrix[:2].tolist()
    if xx == 1.0 and xy == 0.0 and yx == 0.0 and yy == 1.0 and abs(x) <= width and abs(y) <= height:
        _shift(image, target, x, y, border)
        return
    cv2.warpAffine(
        image, warp.matrix[:2], (width, height), dst=target, flags=_WARP_FLAGS,
        borderMode=_BORDER_FLAGS[border.mode], borderValue=border.colour,
    )  # fmt: skip


def apply_stage(image: np.ndarray, target: np.ndarray, stage: Stage) -> None:
    """Applies one stage: reads ``image``, writes ``target``; both uint8 (height, width, 3), not the same memory."""
    if type(stage) is Warp:
        _warp(image, target, stage)
    elif type(stage) is Lookup:
        _look_up(image, target, stage.parts)
    elif type(stage) is Mix:
        colour.apply_mix(image, target, stage.matrix)
    elif type(stage) is Optical:
        colour.apply_optical_mix(image, target, stage.matrix)
    else:
        assert isinstance(stage, Filter)
        stage.apply(image, target, stage.parameters)


def apply_stages(image: np.ndarray, target: np.ndarray, scratch: np.ndarray, stages: Sequence[Stage]) -> None:
    """Applies stages in turn; the last one writes ``target``. Neither the image nor its memory is touched."""
    if not stages:
        np.copyto(target, image)
        return
    source = image
    for remaining in range(len(stages), 0, -1):
        destination = target if remaining % 2 else scratch
        apply_stage(source, destination, stages[-remaining])
        source = destination


def apply_chains(images: Sequence[np.ndarray], chains: Sequence[Chain], out: np.ndarray) -> None:
    """Applies to each image the steps drawn for it.

    Args:
        images: uint8 (height, width, 3) each, all of one size; not written.
        chains: one for each image.
        out: uint8 (n, height, width, 3); shares no memory with the images.
    """
    scratch = np.empty(out.shape[1:], np.uint8)
    for image, target, chain in zip(images, out, chains, strict=True):
        apply_stages(image, target, scratch, fuse(chain))


def check_images(images: np.ndarray, where: str) -> None:
    """Raises:
    DataError: not uint8 (n, height, width, 3) with at least one pixel.
    """
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[3] != 3
        or 0 in images.shape[1:]
    ):
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"{where}: expected images as a uint8 array (n, height, width, 3), got {got}.")
