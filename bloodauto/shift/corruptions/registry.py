"""All corruption families, and how to find one by its name."""

from __future__ import annotations

import difflib

from bloodauto.errors import RecipeError
from bloodauto.shift.corruptions import artefacts, geometry, light, optics, sensor, stain
from bloodauto.shift.corruptions import site as laboratory
from bloodauto.shift.corruptions.family import CorruptionFamily

FAMILIES: tuple[CorruptionFamily, ...] = (
    *optics.FAMILIES,
    *sensor.FAMILIES,
    *light.FAMILIES,
    *stain.FAMILIES,
    *artefacts.FAMILIES,
    *geometry.FAMILIES,
    *laboratory.FAMILIES,
)

_BY_NAME = {family.name: family for family in FAMILIES}
assert len(_BY_NAME) == len(FAMILIES), "two families share a name"


def find_family(name: str) -> CorruptionFamily:
    """The family of that name.

    Raises:
        RecipeError: there is none; the message names the nearest one.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    nearest = difflib.get_close_matches(name, _BY_NAME, n=1)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Known families: {', '.join(_BY_NAME)}."
    raise RecipeError(f"expected the name of a corruption family, got {name!r}. {hint}")
