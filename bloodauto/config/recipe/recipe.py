"""The recipe: its fields, its id, and how it is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from bloodauto.config.recipe.architecture import Backbone, Head, Input
from bloodauto.config.recipe.augmentation import Augmentation
from bloodauto.config.recipe.imbalance import Imbalance
from bloodauto.config.recipe.loss import Loss
from bloodauto.config.recipe.overrides import with_overrides
from bloodauto.config.recipe.stages import Stage
from bloodauto.config.recipe.tta import WeightedTransform
from bloodauto.config.validation import ListField, explain_validation_error, location_in
from bloodauto.errors import RecipeError
from bloodauto.run.artifacts.base import Record
from bloodauto.run.yaml_files import YamlDocument, dump_yaml, read_versioned_yaml, with_format_version

#: Fields that do not change what is trained: names, sources, and how the trained network is used.
NON_TRAINING_FIELDS = frozenset({"name", "source", "tta_transforms"})
#: Groups of overrides that a file may have beside a recipe's fields.
_OVERRIDE_GROUPS = ("smoke", "in_domain")


class Source(Record):
    """Where an initial configuration comes from, and what was published about it.

    Attributes:
        title: The publication or the system.
        published: Published metrics of this very system, under names that say what they are. Accuracies are 0-1.
        published_tables: Published metrics of what it was compared with: one table of names for each kind of metric.
        deviations_from_source: What the recipe does otherwise than its source, and why.
        command: The command that trains it as it is declared.
        notes: Anything else.
    """

    title: str
    published: dict[str, float] = Field(default_factory=dict)
    published_tables: dict[str, dict[str, float]] = Field(default_factory=dict)
    deviations_from_source: Annotated[tuple[str, ...], ListField] = ()
    command: str = ""
    notes: str = ""


class Recipe(Record):
    """Everything one training needs.

    Attributes:
        name: For people; empty in recipes that a search suggests.
        source: Of initial configurations.
        input: What the network sees.
        backbone: Images to features.
        head: Features to logits.
        loss: What training minimises.
        imbalance: How often the images of each class are used.
        augmentation: What happens to training images.
        batch_size: Images in a step.
        stages: The parts of the training, in their order.
        tta_transforms: Test-time augmentation of the trained network; empty: none. Each transform at most once.

    Example:
        >>> recipe = parse_recipe(
        ...     {
        ...         "backbone": {"name": "own_cnn", "weights": "none"},
        ...         "stages": [{"epochs": 3, "optimizer": {"learning_rate": 1.0e-3}}],
        ...     },
        ...     origin="example",
        ... )
        >>> recipe.total_epochs, recipe.backbone.label
        (3, 'own_cnn_4x16')
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
        names = [transform.transform for transform in self.tta_transforms]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(
                f"tta_transforms: expected each transform once, got {', '.join(repeated)} more often; add the weights"
            )
        return self

    @property
    def total_epochs(self) -> int:
        """The epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def canonical(self) -> dict[str, Any]:
        """The fields that decide the training as plain values, defaults filled in; see ``NON_TRAINING_FIELDS``."""
        return self.model_dump(mode="json", exclude=set(NON_TRAINING_FIELDS))

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical form; the same for recipes that train the same network."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_yaml(self) -> str:
        """The recipe as the text of a file: its format version, then every field, defaults written out."""
        return with_format_version(dump_yaml(self.model_dump(mode="json")))


def parse_recipe(value: Any, *, origin: YamlDocument | str) -> Recipe:
    """Validates plain values as a recipe.

    Args:
        value: Mappings, lists, numbers and text, as YAML gives them.
        origin: The file they come from, or a text that stands for it in messages.

    Raises:
        RecipeError: Every problem, each with its place, what was expected, what was received and the nearest valid name.
    """
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(explain_validation_error(error, Recipe, location_in(origin))) from error


def load_recipe(path: str | Path, *, smoke: bool = False, in_domain: bool = False) -> Recipe:
    """Reads a recipe file.

    Beside a recipe's fields the file may have groups of overrides by dotted path: ``smoke`` makes a training of seconds of it,
    ``in_domain`` what is best on images of the site it was trained on. All groups are checked in any case.

    Args:
        path: The file.
        smoke: Whether the group ``smoke`` is applied.
        in_domain: Whether the group ``in_domain`` is applied where the file has one; not together with ``smoke``.

    Raises:
        RecipeError: As ``read_versioned_yaml`` and ``parse_recipe``; or ``smoke`` is requested and the file has no such group.

    Example:
        >>> from bloodauto.config.shipped import shipped_folder
        >>> load_recipe(shipped_folder("trials") / "tiny_cnn.yaml").backbone.name
        'own_cnn'
    """
    assert not (smoke and in_domain), "expected smoke or in_domain, got both"
    path = Path(path)
    document = read_versioned_yaml(path)
    groups = [name for name in _OVERRIDE_GROUPS if isinstance(document.value, dict) and name in document.value]
    if smoke and "smoke" not in groups:
        raise RecipeError(f"{path}: expected a group 'smoke' with the values of a quick trial, found none. Add one.")
    if not groups:
        return parse_recipe(document.value, origin=document)
    fields = {key: value for key, value in document.value.items() if key not in groups}
    recipe = parse_recipe(fields, origin=document)
    variants = {group: _apply_group(document, fields, group) for group in groups}
    if smoke:
        return variants["smoke"]
    return variants.get("in_domain", recipe) if in_domain else recipe


def _apply_group(document: YamlDocument, fields: dict[str, Any], group: str) -> Recipe:
    """The recipe with the overrides of a group; messages name the group's lines."""
    overrides = document.value[group]
    if not isinstance(overrides, dict):
        raise RecipeError(
            f"{document.location(group)}: {group}: expected new values by dotted path, got {overrides!r}."
        )
    changed = with_overrides(fields, overrides, origin=document.location(group))
    prefix = f"{group}."
    lines = {dotted.removeprefix(prefix): line for dotted, line in document.lines.items() if dotted.startswith(prefix)}
    return parse_recipe(changed, origin=YamlDocument(document.path, changed, {**document.lines, **lines}))
