"""Fuses the steps drawn for an image and applies them with OpenCV.

Neighbouring geometric steps become one affine warp: one interpolation, so less blur and less work than one each.
Neighbouring point-wise steps become one lookup table, exactly, unless applying one of them is cheaper than composing it.
Steps are never reordered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from bloodauto.transforms import colour
from bloodauto.transforms import lookup_tables as tables
from bloodauto.transforms.steps import Adaptive, Chain, Filter, Kind, Levels, Mix, Warp
from bloodauto.transforms.warping import apply_warp


class Lookup(NamedTuple):
    """Neighbouring point-wise steps."""

    parts: list[Levels | Adaptive]


class Optical(NamedTuple):
    """A mix of optical densities."""

    matrix: np.ndarray


Stage = Warp | Lookup | Mix | Optical | Filter

_OPTICAL = Kind.OPTICAL


def fuse(chain: Chain) -> list[Stage]:
    """The fewest stages that do what the chain does, in its order."""
    stages: list[Stage] = []
    last: Stage | None = None
    for _, kind, payload in chain:
        if type(payload) is Warp:
            if type(last) is Warp and (last.border is None or payload.border is None or last.border == payload.border):
                last = stages[-1] = Warp(
                    last.matrix.dot(payload.matrix),
                    payload.border if last.border is None else last.border,
                    last.lossless and payload.lossless,
                )
                continue
            last = payload
        elif type(payload) is Levels or type(payload) is Adaptive:
            if type(last) is Lookup:
                last.parts.append(payload)
                continue
            last = Lookup([payload])
        elif type(payload) is Mix:
            last = Optical(payload.matrix) if kind is _OPTICAL else payload
        else:
            assert type(payload) is Filter
            last = payload
        stages.append(last)
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
    first = parts[0]
    if len(parts) == 1 and type(first) is Levels:
        if tables.is_ramp(first.values):
            cv2.transform(image, first.values, dst=target)
        else:
            _apply_table(image, target, first.values)
        return
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


def apply_stage(image: np.ndarray, target: np.ndarray, stage: Stage) -> None:
    """Applies one stage: reads ``image``, writes ``target``; both uint8 (height, width, 3), not the same memory."""
    if type(stage) is Warp:
        apply_warp(image, target, stage)
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
