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


def did_you_mean(word: str, valid: Iterable[str]) -> str:
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


def models_at_path(root: type[BaseModel], path: Iterable[str | int]) -> list[type[BaseModel]]:
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

    details: ErrorDetails
    dotted: str
    unions: tuple[tuple[str, str], ...]
    wrong_shape: bool


def _problem(details: ErrorDetails, root: type[BaseModel]) -> _Problem:
    parts: list[str] = []
    unions: list[tuple[str, str]] = []
    models: list[type[BaseModel]] = [root]
    wrong_shape = False
    for part in details["loc"]:
        known = isinstance(part, str) and any(part in model.model_fields for model in models)
        if isinstance(part, str) and not known and _is_union_member(part, models):
            models = [model for model in models if model.__name__ == part] or models
            unions.append((".".join(parts), part))
            wrong_shape = True
            continue
        wrong_shape = False
        parts.append(str(part))
        if isinstance(part, str):
            models = child_models(models, part) or models
    return _Problem(details, ".".join(parts), tuple(unions), wrong_shape)


def _is_union_member(part: str, models: list[type[BaseModel]]) -> bool:
    return part in {model.__name__ for model in models} or part.startswith(("literal[", "str", "tuple["))


def _keep_closest_members(problems: list[_Problem]) -> list[_Problem]:
    """Of each union's members keeps the problems of those that share the shape of what came, of these the nearest."""
    for union in {location for problem in problems for location, _ in problem.unions}:
        by_member: dict[str, list[_Problem]] = {}
        for problem in problems:
            member = dict(problem.unions).get(union)
            if member is not None:
                by_member.setdefault(member, []).append(problem)
        fitting = {name: found for name, found in by_member.items() if not all(one.wrong_shape for one in found)}
        if not fitting and isinstance(next(iter(by_member.values()))[0].details["input"], str):
            fitting = {name: found for name, found in by_member.items() if name.startswith("literal[")}
        if not fitting:
            continue
        fewest = min(len(found) for found in fitting.values())
        kept = {name for name, found in fitting.items() if len(found) == fewest}
        problems = [one for one in problems if dict(one.unions).get(union) is None or dict(one.unions)[union] in kept]
    return problems


def child_models(models: list[type[BaseModel]], part: str) -> list[type[BaseModel]]:
    """The models that field ``part`` of any of ``models`` can hold."""
    return [
        m for model in models if part in model.model_fields for m in _models_in(model.model_fields[part].annotation)
    ]


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_EXPECTED_PHRASES = {
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


def _expected(details: ErrorDetails) -> str:
    words = _EXPECTED_PHRASES.get(details["type"])
    return details["msg"].removeprefix("Input should be ") if words is None else words.format(**details.get("ctx", {}))


def _sentence(problem: _Problem, root: type[BaseModel]) -> str:
    details, last = problem.details, problem.dotted.rpartition(".")[2]
    if details["type"] == "extra_forbidden":
        fields = [name for model in models_at_path(root, details["loc"][:-1]) for name in model.model_fields]
        return f"no such field; {did_you_mean(last, fields)}"
    if details["type"] == "missing":
        return "missing; it has no default and must be given"
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    hint = ""
    if details["type"] == "literal_error" and isinstance(details["input"], str):
        names = [name.strip(" '") for name in details["ctx"]["expected"].replace(" or ", ",").split(",")]
        hint = f"; {did_you_mean(details['input'], names)}"
    return f"expected {_expected(details)}, got {_short_repr(details['input'])}{hint}"


def _union_sentence(problems: list[_Problem], root: type[BaseModel]) -> str | None:
    """The sentence for a place where several members of a union fit equally well or badly; None for any other place."""
    members = {problem.unions[-1][1] for problem in problems if problem.unions}
    if len(members) < 2:
        return None
    if all(problem.wrong_shape for problem in problems):
        expected = " or ".join(dict.fromkeys(_expected(problem.details) for problem in problems))
        return f"expected {expected}, got {_short_repr(problems[0].details['input'])}"
    union = problems[0].unions[-1][0].split(".")
    models = [model for model in models_at_path(root, union) if model.__name__ in members]
    needed = [name for model in models for name, field in model.model_fields.items() if field.is_required()]
    return f"expected exactly one of {' and '.join(needed)}" if len(models) == len(members) else None


def _is_inside(location: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(location) > len(outer) and location[: len(outer)] == outer


def explain_validation_error(error: ValidationError, root: type[BaseModel], origin: YamlDocument | str) -> str:
    """One line for each problem; of a union's alternatives only those that share the value's shape are told."""
    items = error.errors()
    places = [details["loc"] for details in items]
    found = [
        _problem(details, root)
        for details in items
        # Of a list that is too short because its members were wrong, each member has its own line.
        if not (details["type"] == "too_short" and any(_is_inside(location, details["loc"]) for location in places))
    ]
    by_place: dict[tuple[str, bool], list[_Problem]] = {}
    for problem in _keep_closest_members(found):
        in_union = bool(problem.unions)
        location = problem.unions[-1][0] if in_union else problem.dotted
        by_place.setdefault((location, in_union), []).append(problem)
    lines: dict[str, None] = {}
    for (location, _), problems in by_place.items():
        together = _union_sentence(problems, root)
        told = [(location, together)] if together else [(one.dotted, _sentence(one, root)) for one in problems]
        for dotted, sentence in told:
            where = origin.location(dotted) if isinstance(origin, YamlDocument) else origin
            lines[f"{where}: {dotted}: {sentence}" if dotted else f"{where}: {sentence}"] = None
    return "\n".join(lines)
