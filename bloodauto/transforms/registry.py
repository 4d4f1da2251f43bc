"""The registry of image operations: their specifications, joined by name with the code that applies them.

An operation is a function with one of the decorators below, in a module of ``bloodauto.transforms.operations``, and an entry of
the same name in ``bloodauto.config.recipe.operations``. Every other table is read from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from bloodauto.config.recipe import OPERATION_SPECS, OperationSpec, RangeScale, StrengthSampling
from bloodauto.transforms.lookup_tables import Statistics
from bloodauto.transforms.steps import Adaptive, Filter, Kind, LevelMap, Levels, Mix, Payload, Warp
from bloodauto.types import Floats, Image

#: Uniform numbers drawn for each operation on each image: one for the strength, the others for directions, positions, ...
UNIFORMS_PER_STEP = 7

#: An operation's strength, in its unit -> the level of a corruption family that looks like it, in the family's unit.
LevelOfStrength = Callable[[float], float]

#: (strengths (m,), uniform numbers (m, UNIFORMS_PER_STEP - 1), height, width) -> m payloads.
_Build = Callable[[Floats, Floats, int, int], Sequence[Payload]]

_STRENGTHS_OF_VALUES: dict[RangeScale, Callable[[Floats], Floats]] = {
    RangeScale.STRENGTH: lambda values: values,
    RangeScale.FACTOR: lambda values: values - 1.0,
    RangeScale.MAGNIFICATION: np.log2,
    RangeScale.QUALITY: lambda values: 100.0 - values,
}


@dataclass(frozen=True)
class Operation:
    """One image operation.

    Attributes:
        spec: What recipes know of it.
        kind: How it acts, which decides what it is fused with.
        build: (strengths in the operation's unit, float64 (m,); uniform numbers in [0, 1), float64 (m, 6); height and width
            of the images in pixels) -> what each of the m images needs to be applied.
        covers: Corruption families of the shift suite that training on the operation covers: name -> the level of the family
            that looks like a strength of the operation.
    """

    spec: OperationSpec
    kind: Kind
    build: _Build
    covers: Mapping[str, LevelOfStrength]

    @property
    def name(self) -> str:
        """The name in recipes."""
        return self.spec.name

    @property
    def has_strength(self) -> bool:
        """Whether a magnitude changes the effect."""
        return self.spec.sampling is not StrengthSampling.ALWAYS

    def sample_strengths(self, magnitudes: Floats, uniforms: Floats) -> Floats:
        """Draws strengths.

        Args:
            magnitudes: float64 (m,), in [0, 1].
            uniforms: float64 (m,), in [0, 1).

        Returns:
            float64 (m,), in the operation's unit.
        """
        limits = self.spec.limit * magnitudes
        if self.spec.sampling is StrengthSampling.SIGNED:
            return limits * np.where(uniforms < 0.5, -1.0, 1.0)
        if self.spec.sampling is StrengthSampling.UNIFORM:
            return limits * uniforms
        if self.spec.sampling is StrengthSampling.SYMMETRIC:
            return limits * (2.0 * uniforms - 1.0)
        return limits

    def strengths_of(self, values: Floats) -> Floats:
        """Values of the operation's range, float64 (m,) -> strengths, float64 (m,).

        Only for operations with a strength.
        """
        assert self.spec.range is not None, f"{self.name} has no strength"
        return _STRENGTHS_OF_VALUES[self.spec.range.scale](values)

    def prepare(self, magnitudes: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Payload]:
        """What was drawn for m images -> what each of them needs to be applied.

        Args:
            magnitudes: float64 (m,), in [0, 1].
            uniforms: float64 (m, UNIFORMS_PER_STEP), in [0, 1).
            height: The height of the images in pixels.
            width: The width of the images in pixels.

        Returns:
            One payload for each image.
        """
        return self.build(self.sample_strengths(magnitudes, uniforms[:, 0]), uniforms[:, 1:], height, width)

    def with_strengths_as_magnitudes(self) -> Operation:
        """The same operation, which takes the magnitudes that it is given for strengths in its unit."""
        return replace(self, spec=replace(self.spec, sampling=StrengthSampling.EXACT, limit=1.0))


REGISTERED: dict[str, Operation] = {}
"""Operations by name, in the order of registration; ``bloodauto.transforms.operations.OPERATIONS`` is the complete table."""


def _register(name: str, kind: Kind, build: _Build, covers: Mapping[str, LevelOfStrength]) -> None:
    assert name in OPERATION_SPECS, f"{name}: expected an entry in bloodauto.config.recipe.operations"
    assert name not in REGISTERED, f"{name}: expected to be registered once"
    REGISTERED[name] = Operation(OPERATION_SPECS[name], kind, build, covers)


class _BuildsMatrices(Protocol):
    def __call__(self, strengths: Floats, uniforms: Floats, height: int, width: int, /) -> Floats: ...


class _BuildsLevels(Protocol):
    def __call__(self, strengths: Floats, uniforms: Floats, /) -> LevelMap: ...


class _AdaptsLevels(Protocol):
    def __call__(self, statistics: Statistics, strength: float, /) -> LevelMap: ...


class _BuildsMixes(Protocol):
    def __call__(self, strengths: Floats, uniforms: Floats, /) -> Floats: ...


class _AppliesFilter(Protocol):
    def __call__(self, image: Image, target: Image, parameters: Any, /) -> None: ...


class _DrawsParameters(Protocol):
    def __call__(self, strengths: Floats, uniforms: Floats, height: int, width: int, /) -> Sequence[Any]: ...


_Geometric = TypeVar("_Geometric", bound=_BuildsMatrices)
_Pointwise = TypeVar("_Pointwise", bound=_BuildsLevels)
_Adaptive = TypeVar("_Adaptive", bound=_AdaptsLevels)
_Mixing = TypeVar("_Mixing", bound=_BuildsMixes)
_Filtering = TypeVar("_Filtering", bound=_AppliesFilter)


def geometric(
    name: str, *, covers: Mapping[str, LevelOfStrength], lossless: bool = False
) -> Callable[[_Geometric], _Geometric]:
    """Registers an operation that moves pixels by an affine map.

    The function takes strengths (m,), uniform numbers (m, 6), height and width, and returns maps from output to input pixels,
    float64 (m, 3, 3).

    Args:
        name: The operation's name.
        covers: As ``Operation.covers``.
        lossless: Whether it permutes the pixels of a square image.
    """

    def register(function: _Geometric) -> _Geometric:
        def build(strengths: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Payload]:
            permutes = lossless and height == width
            return [Warp(matrix, permutes) for matrix in function(strengths, uniforms, height, width)]

        _register(name, Kind.GEOMETRIC, build, covers)
        return function

    return register


def pointwise(name: str, *, covers: Mapping[str, LevelOfStrength]) -> Callable[[_Pointwise], _Pointwise]:
    """Registers an operation that maps level to level, whatever the image.

    The function takes strengths (m,) and uniform numbers (m, 6), and returns tables, uint8 (m, 256) or (m, 256, 3), or ramps,
    float64 (m, 3, 4).

    Args:
        name: The operation's name.
        covers: As ``Operation.covers``.
    """

    def register(function: _Pointwise) -> _Pointwise:
        def build(strengths: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Payload]:
            return [Levels(values) for values in function(strengths, uniforms)]

        _register(name, Kind.POINTWISE, build, covers)
        return function

    return register


def adaptive(
    name: str, *, gives: Literal["ramp", "table"], covers: Mapping[str, LevelOfStrength]
) -> Callable[[_Adaptive], _Adaptive]:
    """Registers an operation that maps level to level, depending on the image.

    The function takes the statistics of the image and the strength, and returns a table, uint8 (256, 3), or a ramp, float64
    (3, 4).

    Args:
        name: The operation's name.
        gives: Which of the two it returns.
        covers: As ``Operation.covers``.
    """

    def register(function: _Adaptive) -> _Adaptive:
        def build(strengths: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Payload]:
            return [Adaptive(function, strength, gives == "ramp") for strength in strengths.tolist()]

        _register(name, Kind.POINTWISE, build, covers)
        return function

    return register


def channel_mix(
    name: str, *, covers: Mapping[str, LevelOfStrength], of: Literal["levels", "densities"] = "levels"
) -> Callable[[_Mixing], _Mixing]:
    """Registers an operation that mixes the channels of each pixel.

    The function takes strengths (m,) and uniform numbers (m, 6), and returns matrices, float64 (m, 3, 4).

    Args:
        name: The operation's name.
        covers: As ``Operation.covers``.
        of: Whether levels or optical densities are mixed.
    """
    kind = Kind.COLOUR if of == "levels" else Kind.OPTICAL

    def register(function: _Mixing) -> _Mixing:
        def build(strengths: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Payload]:
            return [Mix(matrix) for matrix in function(strengths, uniforms)]

        _register(name, kind, build, covers)
        return function

    return register


def image_filter(
    name: str, *, draw: _DrawsParameters, covers: Mapping[str, LevelOfStrength]
) -> Callable[[_Filtering], _Filtering]:
    """Registers an operation that needs neighbouring pixels, noise or a codec.

    The function takes an image, the target that it writes, both uint8 (height, width, 3), and the parameters of the image.

    Args:
        name: The operation's name.
        draw: Takes strengths (m,), uniform numbers (m, 6), height and width, and returns the parameters of each image.
        covers: As ``Operation.covers``.
    """

    def register(function: _Filtering) -> _Filtering:
        def build(strengths: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Payload]:
            return [Filter(function, parameters) for parameters in draw(strengths, uniforms, height, width)]

        _register(name, Kind.FILTER, build, covers)
        return function

    return register
