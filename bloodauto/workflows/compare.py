"""Whole experiments: ``ablate`` one recipe, ``reproduce`` the published systems on one data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.recipe.experiments import find_recipe_file, load_ensemble_recipes
from bloodauto.config.shipped import shipped_folder
from bloodauto.errors import RecipeError
from bloodauto.run.files import write_text
from bloodauto.workflows.comparison.settings import ExperimentSettings
from bloodauto.workflows.comparison.variants import (
    Variant,
    check_distinct,
    declared_variants,
    is_ablation,
    variants_from_options,
)

if TYPE_CHECKING:
    from bloodauto.workflows.comparison.results import ComparisonRow, RankCorrelations
    from bloodauto.workflows.comparison.runner import ExperimentListener

#: The figure every published system has.
HIDDEN_ACCURACY = "hidden_accuracy"


@dataclass(frozen=True)
class ScaledTraining:
    """How initial configurations are made small; see ``scaling.scaled``."""

    backbone: str
    epochs: int | None
    learning_rate_factor: float


@dataclass(frozen=True)
class ExperimentResult:
    """An experiment that came to its end.

    Attributes:
        rows: one for each variant, then one for each ensemble.
        agreement: of our order with the published one; None where there is none.
        published_metric: what ``Row.published`` is.
        notes: what a reader must know of the figures.
        run: holds ``table.md``, ``table.csv`` and a folder for each variant.
    """

    rows: tuple[ComparisonRow, ...]
    rank_correlations: RankCorrelations | None
    published_metric: str
    notes: tuple[str, ...]
    run: Path


def ablate(
    recipe: str | Path,
    *,
    run: str | Path,
    settings: ExperimentSettings,
    vary: Sequence[str] = (),
    scale: ScaledTraining | None = None,
    listener: ExperimentListener,
    should_stop: Callable[[], bool],
) -> ExperimentResult | None:
    """Trains variants of one recipe on the same images and compares them.

    Args:
        recipe: a recipe with ``vary``, or a declared ablation without; a file or a shipped name.
        vary: ``path=value,value``; each value is one variant beside the recipe itself.
        scale: makes every variant small first; None trains them as declared.

    Returns:
        None when it was told to stop; the same call goes on.

    Raises:
        UserError: a recipe, images, weights or a budget that cannot be used.
    """
    path = find_recipe_file(recipe)
    if is_ablation(path):
        if vary:
            raise RecipeError(f"--vary: expected a recipe, but {path} declares its own variants. Leave --vary out.")
        variants, published_metric = declared_variants(path)
    else:
        if not vary:
            raise RecipeError(
                f"--vary: expected path=value,value for the recipe {path}, or an ablation's file; got neither."
            )
        variants, published_metric = variants_from_options(load_recipe(path), vary), ""
    if scale is not None:
        variants = tuple(Variant(one.name, _scaled(one.recipe, scale), one.published) for one in variants)
    return _compare(variants, {}, published_metric, Path(run), settings, listener, should_stop)


def reproduce(
    *,
    run: str | Path,
    settings: ExperimentSettings,
    scale: ScaledTraining,
    listener: ExperimentListener,
    should_stop: Callable[[], bool],
) -> ExperimentResult | None:
    """Trains all published systems that are shipped, made small, and their ensembles; as ``ablate``."""
    folder = shipped_folder("trials")
    published = {file.stem: load_recipe(file) for file in sorted(folder.glob("*.yaml"))}
    variants = tuple(
        Variant(name, _scaled(recipe, scale), recipe.source.published.get(HIDDEN_ACCURACY))
        for name, recipe in published.items()
        if recipe.source is not None and recipe.source.published
    )
    ensembles = {}
    for file in sorted((folder / "ensembles").glob("*.yaml")):
        declared = load_ensemble_recipes(file)
        member_weights = {Path(member.recipe).stem: member.weight for member in declared.members}
        ensembles[file.stem] = (member_weights, declared.source.published.get(HIDDEN_ACCURACY))
    return _compare(variants, ensembles, HIDDEN_ACCURACY, Path(run), settings, listener, should_stop)


def _scaled(recipe: Recipe, scale: ScaledTraining) -> Recipe:
    from bloodauto.workflows.comparison.scaled_recipes import scaled

    return scaled(recipe, backbone=scale.backbone, epochs=scale.epochs, learning_rate_factor=scale.learning_rate_factor)


def _compare(
    variants: Sequence[Variant],
    ensembles: Mapping[str, tuple[Mapping[str, float], float | None]],
    published_metric: str,
    run: Path,
    settings: ExperimentSettings,
    listener: ExperimentListener,
    should_stop: Callable[[], bool],
) -> ExperimentResult | None:
    check_distinct(variants)
    from bloodauto.workflows.comparison.runner import Experiment

    experiment = Experiment(run, settings, variants)
    trainings = experiment.run(listener, should_stop)
    if trainings is None:
        return None
    from bloodauto.workflows.comparison.results import comparison_rows, rank_correlations
    from bloodauto.workflows.comparison.tables import as_csv, markdown, notes

    rows = comparison_rows(experiment, trainings, ensembles)
    correlations = rank_correlations(rows)
    note_lines = notes(rows, correlations, images=len(experiment.fold_data.validation_index))
    write_text(run / "table.md", markdown(rows, published_metric, note_lines))
    write_text(run / "table.csv", as_csv(rows))
    return ExperimentResult(rows, correlations, published_metric, note_lines, run)
