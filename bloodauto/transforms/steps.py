"""The vocabulary between drawing and applying: what was drawn for one image, ready to be fused and applied.

A policy draws a *chain* of steps for every image; :mod:`bloodauto.transforms.engine` fuses and applies it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bloodauto.types import Floats, Image

if TYPE_CHECKING:
    from bloodauto.transforms.lookup_tables import Statistics

#: A point-wise operation, as a table or a ramp; see :mod:`bloodauto.transforms.lookup_tables`.
LevelMap: TypeAlias = NDArray[np.uint8] | Floats


class Kind(Enum):
    """How an operation acts, which decides what it can be fused with."""

    GEOMETRIC = "geometric"  # moves pixels by an affine map; neighbours fuse into one warp
    POINTWISE = "pointwise"  # maps level to level; neighbours fuse into one table
    COLOUR = "colour"  # mixes the channels of a pixel by a 3x4 matrix; not fused
    OPTICAL = "optical"  # mixes optical densities by a 3x4 matrix; not fused
    FILTER = "filter"  # needs neighbouring pixels, noise or a codec; not fused


class Warp(NamedTuple):
    """An affine map from output pixels to input pixels; outside the image it reads the reflection about the edge.

    The edge pixel is a part of the reflection (``cba|abc|cba``), as in keras-cv and TensorFlow.

    Attributes:
        matrix: float64 (3, 3), last row 0 0 1; maps (x, y, 1) of the output to the position in the input. Pixel centres
            have integer coordinates.
        lossless: Whether the map permutes pixels (flips and quarter turns of a square), so that nothing is interpolated.
    """

    matrix: Floats
    lossless: bool = False


class Levels(NamedTuple):
    """A point-wise operation that does not depend on the image.

    Attributes:
        values: A table, uint8 (256,) or (256, 3), or a ramp, float64 (3, 4).
    """

    values: LevelMap


class Adaptive(NamedTuple):
    """A point-wise operation that depends on the image.

    Attributes:
        build: (statistics of the image before this step, strength) -> a table or a ramp.
        strength: The drawn strength.
        gives_ramp: Whether ``build`` returns a ramp.
    """

    build: Callable[[Statistics, float], LevelMap]
    strength: float
    gives_ramp: bool


class Mix(NamedTuple):
    """A mix of the channels of each pixel.

    Attributes:
        matrix: float64 (3, 4); output = matrix[:, :3] @ input + matrix[:, 3], in levels for ``Kind.COLOUR`` and in optical
            densities for ``Kind.OPTICAL``.
    """

    matrix: Floats


class Filter(NamedTuple):
    """An operation that is applied on its own.

    Attributes:
        apply: ``(image, target, parameters) -> None``; reads ``image`` and writes ``target``.
        parameters: What was drawn, in physical units.
    """

    apply: Callable[[Image, Image, Any], None]
    parameters: Any


Payload: TypeAlias = Warp | Levels | Adaptive | Mix | Filter


class Step(NamedTuple):
    """One operation, drawn for one image of a known size.

    Attributes:
        operation: The operation's name.
        kind: How it acts.
        payload: What to apply.
    """

    operation: str
    kind: Kind
    payload: Payload


Chain: TypeAlias = list[Step]
