"""The variants of a recipe that are compared: from a declared ablation, or from ``--vary``."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bloodauto.config.recipe import Recipe, load_recipe, parse_recipe, with_overrides
from bloodauto.config.recipe.experiments import load_ablation
from bloodauto.errors import RecipeError
from bloodauto.run.yaml_files import YamlDocument, read_yaml

BASE = "base"
#: Longer values are shortened in the names of variants.
_MAX_VALUE_CHARACTERS = 40


@dataclass(frozen=True)
class Variant:
    """One training of a comparison.

    Attributes:
        name: Unique in the comparison; also the name of its folder.
        recipe: What is trained.
        published: The published figure that it is compared with; None where none is known.
    """

    name: str
    recipe: Recipe
    published: float | None = None


def is_ablation(path: Path) -> bool:
    """Whether a file declares variants rather than one recipe.

    Args:
        path: A YAML file.

    Returns:
        True for an ablation.

    Raises:
        RecipeError: The file cannot be read.
    """
    value = read_yaml(path).value
    return isinstance(value, dict) and "variants" in value


def declared_variants(path: Path, *, smoke: bool = False) -> tuple[tuple[Variant, ...], str]:
    """Reads the variants of a declared ablation.

    Args:
        path: The ablation's file.
        smoke: Changes the smoke variant of its base recipe instead of the base itself.

    Returns:
        The variants in the file's order, and what their published figures are.

    Raises:
        RecipeError: An override makes no recipe; the message names its line.
    """
    ablation, document = load_ablation(path)
    base_path = path.parent / ablation.base
    if not base_path.is_file():
        raise RecipeError(
            f"{document.location('base')}: base: expected a recipe's file, found none at {ablation.base}."
        )
    base = load_recipe(base_path, smoke=smoke).model_dump(mode="json")
    variants = []
    value = base
    for index, declared in enumerate(ablation.variants):
        location = f"variants.{index}.overrides"
        start = value if ablation.cumulative else base
        value = with_overrides(start, declared.overrides, origin=document.location(location))
        prefix = f"{location}."
        lines = {
            dotted.removeprefix(prefix): line for dotted, line in document.lines.items() if dotted.startswith(prefix)
        }
        recipe = parse_recipe(value, origin=YamlDocument(path, value, lines))
        variants.append(Variant(declared.name, recipe, declared.published))
    return tuple(variants), ablation.published_metric


def variants_from_options(recipe: Recipe, vary: Sequence[str]) -> tuple[Variant, ...]:
    """The recipe itself and, one at a time, each value of each ``path=value,value``.

    Args:
        recipe: What is varied.
        vary: Dotted paths with values as in YAML; lists and groups in brackets, for example ``head.dense_units=[],[256]``.

    Returns:
        The variants; the first is the recipe itself.

    Raises:
        RecipeError: A text of another form, or a value that makes no recipe.
    """
    variants = {recipe.id: Variant(BASE, recipe)}
    value = recipe.model_dump(mode="json")
    for text in vary:
        path, separator, values_text = text.partition("=")
        if not separator or not path.strip() or not values_text.strip():
            raise RecipeError(f"--vary: expected path=value,value such as head.dropout=0,0.3,0.6, got {text!r}.")
        field = path.strip()
        for varied in _parse_values(values_text, text):
            origin = f"--vary {path}={_short(varied)}"
            changed = parse_recipe(with_overrides(value, {field: varied}, origin=origin), origin=origin)
            # A value that is the recipe's own makes no new training.
            variants.setdefault(changed.id, Variant(_folder_name(f"{field}={_short(varied)}"), changed))
    names = [variant.name for variant in variants.values()]
    if len(set(names)) < len(names):
        raise RecipeError(
            f"--vary: expected values that can be told apart by their first letters, got {', '.join(names)}."
        )
    if len(variants) < 2:
        raise RecipeError("--vary: expected a value that the recipe does not have already, got none. Name another.")
    return tuple(variants.values())


def check_distinct(variants: Sequence[Variant]) -> None:
    """Checks that no two variants train the same.

    Args:
        variants: What is compared.

    Raises:
        RecipeError: Two variants have recipes of one id.
    """
    seen: dict[str, str] = {}
    for variant in variants:
        if variant.recipe.id in seen:
            raise RecipeError(
                f"{variant.name}: expected something else than {seen[variant.recipe.id]}, but both train the same. "
                "Where recipes are scaled to one --backbone, variants of the backbone become one: leave it out."
            )
        seen[variant.recipe.id] = variant.name


def _parse_values(values_text: str, option_text: str) -> list[Any]:
    try:
        values = YAML(typ="safe", pure=True).load(io.StringIO(f"[{values_text}]"))
    except YAMLError as error:
        raise RecipeError(
            f"--vary: expected values as in YAML, got {option_text!r}; put texts with brackets in quotes."
        ) from error
    return list(values)


def _folder_name(text: str) -> str:
    """A name that is no path: characters that separate folders are replaced."""
    return re.sub(r"[^\w.=,+\[\] {}:-]+", "_", text)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value).replace("None", "null").replace("'", "")
    return text if len(text) <= _MAX_VALUE_CHARACTERS else text[: _MAX_VALUE_CHARACTERS - 3] + "..."
