"""Turns a validation error into sentences that teach: place, expectation, what came, nearest valid name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bloodauto.files import YamlDocument


def nearest(word: str, valid: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest valid name, else the list of valid names."""
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


def _dotted(location: tuple[str | int, ...], root: type[BaseModel]) -> str:
    """The path as written in the file: pydantic also puts the names of union members into it, which no file has."""
    parts: list[str] = []
    models: list[type[BaseModel]] = [root]
    for part in location:
        if isinstance(part, int):
            parts.append(str(part))
            continue
        union_member = part not in {field for model in models for field in model.model_fields} and (
            part.startswith(("literal[", "function-", "str", "tuple[", "constrained-"))
            or part in {model.__name__ for model in models}
        )
        if union_member:
            models = [model for model in models if model.__name__ == part] or models
            continue
        parts.append(part)
        models = models_at_children(models, part) or models
    return ".".join(parts)


def models_at_children(models: list[type[BaseModel]], part: str) -> list[type[BaseModel]]:
    """The models that field ``part`` of any of ``models`` can hold."""
    return [
        m for model in models if part in model.model_fields for m in _models_in(model.model_fields[part].annotation)
    ]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def explain(error: ValidationError, root: type[BaseModel], origin: YamlDocument | str) -> str:
    """One line for each problem; of a union's alternatives only those that share the value's shape are told."""
    lines: list[str] = []
    told: set[str] = set()
    for item in error.errors():
        if item["type"] == "too_short" and item["input"]:
            continue  # the members themselves were wrong, and each has its own line
        dotted = _dotted(item["loc"], root)
        place = origin.place(dotted) if isinstance(origin, YamlDocument) else origin
        where = f"{place}: {dotted}" if dotted else place
        last = str(item["loc"][-1]) if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            fields = [f for model in models_at(root, item["loc"][:-1]) for f in model.model_fields]
            told_text = f"{where}: no such field; {nearest(last, fields)}"
        elif item["type"] == "missing":
            told_text = f"{where}: missing; it has no default and must be given"
        elif item["type"] == "value_error":
            told_text = f"{where}: {item['ctx']['error']}"
        elif item["type"] == "literal_error":
            expected = item["ctx"]["expected"]
            names = [name.strip(" '") for name in expected.replace(" or ", ",").split(",")]
            came = item["input"]
            hint = f"; {nearest(came, names)}" if isinstance(came, str) else ""
            told_text = f"{where}: expected {expected}, got {_shown(came)}{hint}"
        else:
            message = item["msg"].removeprefix("Input should be ")
            told_text = f"{where}: expected {message}, got {_shown(item['input'])}"
        if told_text not in told:
            told.add(told_text)
            lines.append(told_text)
    return "\n".join(lines)
