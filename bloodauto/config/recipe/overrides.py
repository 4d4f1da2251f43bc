"""Changing single fields of a recipe that is still plain values, by dotted paths such as ``stages.1.epochs``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from bloodauto.errors import RecipeError


def with_overrides(value: Mapping[str, Any], overrides: Mapping[str, Any], *, origin: str) -> dict[str, Any]:
    """A copy in which each path has its new value, whole groups and lists included; the changes act in their order.

    Groups on the way that are absent or null are created. An item is added to a list by the index after its last. Whether
    the fields exist is for ``parse_recipe`` to say.

    Raises:
        RecipeError: a path leads through a plain value, or past a list's end.
    """
    changed = copy.deepcopy(dict(value))
    for path, new in overrides.items():
        parts = path.split(".")
        place: Any = changed
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            where = ".".join(parts[: depth + 1])
            if isinstance(place, list):
                index = _index(part, place, last=last, where=where, origin=origin)
                if index == len(place):
                    place.append(None)
                key: Any = index
            elif isinstance(place, dict):
                key = part
            else:
                raise RecipeError(
                    f"{origin}: {path}: expected a group of fields at {'.'.join(parts[:depth])}, got {place!r}; "
                    "change that as a whole."
                )
            if last:
                place[key] = copy.deepcopy(new)
            else:
                if isinstance(place, dict) and place.get(key) is None:
                    place[key] = {}
                place = place[key]
    return changed


def _index(part: str, items: list[Any], *, last: bool, where: str, origin: str) -> int:
    highest = len(items) if last else len(items) - 1
    if not part.isdecimal() or int(part) > highest:
        raise RecipeError(
            f"{origin}: {where}: expected the number of one of {len(items)} items, counted from 0"
            f"{f', or {len(items)} to add one' if last else ''}, got {part!r}."
        )
    return int(part)
