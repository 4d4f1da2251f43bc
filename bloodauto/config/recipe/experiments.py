"""Declared experiments beside single recipes: ablations, and ensembles of given members."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from bloodauto.config.recipe.recipe import Source
from bloodauto.config.validation import explain_validation_error, location_in
from bloodauto.errors import RecipeError
from bloodauto.run.artifacts.base import Record
from bloodauto.run.yaml_files import YamlDocument, read_yaml

_Experiment = TypeVar("_Experiment", bound=Record)


class AblationVariant(Record):
    """One row of an ablation.

    Attributes:
        name: Letters, digits and ``_.+-``.
        overrides: New values by dotted path; see ``with_overrides``. Empty: the base itself.
        published: What the source reports for it.
    """

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.+-]+$")]
    overrides: dict[str, Any] = Field(default_factory=dict)
    published: float | None = None


class Ablation(Record):
    """Variants of one recipe.

    Attributes:
        source: What is reproduced.
        base: File of the recipe, relative to this one.
        published_metric: What the variants' ``published`` values are.
        cumulative: Whether each variant overrides fields of the variant before it instead of the base.
        variants: At least two, of different names.
    """

    source: Source
    base: str
    published_metric: str = ""
    cumulative: bool = False
    variants: Annotated[tuple[AblationVariant, ...], Field(strict=False, min_length=2)]

    @model_validator(mode="after")
    def _check_unique_names(self) -> Ablation:
        names = [variant.name for variant in self.variants]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"variants: expected different names, got {', '.join(repeated)} more than once")
        if any(variant.published is not None for variant in self.variants) and not self.published_metric:
            raise ValueError("published_metric: expected the name of the published metric, for example hidden_accuracy")
        return self


class EnsembleMemberRecipe(Record):
    """A member of an ensemble.

    Attributes:
        recipe: File of the recipe, relative to the ensemble's.
        weight: Of its predictions, relative to the others.
    """

    recipe: str
    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0


class EnsembleRecipes(Record):
    """Recipes that are trained on the same images and whose probabilities are averaged.

    Attributes:
        source: What is reproduced.
        members: At least two.
    """

    source: Source
    members: Annotated[tuple[EnsembleMemberRecipe, ...], Field(strict=False, min_length=2)]


def _load(path: Path, kind: type[_Experiment]) -> tuple[_Experiment, YamlDocument]:
    document = read_yaml(path)
    try:
        return kind.model_validate(document.value), document
    except ValidationError as error:
        raise RecipeError(explain_validation_error(error, kind, location_in(document))) from error


def load_ablation(path: Path) -> tuple[Ablation, YamlDocument]:
    """Reads an ablation, with the file's lines for messages about its overrides.

    Args:
        path: The file.

    Raises:
        RecipeError: As ``read_yaml``; or every problem, with its place.
    """
    return _load(path, Ablation)


def load_ensemble_recipes(path: Path) -> EnsembleRecipes:
    """Reads an ensemble of recipes.

    Args:
        path: The file.

    Raises:
        RecipeError: As ``load_ablation``; or a member's file does not exist.
    """
    ensemble, document = _load(path, EnsembleRecipes)
    for index, member in enumerate(ensemble.members):
        if not (path.parent / member.recipe).is_file():
            location = f"members.{index}.recipe"
            raise RecipeError(
                f"{document.location(location)}: {location}: expected a recipe's file, found none at {member.recipe}."
            )
    return ensemble
