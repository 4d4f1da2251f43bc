"""What a corruption family is: one physical cause of shift, graded in five severities."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bloodauto.errors import DataError, RecipeError

#: Causes of shift, in the order in which scores list them.
GROUPS = ("optics", "sensor", "light", "stain", "artefacts", "geometry", "combined")

#: 1 is what one meets on a good day, 4 is still readable for a trained eye, 5 is harsh.
SEVERITIES = (1, 2, 3, 4, 5)

#: (image, level, generator) -> a new image of the same shape.
Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class CorruptionFamily:
    """One kind of corruption.

    Attributes:
        name: unique and stable: ``random_key`` is derived from it.
        group: one of ``GROUPS``.
        unit: what ``levels`` are measured in.
        levels: the physical parameter at severities 1 to 5.
        source: where the corruption comes from, and how ours deviates.
        corrupt: draws direction, position or noise from a generator and applies them at a level.
        fixed_random_key: takes the place of the name's checksum in ``random_key``, so that a family that is renamed
            keeps its images; None: the checksum.
    """

    name: str
    group: str
    unit: str
    levels: tuple[float, float, float, float, float]
    source: str
    corrupt: Corruption
    fixed_random_key: int | None = None

    def __post_init__(self) -> None:
        assert self.group in GROUPS, f"{self.name}: group {self.group!r} is none of {GROUPS}"

    @property
    def random_key(self) -> int:
        """The part of a generator's seed that is this family's own."""
        return zlib.crc32(self.name.encode()) if self.fixed_random_key is None else self.fixed_random_key

    def apply(self, image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
        """Corrupts one image.

        The same generator state at two severities gives the same direction, position and noise pattern, only stronger,
        so that severities can be compared image by image.

        Args:
            image: uint8, (height, width, 3), RGB, 0-255; never changed.
            severity: 1 (mild) to 5 (harsh).
            rng: where every random choice comes from.

        Returns:
            uint8, (height, width, 3), a new array.

        Raises:
            DataError: the image is not a non-empty uint8 (height, width, 3).
            RecipeError: the severity is none of 1 to 5.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise DataError(
                f"{self.name}: expected a non-empty uint8 image (height, width, 3), got {image.dtype} {image.shape}."
            )
        if severity not in SEVERITIES:
            raise RecipeError(f"{self.name}: expected a severity of {SEVERITIES}, got {severity!r}.")
        return self.corrupt(image, self.levels[severity - 1], rng)

    def level_at(self, severity: float) -> float:
        """The physical parameter between two severities, 1 to 5, by interpolation."""
        return float(np.interp(severity, SEVERITIES, self.levels))


@dataclass(frozen=True)
class TrainingCoverage:
    """How much of a family recipes may train on: up to ``severity``, above 0, which may lie between two of its severities."""

    family: str
    severity: float


def short_side_px(image: np.ndarray) -> int:
    """The yardstick for every length: pictures of one cell show the same share of the slide at any resolution."""
    return min(image.shape[:2])


def random_sign(level: float, rng: np.random.Generator) -> float:
    """``level`` or ``-level``, with equal chance."""
    return level if rng.random() < 0.5 else -level


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Rounds and clips float values of a 0-255 scale."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
