"""Overrides of single fields of a recipe as plain values, by dotted paths such as ``stages.1.epochs``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from bloodauto.errors import RecipeError


def with_overrides(value: Mapping[str, Any], overrides: Mapping[str, Any], *, origin: str) -> dict[str, Any]:
    """A copy in which each path has its new value, whole groups and lists included.

    Groups on a path that are absent or null are created. The index after the last one of a list appends an item. Whether the
    fields exist is checked by ``parse_recipe``.

    Args:
        value: A recipe as plain values.
        overrides: New values by dotted path, applied in their order.
        origin: Where they come from, for messages.

    Raises:
        RecipeError: A path leads through a plain value, or past the end of a list.

    Example:
        >>> with_overrides({"stages": [{"epochs": 5}]}, {"stages.0.epochs": 8, "loss.name": "focal"}, origin="example")
        {'stages': [{'epochs': 8}], 'loss': {'name': 'focal'}}
    """
    changed = copy.deepcopy(dict(value))
    for path, new in overrides.items():
        _set_value(changed, path, new, origin)
    return changed


def _set_value(value: dict[str, Any], path: str, new: Any, origin: str) -> None:
    parts = path.split(".")
    node: Any = value
    for depth, part in enumerate(parts):
        is_last = depth == len(parts) - 1
        key: str | int
        if isinstance(node, list):
            key = _index(part, node, may_append=is_last, where=f"{origin}: {'.'.join(parts[: depth + 1])}")
            if key == len(node):
                node.append(None)
        elif isinstance(node, dict):
            key = part
        else:
            raise RecipeError(
                f"{origin}: {path}: expected a group of fields at {'.'.join(parts[:depth])}, got {node!r}; "
                "change that as a whole."
            )
        if is_last:
            node[key] = copy.deepcopy(new)
        else:
            if isinstance(node, dict) and node.get(key) is None:
                node[key] = {}
            node = node[key]


def _index(part: str, items: list[Any], *, may_append: bool, where: str) -> int:
    highest = len(items) if may_append else len(items) - 1
    if not part.isdecimal() or int(part) > highest:
        appending = f", or {len(items)} to append one" if may_append else ""
        raise RecipeError(
            f"{where}: expected the number of one of {len(items)} items, counted from 0{appending}, got {part!r}."
        )
    return int(part)
