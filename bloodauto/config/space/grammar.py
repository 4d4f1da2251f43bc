"""The grammar of search spaces: a recipe in which any value may be a domain.

    {choice: [a, b, ...]}    one of these; a member may be a subtree with domains of its own
    {int: [low, high]}       a whole number, both ends included; optional ``log: true``, ``step: 2``
    {float: [low, high]}     a number; optional ``log: true``

A domain inside a member of a choice is sampled only when that member is chosen: that is a conditional parameter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bloodauto.config.space.names import DomainPath, PathPart, dotted_path, parameter_names
from bloodauto.config.validation import nearest_name
from bloodauto.errors import RecipeError
from bloodauto.run.yaml_files import YamlDocument, read_versioned_yaml

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from ``low`` to ``high``, both included, in steps of ``step``.

    Attributes:
        parameter: Its name in the study, short and unique in its space.
        path: Dotted path in the recipe, with the labels of the choices that it lies in.
        low: The smallest value.
        high: The largest value.
        log: Whether it is sampled uniformly in the logarithm.
        step: Distance of neighbouring values.
    """

    parameter: str
    path: str
    low: int
    high: int
    log: bool
    step: int

    def describe(self) -> str:
        """The domain in one line of text."""
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{_shown(self)}: whole number {self.low} to {self.high}{step}{', log' if self.log else ''}"


@dataclass(frozen=True)
class FloatRange:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        parameter: Its name in the study, short and unique in its space.
        path: Dotted path in the recipe, with the labels of the choices that it lies in.
        low: The smallest value.
        high: The largest value.
        log: Whether it is sampled uniformly in the logarithm.
    """

    parameter: str
    path: str
    low: float
    high: float
    log: bool

    def describe(self) -> str:
        """The domain in one line of text."""
        return f"{_shown(self)}: {self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of several members.

    Attributes:
        parameter: Its name in the study, short and unique in its space.
        path: Dotted path in the recipe, with the labels of the choices that it lies in.
        labels: The label of each member in the study, all different.
        members: Values, or subtrees with domains of their own.
    """

    parameter: str
    path: str
    labels: tuple[Scalar, ...]
    members: tuple[Node, ...]

    def describe(self) -> str:
        """The domain in one line of text."""
        return f"{_shown(self)}: one of {', '.join(str(label) for label in self.labels)}"


@dataclass(frozen=True)
class MappingNode:
    """A mapping."""

    children: Mapping[str, Node]


