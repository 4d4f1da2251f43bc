"""Does a space contain a recipe? If so, with which values of its domains; if not, why not."""

from __future__ import annotations

from typing import Any

from bloodauto.errors import RecipeError
from bloodauto.recipe import Recipe
from bloodauto.space.grammar import Branch, Choice, FloatRange, IntRange, Leaf, Node, Scalar, Sequence, Space
from bloodauto.space.sampling import realise

#: Not part of what a recipe trains.
_LABELS = frozenset({"name", "source"})


class NotInSpace(RecipeError):
    """A space does not contain a recipe; the message says at which field and why."""


def parameters_of(space: Space, recipe: Recipe) -> dict[str, Scalar]:
    """The values of the space's domains that make this very recipe.

    Raises:
        NotInSpace: no values do; names the first field that differs.
    """
    parameters: dict[str, Scalar] = {}
    tree = Branch({key: child for key, child in space.tree.children.items() if key not in _LABELS})
    _match(tree, recipe.canonical(), "", parameters)
    # What the space leaves out has the recipe's defaults there; the recipe must have them too.
    rebuilt = realise(space, parameters)
    difference = _first_difference(rebuilt.canonical(), recipe.canonical(), "")
    if difference is not None:
        path, here, there = difference
        raise NotInSpace(f"{path}: the space has {here!r}, the recipe {there!r}")
    return parameters


def _match(node: Node, value: Any, path: str, parameters: dict[str, Scalar]) -> None:
    where = path if path else "the recipe"
    if isinstance(node, Leaf):
        if not _same(node.value, value):
            raise NotInSpace(f"{where}: the space has {node.value!r}, the recipe {value!r}")
    elif isinstance(node, Branch):
        if not isinstance(value, dict):
            raise NotInSpace(f"{where}: the space has a group of fields, the recipe {value!r}")
        for key, child in node.children.items():
            if key not in value:
                raise NotInSpace(f"{where}: the space has the field '{key}', the recipe has not")
            _match(child, value[key], f"{path}.{key}" if path else key, parameters)
    elif isinstance(node, Sequence):
        if not isinstance(value, list) or len(value) != len(node.items):
            length = len(value) if isinstance(value, list) else 0
            raise NotInSpace(f"{where}: the space has {len(node.items)} items, the recipe {length}")
        for index, (item, child) in enumerate(zip(node.items, value, strict=True)):
            _match(item, child, f"{path}.{index}" if path else str(index), parameters)
    elif isinstance(node, Choice):
        _match_choice(node, value, where, path, parameters)
    else:
        _match_range(node, value, where)
        parameters[node.parameter] = value


def _match_choice(node: Choice, value: Any, where: str, path: str, parameters: dict[str, Scalar]) -> None:
    reasons = []
    for label, member in zip(node.labels, node.members, strict=True):
        inner: dict[str, Scalar] = {}
        try:
            _match(member, value, path, inner)
        except NotInSpace as error:
            reasons.append(str(error))
            continue
        parameters[node.parameter] = label
        parameters.update(inner)
        return
    if all(isinstance(member, Leaf) for member in node.members):
        raise NotInSpace(f"{where}: the space has one of {list(node.labels)}, the recipe {value!r}")
    # The member that fits in name but not in its fields tells most.
    raise NotInSpace(max(reasons, key=len))


def _match_range(node: IntRange | FloatRange, value: Any, where: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(node, IntRange) and not isinstance(value, int)):
        raise NotInSpace(f"{where}: the space has a number, the recipe {value!r}")
    if not node.low <= value <= node.high:
        raise NotInSpace(f"{where}: the space has {node.low:g} to {node.high:g}, the recipe {value!r}")
    if isinstance(node, IntRange) and (value - node.low) % node.step:
        raise NotInSpace(f"{where}: the space has steps of {node.step} from {node.low}, the recipe {value!r}")


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _first_difference(left: Any, right: Any, path: str) -> tuple[str, Any, Any] | None:
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        for key in left:
            found = _first_difference(left[key], right[key], f"{path}.{key}" if path else key)
            if found is not None:
                return found
        return None
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            found = _first_difference(a, b, f"{path}.{index}")
            if found is not None:
                return found
        return None
    return None if _same(left, right) else (path, left, right)
