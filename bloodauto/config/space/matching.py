"""Whether a search space contains a recipe: the values of its domains that give the recipe, or the reason why none do."""

from __future__ import annotations

from typing import Any, Self

from bloodauto.config.recipe import NON_TRAINING_FIELDS, Recipe
from bloodauto.config.space.grammar import (
    Choice,
    FloatRange,
    IntRange,
    ListNode,
    MappingNode,
    Node,
    Scalar,
    SearchSpace,
    ValueNode,
)
from bloodauto.config.space.sampling import recipe_from_parameters
from bloodauto.errors import RecipeError

#: Most choices that a message lists.
_MAX_LISTED_CHOICES = 4


class NotInSpace(RecipeError):
    """A search space does not contain a recipe.

    Args:
        path: Dotted path of the field that differs; empty: the whole recipe.
        difference: What the space has there, and what the recipe has.

    Attributes:
        path: The same.
        difference: The same.
    """

    def __init__(self, path: str, difference: str) -> None:
        super().__init__(f"{path if path else 'the recipe'}: {difference}")
        self.path, self.difference = path, difference

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.path, self.difference)


def parameters_of(space: SearchSpace, recipe: Recipe) -> dict[str, Scalar]:
    """The values of a space's domains that give a recipe.

    Args:
        space: The search space.
        recipe: The recipe.

    Returns:
        Values by parameter; of a choice, the member's label.

    Raises:
        NotInSpace: No values do; names the first field that differs.
    """
    tree = MappingNode({key: child for key, child in space.tree.children.items() if key not in NON_TRAINING_FIELDS})
    target = recipe.canonical()
    matching = _Matching()
    while True:
        parameters = matching.parameters(tree, target)
        # Fields that a chosen member leaves out have the defaults; the recipe must have these too.
        difference = _first_difference(recipe_from_parameters(space, parameters).canonical(), target, "")
        if difference is None:
            return parameters
        path, in_space, in_recipe = difference
        matching.rule_out(NotInSpace(path, f"the space has {in_space!r}, the recipe {in_recipe!r}"))


class _Matching:
    """Finds values member by member, without the members that turned out to lack a field of the recipe."""

    def __init__(self) -> None:
        self._ruled_out: dict[tuple[str, Scalar], NotInSpace] = {}
        self._chosen: list[tuple[str, str, Scalar]] = []

    def parameters(self, tree: MappingNode, value: Any) -> dict[str, Scalar]:
        """The values that give ``value``; raises ``NotInSpace`` where there are none."""
        self._chosen = []
        parameters: dict[str, Scalar] = {}
        self._match(tree, value, "", parameters)
        return parameters

    def rule_out(self, reason: NotInSpace) -> None:
        """Rules out the innermost chosen member around the reason's path; raises the reason where there is none."""
        around = [
            (len(path), parameter, label)
            for path, parameter, label in self._chosen
            if reason.path == path or reason.path.startswith(f"{path}.")
        ]
        if not around:
            raise reason
        # Of a choice that is itself a member of a choice at the same path, the inner one was recorded first.
        _, parameter, label = max(around, key=lambda entry: entry[0])
        self._ruled_out[parameter, label] = reason

    def _match(self, node: Node, value: Any, path: str, parameters: dict[str, Scalar]) -> None:
        if isinstance(node, ValueNode):
            if not _same(node.value, value):
                raise NotInSpace(path, f"the space has {node.value!r}, the recipe {value!r}")
        elif isinstance(node, MappingNode):
            if not isinstance(value, dict):
                raise NotInSpace(path, f"the space has a group of fields, the recipe {value!r}")
            for key, child in node.children.items():
                if key not in value:
                    raise NotInSpace(path, f"the space has the field '{key}', the recipe has not")
                self._match(child, value[key], f"{path}.{key}" if path else key, parameters)
        elif isinstance(node, ListNode):
            if not isinstance(value, list) or len(value) != len(node.items):
                length = f"{len(value)}" if isinstance(value, list) else repr(value)
                raise NotInSpace(path, f"the space has {len(node.items)} items, the recipe {length}")
            for index, (item, child) in enumerate(zip(node.items, value, strict=True)):
                self._match(item, child, f"{path}.{index}", parameters)
        elif isinstance(node, Choice):
            self._match_choice(node, value, path, parameters)
        else:
            _match_range(node, value, path)
            # An integer range may stand in a field of floats, where the recipe has 2.0 for 2.
            parameters[node.parameter] = int(value) if isinstance(node, IntRange) else value

    def _match_choice(self, node: Choice, value: Any, path: str, parameters: dict[str, Scalar]) -> None:
        reasons = []
        for label, member in zip(node.labels, node.members, strict=True):
            if (node.parameter, label) in self._ruled_out:
                reasons.append(self._ruled_out[node.parameter, label])
                continue
            inner: dict[str, Scalar] = {}
            num_chosen = len(self._chosen)
            try:
                self._match(member, value, path, inner)
            except NotInSpace as error:
                reasons.append(error)
                del self._chosen[num_chosen:]
                continue
            self._chosen.append((path, node.parameter, label))
            parameters[node.parameter] = label
            parameters.update(inner)
            return
        if all(isinstance(member, ValueNode) for member in node.members):
            few = len(node.labels) <= _MAX_LISTED_CHOICES
            choices = f"one of {list(node.labels)}" if few else f"one of {len(node.labels)} others"
            raise NotInSpace(path, f"the space has {choices}, the recipe {value!r}")
        # The most informative reason is that of the member that fits in name, and as far down as possible.
        raise max(reasons, key=lambda reason: (not reason.path.endswith(".name"), reason.path.count(".")))


def _match_range(node: IntRange | FloatRange, value: Any, path: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(node, IntRange) and value != int(value)):
        kind = "a whole number" if isinstance(node, IntRange) else "a number"
        raise NotInSpace(path, f"the space has {kind}, the recipe {value!r}")
    if not node.low <= value <= node.high:
        raise NotInSpace(path, f"the space has {node.low:g} to {node.high:g}, the recipe {value!r}")
    if isinstance(node, IntRange) and (value - node.low) % node.step:
        raise NotInSpace(path, f"the space has steps of {node.step} from {node.low}, the recipe {value!r}")


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _first_difference(left: Any, right: Any, path: str) -> tuple[str, Any, Any] | None:
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        for key in left:
            difference = _first_difference(left[key], right[key], f"{path}.{key}" if path else key)
            if difference is not None:
                return difference
        return None
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            difference = _first_difference(a, b, f"{path}.{index}")
            if difference is not None:
                return difference
        return None
    return None if _same(left, right) else (path, left, right)
