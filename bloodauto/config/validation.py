"""Turns a validation error into sentences that teach: place, expectation, what came, nearest valid name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bloodauto.run.yaml_files import YamlDocument

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def nearest(word: str, valid: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest valid name, else the list of valid names."""
    names = sorted(valid)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "valid: " + ", ".join(names) if names else ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every model a field's annotation can hold, through unions, optionals, tuples and ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (typing.Union, types.UnionType, tuple, list, typing.Annotated):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def models_at(root: type[BaseModel], path: Iterable[str | int]) -> list[type[BaseModel]]:
    """The models that may stand at a dotted path; a list index and a union member's own name are stepped over."""
    models = [root]
    for part in path:
        if isinstance(part, int):
            continue
        deeper = [
            m for model in models if part in model.model_fields for m in _models_in(model.model_fields[part].annotation)
        ]
        if deeper:
            models = deeper
        elif any(part in model.model_fields for model in models):
            return []
    return models


@dataclass(frozen=True)
class _Problem:
    """One of pydantic's findings.

    Attributes:
        dotted: its path as written in the file. Pydantic also puts the names of union members into it; no file has them.
        unions: for each union on the way, the union's own path and the member that pydantic tried.
        shallow: the last member tried has not the shape of what came.
    """

    item: ErrorDetails
    dotted: str
    unions: tuple[tuple[str, str], ...]
    shallow: bool


def _problem(item: ErrorDetails, root: type[BaseModel]) -> _Problem:
    parts: list[str] = []
    unions: list[tuple[str, str]] = []
    models: list[type[BaseModel]] = [root]
    shallow = False
    for part in item["loc"]:
        known = isinstance(part, str) and any(part in model.model_fields for model in models)
        if isinstance(part, str) and not known and _is_union_member(part, models):
            models = [model for model in models if model.__name__ == part] or models
            unions.append((".".join(parts), part))
            shallow = True
            continue
        shallow = False
        parts.append(str(part))
        if isinstance(part, str):
            models = models_at_children(models, part) or models
    return _Problem(item, ".".join(parts), tuple(unions), shallow)


def _is_union_member(part: str, models: list[type[BaseModel]]) -> bool:
    return part in {model.__name__ for model in models} or part.startswith(("literal[", "str", "tuple["))


def _without_other_shapes(problems: list[_Problem]) -> list[_Problem]:
    """Of each union's members keeps the problems of those that share the shape of what came, of these the nearest."""
    for union in {place for problem in problems for place, _ in problem.unions}:
        by_member: dict[str, list[_Problem]] = {}
        for problem in problems:
            member = dict(problem.unions).get(union)
            if member is not None:
                by_member.setdefault(member, []).append(problem)
        fitting = {name: found for name, found in by_member.items() if not all(one.shallow for one in found)}
        if not fitting and isinstance(next(iter(by_member.values()))[0].item["input"], str):
            fitting = {name: found for name, found in by_member.items() if name.startswith("literal[")}
        if not fitting:
            continue
        fewest = min(len(found) for found in fitting.values())
        kept = {name for name, found in fitting.items() if len(found) == fewest}
        problems = [one for one in problems if dict(one.unions).get(union) is None or dict(one.unions)[union] in kept]
    return problems


def models_at_children(models: list[type[BaseModel]], part: str) -> list[type[BaseModel]]:
    """The models that field ``part`` of any of ``models`` can hold."""
    return [
        m for model in models if part in model.model_fields for m in _models_in(model.model_fields[part].annotation)
    ]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_PLAIN_WORDS = {
    "model_type": "a group of fields",
    "model_attributes_type": "a group of fields",
    "dict_type": "a group of fields",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "too_short": "at least {min_length} of them",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "invalid_key": "a word as a field's name",
}


def _expected(item: ErrorDetails) -> str:
    words = _PLAIN_WORDS.get(item["type"])
    return item["msg"].removeprefix("Input should be ") if words is None else words.format(**item.get("ctx", {}))


def _sentence(problem: _Problem, root: type[BaseModel]) -> str:
    item, last = problem.item, problem.dotted.rpartition(".")[2]
    if item["type"] == "extra_forbidden":
        fields = [name for model in models_at(root, item["loc"][:-1]) for name in model.model_fields]
        return f"no such field; {nearest(last, fields)}"
    if item["type"] == "missing":
        return "missing; it has no default and must be given"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    hint = ""
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        names = [name.strip(" '") for name in item["ctx"]["expected"].replace(" or ", ",").split(",")]
        hint = f"; {nearest(item['input'], names)}"
    return f"expected {_expected(item)}, got {_shown(item['input'])}{hint}"


def _one_of(problems: list[_Problem], root: type[BaseModel]) -> str | None:
    """The sentence for a place where several members of a union fit equally well or badly; None for any other place."""
    members = {problem.unions[-1][1] for problem in problems if problem.unions}
    if len(members) < 2:
        return None
    if all(problem.shallow for problem in problems):
        expected = " or ".join(dict.fromkeys(_expected(problem.item) for problem in problems))
        return f"expected {expected}, got {_shown(problems[0].item['input'])}"
    union = problems[0].unions[-1][0].split(".")
    models = [model for model in models_at(root, union) if model.__name__ in members]
    needed = [name for model in models for name, field in model.model_fields.items() if field.is_required()]
    return f"expected exactly one of {' and '.join(needed)}" if len(models) == len(members) else None


def _is_inside(place: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def explain(error: ValidationError, root: type[BaseModel], origin: YamlDocument | str) -> str:
    """One line for each problem; of a union's alternatives only those that share the value's shape are told."""
    items = error.errors()
    places = [item["loc"] for item in items]
    found = [
        _problem(item, root)
        for item in items
        # Of a list that is too short because its members were wrong, each member has its own line.
        if not (item["type"] == "too_short" and any(_is_inside(place, item["loc"]) for place in places))
    ]
    by_place: dict[tuple[str, bool], list[_Problem]] = {}
    for problem in _without_other_shapes(found):
        in_union = bool(problem.unions)
        place = problem.unions[-1][0] if in_union else problem.dotted
        by_place.setdefault((place, in_union), []).append(problem)
    lines: dict[str, None] = {}
    for (place, _), problems in by_place.items():
        together = _one_of(problems, root)
        told = [(place, together)] if together else [(one.dotted, _sentence(one, root)) for one in problems]
        for dotted, sentence in told:
            where = origin.place(dotted) if isinstance(origin, YamlDocument) else origin
            lines[f"{where}: {dotted}: {sentence}" if dotted else f"{where}: {sentence}"] = None
    return "\n".join(lines)
