"""Declared experiments beside single recipes: ablations, and ensembles whose members somebody chose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from bloodauto.config.base_model import StrictModel
from bloodauto.config.recipe.recipe import Source
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.validation import did_you_mean, explain_validation_error, place_in
from bloodauto.errors import RecipeError
from bloodauto.run.yaml_files import YamlDocument, read_yaml

_Declared = TypeVar("_Declared", bound=StrictModel)


class AblationVariant(StrictModel):
    """One row of an ablation.

    ``overrides``: new values by dotted path, see ``with_overrides``; none is the base itself. ``published``: what the source
    reports for it.
    """

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.+-]+$")]
    overrides: dict[str, Any] = Field(default_factory=dict)
    published: float | None = None


class Ablation(StrictModel):
    """Variants of one recipe.

    ``base``: a recipe's file, relative to this one. ``published_metric``: what the variants' ``published`` is.
    ``cumulative``: each variant changes the one before it rather than the base.
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
            raise ValueError("published_metric: expected what the published figures are, for example hidden_accuracy")
        return self


class EnsembleMemberRecipe(StrictModel):
    """A recipe's file, relative to the ensemble's, and how much its answers count beside the others'."""

    recipe: str
    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0


class EnsembleRecipes(StrictModel):
    """Recipes that are trained on the same images and whose probabilities are averaged."""

    source: Source
    members: Annotated[tuple[EnsembleMemberRecipe, ...], Field(strict=False, min_length=2)]


def find_recipe_file(name: str | Path) -> Path:
    """The file of a shipped recipe's or ablation's name, or the path itself.

    Raises:
        RecipeError: neither; the message names the nearest shipped one.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    folder = shipped_folder("trials")
    shipped = {file.stem: file for file in sorted([*folder.glob("*.yaml"), *folder.glob("ablations/*.yaml")])}
    if str(name) not in shipped:
        raise RecipeError(
            f"expected a recipe's file or a shipped one, got {str(name)!r}; {did_you_mean(str(name), shipped)}"
        )
    return shipped[str(name)]


def _load(path: Path, kind: type[_Declared]) -> tuple[_Declared, YamlDocument]:
    document = read_yaml(path)
    try:
        return kind.model_validate(document.value), document
    except ValidationError as error:
        raise RecipeError(explain_validation_error(error, kind, place_in(document))) from error


def load_ablation(path: Path) -> tuple[Ablation, YamlDocument]:
    """Reads one ablation, with the file's lines for messages about its changes.

    Raises:
        RecipeError: as ``read_yaml``; every problem found, with its place.
    """
    return _load(path, Ablation)


def load_ensemble_recipes(path: Path) -> EnsembleRecipes:
    """Reads one ensemble.

    Raises:
        RecipeError: as ``load_ablation``, or a member's file that is not there.
    """
    ensemble, document = _load(path, EnsembleRecipes)
    for index, member in enumerate(ensemble.members):
        if not (path.parent / member.recipe).is_file():
            location = f"members.{index}.recipe"
            raise RecipeError(
                f"{document.location(location)}: {location}: expected a recipe's file, found none at {member.recipe}."
            )
    return ensemble
