"""Validation errors as sentences: the place, what was expected, what was received, the nearest valid name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from bloodauto.run.yaml_files import YamlDocument

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def nearest_name(word: str, valid: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The valid name that is most like a word; None where none is like it.

    Args:
        word: what was received.
        valid: the valid names.
        cutoff: smallest similarity, 0-1, as in ``difflib.get_close_matches``.

    Example:
        >>> nearest_name("foccal", ["focal", "cross_entropy"])
        'focal'
    """
    return next(iter(difflib.get_close_matches(word, sorted(valid), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, valid: Iterable[str], *, cutoff: float = 0.6) -> str:
    """A hint for an error message: the nearest valid name, otherwise the list of valid names.

    Args:
        word: what was received.
        valid: the valid names.
        cutoff: as of ``nearest_name``.

    Example:
        >>> did_you_mean("foccal", ["focal", "cross_entropy"])
        "did you mean 'focal'?"
    """
    names = sorted(valid)
    nearest = nearest_name(word, names, cutoff=cutoff)
    if nearest is not None:
        return f"did you mean '{nearest}'?"
    return "valid: " + ", ".join(names) if names else ""


#: A field that takes a list for a tuple: YAML has no tuples. Everything else stays strict.
ListField: Any = Field(strict=False)
_MAX_REPR_CHARACTERS = 80
#: What pydantic's types of errors expected, in the words of our messages.
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


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every model that a field's annotation can hold, inside unions, optionals, tuples and ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (typing.Union, types.UnionType, tuple, list, typing.Annotated):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def models_at_path(root: type[BaseModel], path: Iterable[str | int]) -> list[type[BaseModel]]:
    """The models that can stand at a path; list indices and names of union members in it are skipped."""
    models = [root]
    for part in path:
        if isinstance(part, int):
            continue
        children = child_models(models, part)
        if children:
            models = children
        elif any(part in model.model_fields for model in models):
            return []
    return models


def child_models(models: list[type[BaseModel]], part: str) -> list[type[BaseModel]]:
    """The models that field ``part`` of any of ``models`` can hold."""
    return [
        child
        for model in models
        if part in model.model_fields
        for child in _models_in(model.model_fields[part].annotation)
    ]


@dataclass(frozen=True)
class _Problem:
    """One of pydantic's findings.

    Attributes:
        details: pydantic's own description.
        dotted: path of the value as written in the file; pydantic adds the names of union members, which no file has.
        unions: for each union on the path, the path of the union and the member that pydantic tried.
        wrong_shape: whether the value does not have the shape (mapping, list, text, number) of the last member tried.
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
        is_field = isinstance(part, str) and any(part in model.model_fields for model in models)
        if isinstance(part, str) and not is_field and _is_union_member(part, models):
            members = [model for model in models if model.__name__ == part]
            models = members if members else models
            unions.append((".".join(parts), part))
            wrong_shape = True
            continue
        wrong_shape = False
        parts.append(str(part))
        if isinstance(part, str):
            children = child_models(models, part)
            models = children if children else models
    return _Problem(details, ".".join(parts), tuple(unions), wrong_shape)


def _is_union_member(part: str, models: list[type[BaseModel]]) -> bool:
    return part in {model.__name__ for model in models} or part.startswith(("literal[", "str", "tuple["))


def _keep_closest_members(problems: list[_Problem]) -> list[_Problem]:
    """Keeps, for each union, the problems of the members that share the value's shape and have the fewest problems."""
    for union in {location for problem in problems for location, _ in problem.unions}:
        by_member: dict[str, list[_Problem]] = {}
        for problem in problems:
            member = dict(problem.unions).get(union)
            if member is not None:
                by_member.setdefault(member, []).append(problem)
        candidates = {
            member: group for member, group in by_member.items() if not all(problem.wrong_shape for problem in group)
        }
        if not candidates and isinstance(next(iter(by_member.values()))[0].details["input"], str):
            candidates = {member: group for member, group in by_member.items() if member.startswith("literal[")}
        if not candidates:
            continue
        fewest = min(len(group) for group in candidates.values())
        kept = {member for member, group in candidates.items() if len(group) == fewest}
        problems = [problem for problem in problems if dict(problem.unions).get(union) in (None, *kept)]
    return problems


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_REPR_CHARACTERS else text[: _MAX_REPR_CHARACTERS - 3] + "..."


def _expected(details: ErrorDetails) -> str:
    phrase = _EXPECTED_PHRASES.get(details["type"])
    if phrase is None:
        return details["msg"].removeprefix("Input should be ")
    return phrase.format(**details.get("ctx", {}))


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
    """One sentence for a place where several members of a union fit equally well or badly; None for any other place."""
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


def location_in(origin: YamlDocument | str) -> Callable[[str], str]:
    """Names the place of a dotted path by file, line and path.

    Args:
        origin: the file, or a text that stands for one.

    Returns:
        A function of a dotted path, for ``explain_validation_error``.
    """

    def locate(dotted: str) -> str:
        where = origin.location(dotted) if isinstance(origin, YamlDocument) else origin
        return f"{where}: {dotted}" if dotted else where

    return locate


def explain_validation_error(error: ValidationError, root: type[BaseModel], locate: Callable[[str], str]) -> str:
    """Explains a validation error, one line for each problem.

    Of the alternatives of a union, only those that share the shape of the value are explained.

    Args:
        error: raised by ``root``.
        root: the model that was validated.
        locate: names the location of a dotted path, for example ``location_in(document)``. The path is empty where a
            problem concerns the whole value; an empty name leaves the sentence alone.
    """
    items = error.errors()
    locations = [details["loc"] for details in items]
    problems = [
        _problem(details, root)
        for details in items
        # Of a list that is too short because its members were wrong, each member has its own line.
        if not (details["type"] == "too_short" and any(_is_inside(location, details["loc"]) for location in locations))
    ]
    by_location: dict[tuple[str, bool], list[_Problem]] = {}
    for problem in _keep_closest_members(problems):
        in_union = bool(problem.unions)
        location = problem.unions[-1][0] if in_union else problem.dotted
        by_location.setdefault((location, in_union), []).append(problem)
    lines: dict[str, None] = {}
    for (location, _), group in by_location.items():
        together = _union_sentence(group, root)
        sentences = (
            [(location, together)] if together else [(problem.dotted, _sentence(problem, root)) for problem in group]
        )
        for dotted, sentence in sentences:
            where = locate(dotted)
            lines[f"{where}: {sentence}" if where else sentence] = None
    return "\n".join(lines)
