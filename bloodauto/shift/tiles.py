"""Tiles for a contact sheet: one image in every family at every severity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bloodauto.shift.families import FAMILIES
from bloodauto.shift.family import SEVERITIES, Family


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet: uint8 (height, width, 3) and what stands below it."""

    image: np.ndarray
    caption: str


def severity_tiles(
    image: np.ndarray, rng_seed: int, families: Sequence[Family] = FAMILIES
) -> tuple[tuple[Tile, ...], ...]:
    """One row per family: the clean image, then severities 1 to 5 with the same direction, position and noise.

    Args:
        image: uint8, (height, width, 3), RGB.
        rng_seed: what the random choices derive from; the same in every tile.
        families: which rows.

    Raises:
        DataError: the image is not a non-empty uint8 (height, width, 3).
    """
    rows = []
    for family in families:
        corrupted = (
            Tile(
                family.apply(image, severity, np.random.default_rng(rng_seed)),
                f"{family.name} {family.levels[severity - 1]:g}",
            )
            for severity in SEVERITIES
        )
        rows.append((Tile(image, "clean"), *corrupted))
    return tuple(rows)
