"""A whole recipe, its id, and how it is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from bloodauto.errors import RecipeError
from bloodauto.files import YamlDocument, dump_yaml, read_yaml
from bloodauto.grammar_errors import explain
from bloodauto.recipe.architecture import Backbone, Head, Input
from bloodauto.recipe.augmentation import Augmentation
from bloodauto.recipe.loss import Loss
from bloodauto.recipe.stages import Stage
from bloodauto.recipe.strict import Strict


class Source(Strict):
    """Where a declared recipe comes from and what was published of it."""

    title: str
    published: dict[str, float] = Field(default_factory=dict)
    notes: str = ""


class Recipe(Strict):
    """Everything one training needs."""

    name: str = ""
    source: Source | None = None
    input: Input = Input()
    backbone: Backbone
    head: Head = Head()
    loss: Loss = Loss()
    augmentation: Augmentation = Augmentation()
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]

    @property
    def total_epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def canonical(self) -> dict[str, Any]:
        """The fields that decide the training, defaults filled in; name and source left out."""
        return self.model_dump(mode="json", exclude={"name", "source"})

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical form."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_yaml(self) -> str:
        """The recipe as YAML, all defaults written out."""
        return dump_yaml(self.model_dump(mode="json"))


def parse_recipe(value: Any, *, origin: YamlDocument | str) -> Recipe:
    """Plain values -> a recipe.

    Raises:
        RecipeError: every problem found, each with its place, what was expected, what came and the nearest valid name.
    """
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe, origin)) from None


def load_recipe(path: Path) -> Recipe:
    """Reads one recipe file.

    Raises:
        RecipeError: as ``read_yaml`` and ``parse_recipe``.
    """
    document = read_yaml(path)
    return parse_recipe(document.value, origin=document)