@dataclass(frozen=True)
class ListNode:
    """A list."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class ValueNode:
    """A plain value."""

    value: Scalar


Domain = IntRange | FloatRange | Choice


def _shown(domain: Domain) -> str:
    return domain.parameter if domain.parameter == domain.path else f"{domain.parameter} ({domain.path})"


Node = Domain | MappingNode | ListNode | ValueNode


@dataclass(frozen=True)
class SearchSpace:
    """A declared space.

    Attributes:
        name: The file's name without its ending.
        tree: The recipe with domains.
        document: The file, for lines in messages.

    Example:
        >>> from bloodauto.config.shipped import shipped_folder
        >>> space = load_space(shipped_folder("search_spaces") / "tiny.yaml")
        >>> next(space.domains()).describe()
        'backbone_width (backbone.width): one of 16, 32'
    """

    name: str
    tree: MappingNode
    document: YamlDocument

    def domains(self) -> Iterator[Domain]:
        """All domains, outer ones before those inside them."""
        return _domains(self.tree)


def _domains(node: Node) -> Iterator[Domain]:
    if isinstance(node, MappingNode):
        for child in node.children.values():
            yield from _domains(child)
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _domains(item)
    elif isinstance(node, Choice):
        yield node
        for member in node.members:
            yield from _domains(member)
    elif isinstance(node, IntRange | FloatRange):
        yield node


_LONGEST_LABEL = 24
#: A key that is so similar to a keyword, with a list as its value, is a misspelt keyword.
_MISSPELT_KEYWORD = 0.7
_KEYWORDS = ("choice", "int", "float")


class _Parser:
    def __init__(self, document: YamlDocument) -> None:
        self._document = document
        #: Steps of the path of each domain, by the path.
        self.paths: dict[str, DomainPath] = {}

    def fail(self, path: str, message: str) -> RecipeError:
        return RecipeError(f"{self._document.location(path)}: {path}: {message}")

    def node(self, value: Any, path: str, parts: DomainPath) -> Node:
        """Parses a value at ``path`` of the file, and at the path of ``parts`` in the recipe."""
        if isinstance(value, dict):
            keyword = next((keyword for keyword in _KEYWORDS if keyword in value), None)
            if keyword is not None:
                self.paths[dotted_path(parts)] = parts
                return self._domain(keyword, value, path, parts)
            keys = [key for key in value if key not in ("log", "step")]
            if len(keys) == 1 and isinstance(value[keys[0]], list):
                nearest = nearest_name(keys[0].lower(), _KEYWORDS, cutoff=_MISSPELT_KEYWORD)
                if nearest is not None:
                    raise self.fail(_join(path, keys[0]), f"no such domain; did you mean '{nearest}'?")
            return MappingNode(
                {key: self.node(child, _join(path, key), (*parts, PathPart(key))) for key, child in value.items()}
            )
        if isinstance(value, list):
            items = [
                self.node(child, _join(path, str(index)), (*parts, PathPart(str(index))))
                for index, child in enumerate(value)
            ]
            return ListNode(tuple(items))
        if value is None or isinstance(value, str | int | float | bool):
            return ValueNode(value)
        raise self.fail(path, f"expected a number, text, a list or a mapping, got {value!r}")

    def _domain(self, keyword: str, value: dict[str, Any], path: str, parts: DomainPath) -> Domain:
        allowed = {"choice": set(), "int": {"log", "step"}, "float": {"log"}}[keyword]
        extra = sorted(set(value) - {keyword} - allowed)
        if extra:
            beside = f"only {', '.join(sorted(allowed))} may stand" if allowed else "nothing may stand"
            raise self.fail(_join(path, extra[0]), f"{beside} beside '{keyword}', got '{extra[0]}'")
        is_choice = keyword == "choice"
        return self._choice(value, path, parts) if is_choice else self._range(keyword, value, path, dotted_path(parts))

    def _choice(self, value: dict[str, Any], path: str, parts: DomainPath) -> Choice:
        members = value["choice"]
        where = _join(path, "choice")
        if not isinstance(members, list) or not members:
            raise self.fail(where, f"expected a list with at least one member, got {members!r}")
        labels = [_label(member) for member in members]
        for index, label in enumerate(labels):
            # To Python, and so to Optuna, 1, 1.0 and true are the same.
            if any(type(other) is not type(label) and other == label for other in labels[:index]):
                raise self.fail(_join(where, str(index)), f"the member {label!r} equals an earlier one of another kind")
            if label in labels[:index]:
                if members[index] in members[:index]:
                    raise self.fail(_join(where, str(index)), f"the member {label!r} stands in this choice twice")
                labels[index] = json.dumps(members[index], sort_keys=True)
        # A file that is one choice has no field; the error comes later.
        word = parts[-1].word if parts else ""
        nodes = [
            self.node(member, _join(where, str(index)), (*parts[:-1], PathPart(word, str(label), index + 1)))
            for index, (label, member) in enumerate(zip(labels, members, strict=True))
        ]
        dotted = dotted_path(parts)
        return Choice(dotted, dotted, tuple(labels), tuple(nodes))

    def _range(self, keyword: str, value: dict[str, Any], path: str, dotted: str) -> IntRange | FloatRange:
        where, bounds = _join(path, keyword), value[keyword]
        is_int = keyword == "int"
        kinds: tuple[type, ...] = (int,) if is_int else (int, float)
        kind = "whole numbers" if is_int else "numbers"
        if not (
            isinstance(bounds, list)
            and len(bounds) == 2
            and all(isinstance(bound, kinds) and not isinstance(bound, bool) for bound in bounds)
            and all(math.isfinite(bound) for bound in bounds)
        ):
            raise self.fail(where, f"expected two {kind}, [low, high], got {bounds!r}")
        low, high = bounds
        if low > high:
            raise self.fail(where, f"expected low <= high, got {bounds!r}; swap the two")
        log = value.get("log", False)
        if not isinstance(log, bool):
            raise self.fail(_join(path, "log"), f"expected true or false, got {log!r}")
        if log and low <= 0:
            raise self.fail(where, f"expected low > 0 with log: true, got {low!r}")
        if not is_int:
            return FloatRange(dotted, dotted, float(low), float(high), log)
        step = value.get("step", 1)
        if not isinstance(step, int) or isinstance(step, bool) or step < 1:
            raise self.fail(_join(path, "step"), f"expected a whole number of at least 1, got {step!r}")
        if log and step != 1:
            raise self.fail(_join(path, "step"), "expected no step together with log: true; leave one out")
        if (high - low) % step:
            last = high - (high - low) % step
            raise self.fail(
                where, f"expected to reach high in steps of {step}, got {bounds!r}; the last step is {last}"
            )
        return IntRange(dotted, dotted, low, high, log, step)


def _label(member: Any) -> Scalar:
    """The label of a member in the study: a plain member itself, otherwise its name, its first key, or its text."""
    if member is None or isinstance(member, str | int | float | bool):
        return member
    if isinstance(member, dict) and member:
        name = member.get("name")
        return name if isinstance(name, str) else str(next(iter(member)))
    text = json.dumps(member, sort_keys=True)
    return text if len(text) <= _LONGEST_LABEL or not isinstance(member, list) else f"list of {len(member)}"


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def _named(tree: MappingNode, names: Mapping[str, str]) -> MappingNode:
    """The tree with the names of its domains, by path."""

    def named(node: Node) -> Node:
        if isinstance(node, MappingNode):
            return _named(node, names)
        if isinstance(node, ListNode):
            return ListNode(tuple(named(item) for item in node.items))
        if isinstance(node, Choice):
            return replace(node, parameter=names[node.path], members=tuple(named(member) for member in node.members))
        return node if isinstance(node, ValueNode) else replace(node, parameter=names[node.path])

    return MappingNode({key: named(child) for key, child in tree.children.items()})


def load_space(path: str | Path) -> SearchSpace:
    """Reads a search space; ``covering_recipes`` then checks it against the grammar of recipes.

    Args:
        path: The file.

    Raises:
        RecipeError: No YAML, or a domain that is not well formed; with file, line, dotted path, what was expected and what was
            received.

    Example:
        >>> from bloodauto.config.shipped import shipped_folder
        >>> space = load_space(shipped_folder("search_spaces") / "tiny.yaml")
        >>> print(next(iter(space.domains())).describe())
        backbone_width (backbone.width): one of 16, 32

    Example:
        >>> from bloodauto.config.shipped import shipped_folder
        >>> load_space(shipped_folder("search_spaces") / "tiny.yaml").name
        'tiny'
    """
    path = Path(path)
    document = read_versioned_yaml(path)
    parser = _Parser(document)
    if not isinstance(document.value, dict):
        raise RecipeError(f"{path}: expected a recipe's fields, got {document.value!r}")
    tree = parser.node(document.value, "", ())
    if not isinstance(tree, MappingNode):
        raise RecipeError(f"{path}: expected a recipe's fields, got a single domain")
    space = SearchSpace(path.stem, _named(tree, parameter_names(parser.paths)), document)
    for domain in space.domains():
        if domain.path.partition(".")[0].partition("[")[0] == "tta_transforms":
            raise parser.fail(
                "tta_transforms",
                "expected plain values, got a domain: test-time augmentation does not change what is trained; "
                "export-best --tta measures it",
            )
    return space
