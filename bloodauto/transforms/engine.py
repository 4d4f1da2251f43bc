"""Fuses the steps drawn for an image and applies them with OpenCV.

Neighbouring geometric steps become one affine warp: one interpolation, so less blur and less work than one each.
Neighbouring point-wise steps become one lookup table, exactly, unless applying one of them is cheaper than composing it.
Steps are never reordered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.transforms import lookup_tables
from bloodauto.transforms.images import empty_batch, pixel_chunks
from bloodauto.transforms.steps import Adaptive, Chain, Filter, Kind, Levels, Mix, Warp
from bloodauto.transforms.warping import apply_warp
from bloodauto.types import Floats, Image, Images


class Lookup(NamedTuple):
    """Neighbouring point-wise steps.

    Attributes:
        parts: The steps, in their order.
    """

    parts: list[Levels | Adaptive]


class OpticalMix(NamedTuple):
    """A mix of optical densities.

    Attributes:
        matrix: float64 (3, 4), as ``Mix.matrix``.
    """

    matrix: Floats


Stage: TypeAlias = Warp | Lookup | Mix | OpticalMix | Filter

_OPTICAL = Kind.OPTICAL

#: The natural logarithm of the transmitted fraction, minus the optical density, of each level: -5.5 (black) to 0 (white).
_LOG_TRANSMITTANCE = np.log((np.arange(256) + 1) / 256.0).astype(np.float32)
#: Turns a matrix for densities into one for the logarithm: only the offset changes its sign.
_TO_LOG_TRANSMITTANCE = np.array([1.0, 1.0, 1.0, -1.0])


def fuse(chain: Chain) -> list[Stage]:
    """The fewest stages that do what a chain does, in its order."""
    stages: list[Stage] = []
    last: Stage | None = None
    for _, kind, payload in chain:
        if type(payload) is Warp:
            if type(last) is Warp:
                last = stages[-1] = Warp(last.matrix.dot(payload.matrix), last.lossless and payload.lossless)
                continue
            last = payload
        elif type(payload) is Levels or type(payload) is Adaptive:
            if type(last) is Lookup:
                last.parts.append(payload)
                continue
            last = Lookup([payload])
        elif type(payload) is Mix:
            last = OpticalMix(payload.matrix) if kind is _OPTICAL else payload
        else:
            assert type(payload) is Filter
            last = payload
        stages.append(last)
    return stages


def _look_up(image: Image, target: Image, parts: Sequence[Levels | Adaptive]) -> None:
    """Applies point-wise steps in turn and composes those that are cheaper to compose than to apply.

    A ramp is applied to the pixels while no table is pending: that costs a sixth of a lookup and is the same to the bit. A
    ramp that needs the image's mean or extremes has a pending table applied first, because working them out through a
    table takes a histogram, which costs more than the lookup.
    """
    first = parts[0]
    if len(parts) == 1 and type(first) is Levels:
        if lookup_tables.is_ramp(first.values):
            cv2.transform(image, first.values, dst=target)
        else:
            _apply_table(image, target, lookup_tables.as_table(first.values))
        return
    statistics = lookup_tables.Statistics(image)
    source = image
    for part in parts:
        if isinstance(part, Adaptive):
            if part.gives_ramp and statistics.table is not None:
                _apply_table(source, target, statistics.table)
                source, statistics = target, lookup_tables.Statistics(target)
            values = part.build(statistics, part.strength)
        else:
            values = part.values
        if lookup_tables.is_ramp(values) and statistics.table is None:
            cv2.transform(source, values, dst=target)
            source, statistics = target, lookup_tables.Statistics(target)
        else:
            statistics.table = lookup_tables.compose(statistics.table, lookup_tables.as_table(values))
    if statistics.table is not None:
        _apply_table(source, target, statistics.table)


def _apply_table(image: Image, target: Image, table: NDArray[np.uint8]) -> None:
    cv2.LUT(image, table if table.ndim == 1 else table[None], dst=target)


def _apply_optical_mix(image: Image, target: Image, matrix: Floats) -> None:
    """Mixes optical densities; levels above white become white, levels below black become 0 or 1.

    In float32, which OpenCV computes faster than it looks levels up in a table that is fine enough.
    """
    for_logarithms = matrix * _TO_LOG_TRANSMITTANCE
    for source, result in pixel_chunks(image, target):
        log_transmittance = cv2.LUT(source, _LOG_TRANSMITTANCE)
        mixed = cv2.transform(log_transmittance, for_logarithms)
        cv2.exp(mixed, dst=mixed)
        # The conversion takes absolute values; negative values are above -1 here. Clipping first would take as long again.
        cv2.convertScaleAbs(mixed, dst=result, alpha=256.0, beta=-1.0)


def _apply_stage(image: Image, target: Image, stage: Stage) -> None:
    if type(stage) is Warp:
        apply_warp(image, target, stage)
    elif type(stage) is Lookup:
        _look_up(image, target, stage.parts)
    elif type(stage) is Mix:
        cv2.transform(image, stage.matrix, dst=target)
    elif type(stage) is OpticalMix:
        _apply_optical_mix(image, target, stage.matrix)
    else:
        assert isinstance(stage, Filter)
        stage.apply(image, target, stage.parameters)


def apply_stages(image: Image, target: Image, scratch: Image, stages: Sequence[Stage]) -> None:
    """Applies stages in turn.

    Args:
        image: uint8 (height, width, 3); not written.
        target: What the last stage writes, as ``image``; shares no memory with it.
        scratch: What other stages write, as ``image``; shares no memory with the other two.
        stages: The stages; none copies the image.
    """
    if not stages:
        np.copyto(target, image)
        return
    source = image
    for remaining in range(len(stages), 0, -1):
        destination = target if remaining % 2 else scratch
        _apply_stage(source, destination, stages[-remaining])
        source = destination


def apply_chains(images: Sequence[Image], chains: Sequence[Chain]) -> Images:
    """Applies to each image the steps drawn for it.

    Args:
        images: uint8 (height, width, 3) each, at least one, all of one size; not written.
        chains: One for each image.

    Returns:
        uint8 (n, height, width, 3), a new array.
    """
    out = empty_batch((len(images), *images[0].shape))
    scratch = np.empty(out.shape[1:], np.uint8)
    for image, target, chain in zip(images, out, chains, strict=True):
        apply_stages(image, target, scratch, fuse(chain))
    return out
