"""The registry of corruption families: one physical cause of shift each, graded in five severities.

A family is a function with the decorator below, in a module of ``bloodauto.shift.corruptions``. Every other table is read from
here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import cv2
import numpy as np

from bloodauto.errors import DataError, RecipeError
from bloodauto.types import Floats, Image

#: Groups of families, in the order in which scores list them.
GROUPS = ("optics", "sensor", "light", "stain", "artefacts", "geometry", "combined")

#: What may differ at another site, in the order in which it happens to a slide on its way to a file. Stain and light have a
#: factor each for intensity, hue and camera, because these have different causes.
SHIFT_FACTORS = (
    "geometry",
    "stain_intensity",
    "stain_hue",
    "artefacts",
    "exposure",
    "lamp_colour",
    "camera",
    "optics",
    "sensor",
)

#: 1 occurs on a good day, 4 is still readable for a trained eye, 5 is harsh.
SEVERITIES = (1, 2, 3, 4, 5)

#: (image, level, generator) -> a new image of the same shape.
Corruption: TypeAlias = Callable[[Image, float, np.random.Generator], Image]
_Function = TypeVar("_Function", bound=Corruption)


@dataclass(frozen=True)
class CorruptionFamily:
    """One kind of corruption.

    Attributes:
        name: Unique and stable: ``random_key`` is derived from it.
        group: One of ``GROUPS``.
        factor: The one of ``SHIFT_FACTORS`` that it belongs to; None for a family that combines others.
        unit: The unit of ``levels``.
        levels: The physical parameter at severities 1 to 5.
        source: The paper it comes from, and how ours deviates.
        corrupt: Draws direction, position or noise from a generator and applies them at a level.
        fixed_random_key: Takes the place of the name's checksum in ``random_key``, so that a family that is renamed keeps its
            images; None: the checksum.
    """

    name: str
    group: str
    factor: str | None
    unit: str
    levels: tuple[float, float, float, float, float]
    source: str
    corrupt: Corruption
    fixed_random_key: int | None = None

    def __post_init__(self) -> None:
        assert self.group in GROUPS, f"{self.name}: group {self.group!r} is none of {GROUPS}"
        assert self.factor is None or self.factor in SHIFT_FACTORS, f"{self.name}: {self.factor!r} is no shift factor"

    @property
    def random_key(self) -> int:
        """The part of a generator's seed that is this family's own."""
        return zlib.crc32(self.name.encode()) if self.fixed_random_key is None else self.fixed_random_key

    def apply(self, image: Image, severity: int, rng: np.random.Generator) -> Image:
        """Corrupts one image.

        The same generator state at two severities gives the same direction, position and noise pattern, only stronger,
        so that severities can be compared image by image.

        Args:
            image: uint8 (height, width, 3), RGB, 0-255; never changed.
            severity: 1 (mild) to 5 (harsh).
            rng: The source of every random choice.

        Returns:
            uint8 (height, width, 3), a new array.

        Raises:
            DataError: The image is not a non-empty uint8 (height, width, 3).
            RecipeError: The severity is none of 1 to 5.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise DataError(
                f"{self.name}: expected a non-empty uint8 image (height, width, 3), got {image.dtype} {image.shape}."
            )
        if severity not in SEVERITIES:
            raise RecipeError(f"{self.name}: expected a severity of {SEVERITIES}, got {severity!r}.")
        return self.corrupt(image, self.levels[severity - 1], rng)

    def level_at(self, severity: float) -> float:
        """The physical parameter at a severity between 1 and 5, by interpolation."""
        return float(np.interp(severity, SEVERITIES, self.levels))

    def severity_at(self, level: float) -> float:
        """The severity, 1 to 5, of a value of the physical parameter, by interpolation; 0 below the mildest."""
        levels = np.array(self.levels, dtype=float)
        if levels[0] > levels[-1]:
            levels, level = -levels, -level
        return 0.0 if level < levels[0] else float(np.interp(level, levels, SEVERITIES))


REGISTERED: dict[str, CorruptionFamily] = {}
"""Families by name, in the order of registration; ``bloodauto.shift.corruptions.FAMILIES`` is the ordered table."""


def corruption_family(
    name: str,
    *,
    group: str,
    factor: str | None,
    unit: str,
    levels: tuple[float, float, float, float, float],
    source: str,
    fixed_random_key: int | None = None,
) -> Callable[[_Function], _Function]:
    """Registers a function as a corruption family.

    Args:
        name: As ``CorruptionFamily.name``.
        group: As ``CorruptionFamily.group``.
        factor: As ``CorruptionFamily.factor``.
        unit: As ``CorruptionFamily.unit``.
        levels: As ``CorruptionFamily.levels``.
        source: As ``CorruptionFamily.source``.
        fixed_random_key: As ``CorruptionFamily.fixed_random_key``.
    """

    def register(function: _Function) -> _Function:
        assert name not in REGISTERED, f"{name}: expected to be registered once"
        REGISTERED[name] = CorruptionFamily(name, group, factor, unit, levels, source, function, fixed_random_key)
        return function

    return register


def short_side_px(image: Image) -> int:
    """The yardstick for every length: images of one cell show the same part of the slide at any resolution."""
    height, width = image.shape[:2]
    return int(min(height, width))


def random_sign(level: float, rng: np.random.Generator) -> float:
    """``level`` or ``-level``, equally likely."""
    return level if rng.random() < 0.5 else -level


def to_uint8(values: Floats) -> Image:
    """Rounds and clips values of a 0-255 scale."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def map_levels(image: Image, levels: Floats) -> Image:
    """Replaces each level of an image.

    Args:
        image: uint8 (height, width, 3).
        levels: The new level of each of 256 levels, float (256,) or, for each channel, (256, 3) or (256, 1, 3).

    Returns:
        uint8 (height, width, 3), a new array.
    """
    result: Image = cv2.LUT(image, to_uint8(levels))
    return result
