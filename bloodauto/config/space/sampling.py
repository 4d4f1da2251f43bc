"""A search space and values for its domains give a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bloodauto.config.recipe import Recipe, parse_recipe
from bloodauto.config.space.grammar import (
    Choice,
    Domain,
    IntRange,
    ListNode,
    MappingNode,
    Node,
    Scalar,
    SearchSpace,
    ValueNode,
)
from bloodauto.run.yaml_files import YamlDocument

if TYPE_CHECKING:
    import optuna

#: Returns the value of a domain; for a choice, the label of the member.
Chooser = Callable[[Domain], Scalar]


@dataclass(frozen=True)
class _Origin(YamlDocument):
    """Lines of a recipe in the file of its space, whose paths also have the members of choices in them."""

    file_paths: Mapping[str, str]

    def location(self, dotted: str) -> str:
        parts = dotted.split(".")
        while parts and ".".join(parts) not in self.file_paths:
            parts.pop()
        return super().location(self.file_paths.get(".".join(parts), ""))


def _fill(node: Node, choose: Chooser, path: str, file_path: str, file_paths: dict[str, str]) -> Any:
    file_paths[path] = file_path
    if isinstance(node, ValueNode):
        return node.value
    if isinstance(node, MappingNode):
        return {
            key: _fill(child, choose, _join(path, key), _join(file_path, key), file_paths)
            for key, child in node.children.items()
        }
    if isinstance(node, ListNode):
        return [
            _fill(item, choose, _join(path, str(index)), _join(file_path, str(index)), file_paths)
            for index, item in enumerate(node.items)
        ]
    value = choose(node)
    if isinstance(node, Choice):
        index = node.labels.index(value)
        return _fill(node.members[index], choose, path, _join(file_path, f"choice.{index}"), file_paths)
    return value


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def sample_with(space: SearchSpace, choose: Chooser) -> Recipe:
    """The recipe with the values that a function chooses.

    Args:
        space: The search space.
        choose: Called for each domain that is reached, outer ones first.

    Raises:
        RecipeError: The values give no valid recipe.
    """
    file_paths: dict[str, str] = {}
    value = _fill(space.tree, choose, "", "", file_paths)
    return parse_recipe(
        value, origin=_Origin(space.document.path, space.document.value, space.document.lines, file_paths)
    )


def recipe_from_parameters(space: SearchSpace, parameters: Mapping[str, Scalar]) -> Recipe:
    """The recipe with given values.

    Args:
        space: The search space.
        parameters: Values by parameter; of a choice, the member's label.

    Raises:
        RecipeError: The values give no valid recipe.
        KeyError: A domain that is reached has no value.
    """
    return sample_with(space, lambda domain: parameters[domain.parameter])


def sample(space: SearchSpace, trial: optuna.trial.BaseTrial) -> Recipe:
    """The recipe with the values that Optuna suggests.

    Args:
        space: The search space.
        trial: Suggests a value for each domain that is reached, outer ones first.

    Raises:
        RecipeError: The values give no valid recipe.
    """

    def choose(domain: Domain) -> Scalar:
        if isinstance(domain, Choice):
            return trial.suggest_categorical(domain.parameter, domain.labels)
        if isinstance(domain, IntRange):
            return trial.suggest_int(domain.parameter, domain.low, domain.high, log=domain.log, step=domain.step)
        return trial.suggest_float(domain.parameter, domain.low, domain.high, log=domain.log)

    return sample_with(space, choose)


def _extremes(domain: Domain) -> tuple[Scalar, ...]:
    if isinstance(domain, Choice):
        return domain.labels
    return (domain.low, domain.high)


def covering_recipes(space: SearchSpace, *, use_last_values: bool = False) -> Iterator[Recipe]:
    """Recipes in which every member of every choice and both ends of every range occur at least once.

    One domain is varied at a time, so the number of recipes grows with the number of domains, not exponentially. Building them
    all checks a space against the grammar of recipes.

    Args:
        space: The search space.
        use_last_values: Whether the other domains have their last value instead of their first.

    Yields:
        Recipes, all different.

    Raises:
        RecipeError: A value that no recipe may have, with its line in the file.
    """
    ids: set[str] = set()
    for labels, domain in _paths_to_domains(space.tree, {}):
        for value in _extremes(domain):
            fixed = {**labels, domain.parameter: value}
            recipe = _recipe_with_fixed(space, fixed, use_last_values=use_last_values)
            if recipe.id not in ids:
                ids.add(recipe.id)
                yield recipe
    if not ids:
        yield _recipe_with_fixed(space, {}, use_last_values=use_last_values)


def _recipe_with_fixed(space: SearchSpace, fixed: Mapping[str, Scalar], *, use_last_values: bool) -> Recipe:
    """The recipe with some fixed values and the first or last value everywhere else."""
    index = -1 if use_last_values else 0
    return sample_with(space, lambda domain: fixed.get(domain.parameter, _extremes(domain)[index]))


def _paths_to_domains(node: Node, fixed: Mapping[str, Scalar]) -> Iterator[tuple[dict[str, Scalar], Domain]]:
    """Each domain with the labels that must be chosen so that it is reached."""
    if isinstance(node, MappingNode):
        for child in node.children.values():
            yield from _paths_to_domains(child, fixed)
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _paths_to_domains(item, fixed)
    elif isinstance(node, Choice):
        yield dict(fixed), node
        for label, member in zip(node.labels, node.members, strict=True):
            yield from _paths_to_domains(member, {**fixed, node.parameter: label})
    elif not isinstance(node, ValueNode):
        yield dict(fixed), node
