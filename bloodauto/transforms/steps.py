"""The vocabulary between drawing and applying: what was drawn for one image, ready to be fused and applied.

A policy draws a *chain* of steps for every image; :mod:`bloodauto.transforms.engine` fuses and applies it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from bloodauto.errors import RecipeError


class Kind(Enum):
    """How an operation acts, which decides what it can be fused with."""

    GEOMETRIC = "geometric"  # moves pixels by an affine map; neighbours fuse into one warp
    POINTWISE = "pointwise"  # level to level; neighbours fuse into one table
    COLOUR = "colour"  # mixes the channels of a pixel by a 3x4 matrix; not fused
    OPTICAL = "optical"  # mixes optical densities by a 3x4 matrix; not fused
    FILTER = "filter"  # needs neighbouring pixels or noise; not fused


class Border(NamedTuple):
    """What stands outside the image.

    Attributes:
        mode: ``reflect`` (``cba|abc|cba``: the edge pixel repeats, as in keras-cv and TensorFlow), ``reflect_101``
            (``dcb|abcd|cba``: it does not), ``edge``, ``wrap`` or ``fill``.
        colour: RGB 0-255 for ``fill``.
    """

    mode: str
    colour: tuple[int, int, int] = (0, 0, 0)


BORDER_MODES = ("reflect", "reflect_101", "edge", "wrap")
#: A border as plain values, for recipes: the name of a mode, or an RGB colour to fill with.
BorderValue = str | tuple[int, int, int]


def parse_border(value: BorderValue) -> Border:
    """Plain values -> border.

    Raises:
        RecipeError: neither a known mode nor three integers in 0..255.
    """
    if isinstance(value, str):
        if value in BORDER_MODES:
            return Border(value)
    elif isinstance(value, (tuple, list)) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return Border("fill", (value[0], value[1], value[2]))
    raise RecipeError(
        f"border: expected one of {', '.join(BORDER_MODES)} or an RGB colour of three integers in 0..255, got {value!r}."
    )


class Warp(NamedTuple):
    """An affine map from output pixels to input pixels.

    Attributes:
        matrix: float64 (3, 3), last row 0 0 1; maps (x, y, 1) of the output to the place in the input it is read
            from. Pixel centres have integer coordinates.
        border: what to read outside the image; None where that never happens, or where another step may decide.
        lossless: whether the map permutes pixels (flips and quarter turns of a square), so nothing is interpolated.
    """

    matrix: np.ndarray
    border: Border | None
    lossless: bool = False


class Levels(NamedTuple):
    """What becomes of each level.

    Attributes:
        values: a table, uint8 (256,) or (256, 3), or a ramp, float64 (3, 4); see :mod:`bloodauto.transforms.lookup_tables`.
    """

    values: np.ndarray


class Adaptive(NamedTuple):
    """What becomes of each level, depending on the image.

    Attributes:
        build: (statistics of the image as it stands before this step, strength) -> a table or a ramp.
        strength: the drawn parameter.
        gives_ramp: which of the two.
    """

    build: Callable[[Any, float], np.ndarray]
    strength: float
    gives_ramp: bool


class Mix(NamedTuple):
    """A mix of channels.

    Attributes:
        matrix: float64 (3, 4), output = matrix[:, :3] @ rgb + matrix[:, 3], in levels (COLOUR) or densities (OPTICAL).
    """

    matrix: np.ndarray


class Filter(NamedTuple):
    """An operation of its own.

    Attributes:
        apply: ``(image, target, parameters) -> None``: reads ``image``, writes ``target``, never the other way round.
        parameters: what was drawn, in physical units.
    """

    apply: Callable[[np.ndarray, np.ndarray, Any], None]
    parameters: Any


Payload = Warp | Levels | Adaptive | Mix | Filter


class Step(NamedTuple):
    """One operation, drawn for one image of a known size."""

    operation: str
    kind: Kind
    payload: Payload


Chain = list[Step]
