"""The grammar of spaces: a recipe's tree in which any value may be a domain.

    {choice: [a, b, ...]}                 one of these; a member may be a subtree with domains of its own
    {int: [low, high]}                    a whole number, both ends included; optional ``log: true``, ``step: 2``
    {float: [low, high]}                  a number; optional ``log: true``

A domain inside a member of a choice is sampled only when that member is chosen; that is how conditions are said.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodauto.errors import RecipeError
from bloodauto.run.yaml_files import YamlDocument, read_yaml

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from ``low`` to ``high``, both included, in steps of ``step``."""

    parameter: str
    low: int
    high: int
    log: bool
    step: int

    def describe(self) -> str:
        """One line for people."""
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.parameter}: whole number {self.low} to {self.high}{step}{', log' if self.log else ''}"


@dataclass(frozen=True)
class FloatRange:
    """Numbers from ``low`` to ``high``, both included; ``log``: uniform in the logarithm."""

    parameter: str
    low: float
    high: float
    log: bool

    def describe(self) -> str:
        """One line for people."""
        return f"{self.parameter}: {self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of ``members``, each under its label; a member is any node."""

    parameter: str
    labels: tuple[Scalar, ...]
    members: tuple[Node, ...]

    def describe(self) -> str:
        """One line for people."""
        return f"{self.parameter}: one of {', '.join(str(label) for label in self.labels)}"


@dataclass(frozen=True)
class MappingNode:
    """A mapping with the file path of each child."""

    children: Mapping[str, Node]


@dataclass(frozen=True)
class ListNode:
    """A list of nodes."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class ValueNode:
    """A plain value."""

    value: Scalar


Domain = IntRange | FloatRange | Choice
Node = Domain | MappingNode | ListNode | ValueNode


@dataclass(frozen=True)
class SearchSpace:
    """A declared space.

    Attributes:
        name: the file's stem.
        tree: the recipe with holes.
        document: the file, for places in messages.

    Example:
        >>> from bloodauto.config.shipped import shipped_folder
        >>> space = load_space(shipped_folder("search_spaces") / "tiny.yaml")
        >>> next(space.domains()).describe()
        'backbone.width: one of 16, 32'
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
_KEYWORDS = ("choice", "int", "float")


class _Parser:
    def __init__(self, document: YamlDocument) -> None:
        self._document = document

    def fail(self, path: str, message: str) -> RecipeError:
        return RecipeError(f"{self._document.location(path)}: {path}: {message}")

    def node(self, value: Any, path: str, parameter: str) -> Node:
        """``path``: where it stands in the file; ``parameter``: its name in the study."""
        if isinstance(value, dict):
            keyword = next((word for word in _KEYWORDS if word in value), None)
            if keyword is not None:
                return self._domain(keyword, value, path, parameter)
            words = [word for word in value if word not in ("log", "step")]
            if len(words) == 1 and isinstance(value[words[0]], list):
                close = difflib.get_close_matches(words[0].lower(), _KEYWORDS, n=1, cutoff=0.7)
                if close:
                    raise self.fail(_join(path, words[0]), f"no such domain; did you mean '{close[0]}'?")
            return MappingNode(
                {key: self.node(child, _join(path, key), _join(parameter, key)) for key, child in value.items()}
            )
        if isinstance(value, list):
            items = [
                self.node(child, _join(path, str(index)), _join(parameter, str(index)))
                for index, child in enumerate(value)
            ]
            return ListNode(tuple(items))
        if value is None or isinstance(value, str | int | float | bool):
            return ValueNode(value)
        raise self.fail(path, f"expected a number, a word, a list or a mapping, got {value!r}")

    def _domain(self, keyword: str, value: dict[str, Any], path: str, parameter: str) -> Domain:
        allowed = {"choice": set(), "int": {"log", "step"}, "float": {"log"}}[keyword]
        extra = sorted(set(value) - {keyword} - allowed)
        if extra:
            beside = f"only {', '.join(sorted(allowed))} may stand" if allowed else "nothing may stand"
            raise self.fail(_join(path, extra[0]), f"{beside} beside '{keyword}', got '{extra[0]}'")
        return (
            self._choice(value, path, parameter)
            if keyword == "choice"
            else self._range(keyword, value, path, parameter)
        )

    def _choice(self, value: dict[str, Any], path: str, parameter: str) -> Choice:
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
        nodes = [
            self.node(member, _join(where, str(index)), f"{parameter}[{label}]")
            for index, (label, member) in enumerate(zip(labels, members, strict=True))
        ]
        return Choice(parameter, tuple(labels), tuple(nodes))

    def _range(self, keyword: str, value: dict[str, Any], path: str, parameter: str) -> IntRange | FloatRange:
        where, bounds = _join(path, keyword), value[keyword]
        whole = keyword == "int"
        kinds: tuple[type, ...] = (int,) if whole else (int, float)
        kind = "whole numbers" if whole else "numbers"
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
        if not whole:
            return FloatRange(parameter, float(low), float(high), log)
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
        return IntRange(parameter, low, high, log, step)


def _label(member: Any) -> Scalar:
    """What stands for a member in the study: itself when it is plain, else its name, else its first key, else its text."""
    if member is None or isinstance(member, str | int | float | bool):
        return member
    if isinstance(member, dict) and member:
        name = member.get("name")
        return name if isinstance(name, str) else str(next(iter(member)))
    text = json.dumps(member, sort_keys=True)
    return text if len(text) <= _LONGEST_LABEL or not isinstance(member, list) else f"list of {len(member)}"


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def load_space(path: str | Path) -> SearchSpace:
    """Reads one space file; ``covering_recipes`` then checks it against the grammar of recipes.

    Raises:
        RecipeError: no YAML, or a domain that is not well formed; file, line, dotted path, what was expected, what came.

    Example:
        >>> from bloodauto.config.shipped import shipped_folder
        >>> load_space(shipped_folder("search_spaces") / "tiny.yaml").name
        'tiny'
    """
    path = Path(path)
    document = read_yaml(path)
    parser = _Parser(document)
    if not isinstance(document.value, dict):
        raise RecipeError(f"{path}: expected a recipe's fields, got {document.value!r}")
    tree = parser.node(document.value, "", "")
    if not isinstance(tree, MappingNode):
        raise RecipeError(f"{path}: expected a recipe's fields, got a single domain")
    space = SearchSpace(path.stem, tree, document)
    for domain in space.domains():
        if domain.parameter.partition(".")[0].partition("[")[0] == "tta_transforms":
            raise parser.fail(
                "tta_transforms",
                "expected plain values, got a domain: views do not change what is trained; export-best --tta measures them",
            )
    return space
