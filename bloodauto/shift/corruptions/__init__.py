"""All corruption families, a module for each group. Importing this package registers them."""

from __future__ import annotations

from bloodauto.config.validation import did_you_mean
from bloodauto.errors import RecipeError
from bloodauto.shift.corruptions import artefacts, combined, geometry, light, optics, sensor, stain
from bloodauto.shift.corruptions.registry import GROUPS, REGISTERED, SEVERITIES, SHIFT_FACTORS, CorruptionFamily

__all__ = [
    "FAMILIES",
    "GROUPS",
    "SEVERITIES",
    "SHIFT_FACTORS",
    "CorruptionFamily",
    "artefacts",
    "combined",
    "find_family",
    "geometry",
    "light",
    "optics",
    "sensor",
    "stain",
]

#: All families, in the order of ``GROUPS`` and, within a group, of registration. Plans depend on this order.
FAMILIES: tuple[CorruptionFamily, ...] = tuple(
    sorted(REGISTERED.values(), key=lambda family: GROUPS.index(family.group))
)


def find_family(name: str) -> CorruptionFamily:
    """The family of a name.

    Raises:
        RecipeError: There is none; the message names the nearest one.
    """
    if name in REGISTERED:
        return REGISTERED[name]
    raise RecipeError(f"expected the name of a corruption family, got {name!r}; {did_you_mean(name, REGISTERED)}")
