"""A whole recipe, its id, and how it is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from bloodauto.config.base_model import ListField, StrictModel
from bloodauto.config.recipe.architecture import Backbone, Head, Input
from bloodauto.config.recipe.augmentation import Augmentation
from bloodauto.config.recipe.imbalance import Imbalance
from bloodauto.config.recipe.loss import Loss
from bloodauto.config.recipe.overrides import with_overrides
from bloodauto.config.recipe.stages import Stage
from bloodauto.config.recipe.tta import WeightedTransform
from bloodauto.config.validation import explain_validation_error, place_in
from bloodauto.errors import RecipeError
from bloodauto.run.yaml_files import YamlDocument, dump_yaml, read_yaml

#: Fields that do not change what is trained: labels, and how the trained network is looked through.
NON_TRAINING_FIELDS = frozenset({"name", "source", "tta_transforms"})
#: Groups that a file may have beside a recipe's fields.
_OVERRIDE_GROUPS = ("smoke", "in_domain")


class Source(StrictModel):
    """Where a initial configuration comes from and what was published of it.

    ``published``: figures of this very system, under names that say what they are; ``published_tables``: figures of what
    was compared with it, one table of names for each kind of figure. Accuracies are 0-1.
    ``deviations_from_source``: what the recipe does otherwise than its source, and why.
    ``command``: what trains it as it is declared.
    """

    title: str
    published: dict[str, float] = Field(default_factory=dict)
    published_tables: dict[str, dict[str, float]] = Field(default_factory=dict)
    deviations_from_source: Annotated[tuple[str, ...], ListField] = ()
    command: str = ""
    notes: str = ""


class Recipe(StrictModel):
    """Everything one training needs.

    Example:
        >>> stage = {"epochs": 3, "optimizer": {"name": "adam", "learning_rate": 1e-3}}
        >>> recipe = Recipe.model_validate({"backbone": {"name": "own_cnn", "weights": "none"}, "stages": [stage]})
        >>> recipe.total_epochs
        3
    """

    name: str = ""
    source: Source | None = None
    input: Input = Input()
    backbone: Backbone
    head: Head = Head()
    loss: Loss = Loss()
    imbalance: Imbalance = Imbalance()
    augmentation: Augmentation = Augmentation()
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]
    tta_transforms: Annotated[tuple[WeightedTransform, ...], ListField] = ()

    @model_validator(mode="after")
    def _check_unique_transforms(self) -> Recipe:
        names = [one.transform for one in self.tta_transforms]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(
                f"tta_transforms: expected each view once, got {', '.join(repeated)} more often; add weights"
            )
        return self

    @property
    def total_epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def canonical(self) -> dict[str, Any]:
        """The fields that decide the training, defaults filled in; see ``NON_TRAINING_FIELDS``."""
        return self.model_dump(mode="json", exclude=set(NON_TRAINING_FIELDS))

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
        raise RecipeError(explain_validation_error(error, Recipe, place_in(origin))) from error


def load_recipe(path: str | Path, *, smoke: bool = False, in_domain: bool = False) -> Recipe:
    """Reads one recipe file.

    Beside a recipe's fields the file may have groups of new values by dotted path: ``smoke`` makes a training of seconds of
    it, ``in_domain`` what does best on images of the laboratory it was trained on. They are checked in any case.

    Args:
        path: the file.
        smoke: apply the group ``smoke``.
        in_domain: apply the group ``in_domain``; not together with ``smoke``.

    Raises:
        RecipeError: as ``read_yaml`` and ``parse_recipe``; a smoke variant that is asked for and not declared. A file without
            ``in_domain`` is taken as it is.

    Example:
        >>> from bloodauto.config.shipped import shipped_folder
        >>> load_recipe(shipped_folder("trials") / "tiny_cnn.yaml").backbone.name
        'own_cnn'
    """
    assert not (smoke and in_domain), "expected smoke or in_domain, got both"
    path = Path(path)
    document = read_yaml(path)
    groups = [name for name in _OVERRIDE_GROUPS if isinstance(document.value, dict) and name in document.value]
    if smoke and "smoke" not in groups:
        raise RecipeError(f"{path}: expected a group 'smoke' with the values of a quick trial, found none. Add one.")
    if not groups:
        return parse_recipe(document.value, origin=document)
    plain = {key: value for key, value in document.value.items() if key not in groups}
    recipe = parse_recipe(plain, origin=document)
    variants = {group: _with_override_group(document, plain, group) for group in groups}
    if smoke:
        return variants["smoke"]
    return variants.get("in_domain", recipe) if in_domain else recipe


def _with_override_group(document: YamlDocument, plain: dict[str, Any], group: str) -> Recipe:
    """The recipe with a group's new values."""
    overrides = document.value[group]
    if not isinstance(overrides, dict):
        raise RecipeError(
            f"{document.location(group)}: {group}: expected new values by dotted path, got {overrides!r}."
        )
    changed = with_overrides(plain, overrides, origin=document.location(group))
    own_lines = {
        dotted.removeprefix(f"{group}."): line
        for dotted, line in document.lines.items()
        if dotted.startswith(f"{group}.")
    }
    return parse_recipe(changed, origin=YamlDocument(document.path, changed, {**document.lines, **own_lines}))
