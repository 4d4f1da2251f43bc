"""Comparisons: ``ablate`` compares variants of one recipe, ``reproduce`` the published systems, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodauto.config.recipe import load_recipe
from bloodauto.config.recipe.experiments import load_ensemble_recipes
from bloodauto.config.shipped import find_recipe_file, shipped_folder
from bloodauto.errors import RecipeError
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.files import write_text
from bloodauto.workflows.comparison.results import (
    ComparedEnsemble,
    ComparisonRow,
    RankCorrelations,
    comparison_rows,
    rank_correlations,
)
from bloodauto.workflows.comparison.runner import ComparisonListener, ComparisonRunner
from bloodauto.workflows.comparison.scaled_recipes import ScaledTraining, scaled
from bloodauto.workflows.comparison.settings import ComparisonSettings
from bloodauto.workflows.comparison.tables import as_csv, markdown, notes
from bloodauto.workflows.comparison.variants import (
    Variant,
    check_distinct,
    declared_variants,
    is_ablation,
    variants_from_options,
)
from bloodauto.workflows.planning import HIDDEN_ACCURACY
from bloodauto.workflows.process_state import restored_process_state
from bloodauto.workflows.run_log import run_log


@dataclass(frozen=True)
class ComparisonResult:
    """The result of a finished comparison.

    Attributes:
        rows: One for each variant, then one for each ensemble.
        rank_correlations: Of our order with the published one; None where there is none.
        published_metric: What ``ComparisonRow.published`` is.
        notes: What a reader must know about the figures.
        run_dir: Holds ``table.md``, ``table.csv`` and a folder for each variant.

    Example:
        >>> comparison = ComparisonResult((), None, "", (), Path("runs/dropout"))
        >>> (comparison.run_dir / "table.md").as_posix()
        'runs/dropout/table.md'
    """

    rows: tuple[ComparisonRow, ...]
    rank_correlations: RankCorrelations | None
    published_metric: str
    notes: tuple[str, ...]
    run_dir: Path


class _SilentListener:
    """A listener that shows nothing; for Python callers."""

    def planned(self, variants: Sequence[Variant], fold_data: FoldData, seconds_per_variant: float | None) -> None:
        """Shows nothing."""

    def epoch(self, name: str, report: EpochReport) -> None:
        """Shows nothing."""


@dataclass(frozen=True)
class _Compared:
    """What is compared.

    Attributes:
        variants: What is trained.
        published_metric: What the published figures are; empty without any.
        ensembles: Ensembles of variants.
    """

    variants: tuple[Variant, ...]
    published_metric: str = ""
    ensembles: tuple[ComparedEnsemble, ...] = ()


def ablate(
    recipe: str | Path,
    *,
    run_dir: str | Path,
    settings: ComparisonSettings | None = None,
    vary: Sequence[str] = (),
    scale: ScaledTraining | None = None,
    listener: ComparisonListener | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ComparisonResult | None:
    """Trains variants of one recipe on the same images and compares them.

    Args:
        recipe: A recipe with ``vary``, or a declared ablation without; a file or a shipped name.
        run_dir: Directory of the comparison, new or its own.
        settings: Data, budget and seed; None: drawn cells without a budget.
        vary: ``path=value,value`` each; every value is one variant beside the recipe itself.
        scale: Makes every variant smaller first; None trains them as declared.
        listener: Receives the progress; None shows nothing.
        should_stop: Ends the comparison, with its state saved, when it returns True.

    Returns:
        The rows of the comparison; None when ``should_stop`` ended it. The same call then continues it.

    Raises:
        UserError: A recipe, images, weights or a budget that cannot be used.

    Example:
        >>> import bloodauto
        >>> comparison = bloodauto.ablate(
        ...     "recipe.yaml",
        ...     run_dir="runs/dropout",
        ...     vary=["head.dropout=0.5"],
        ...     settings=bloodauto.ComparisonSettings(data="cells.npz"),
        ... )
        >>> [row.name for row in comparison.rows]
        ['base', 'head.dropout=0.5']
    """
    path = find_recipe_file(recipe)
    published_metric = ""
    if is_ablation(path):
        if vary:
            raise RecipeError(f"--vary: expected a recipe, but {path} declares its own variants. Leave --vary out.")
        variants, published_metric = declared_variants(path)
    elif vary:
        variants = variants_from_options(load_recipe(path), vary)
    else:
        raise RecipeError(
            f"--vary: expected path=value,value for the recipe {path}, or an ablation's file; got neither."
        )
    if scale is not None:
        variants = tuple(
            Variant(variant.name, scaled(variant.recipe, scale), variant.published) for variant in variants
        )
    return _compare(_Compared(variants, published_metric), Path(run_dir), settings, listener, should_stop)


def reproduce(
    *,
    run_dir: str | Path,
    scale: ScaledTraining,
    settings: ComparisonSettings | None = None,
    listener: ComparisonListener | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ComparisonResult | None:
    """Trains all published systems that are shipped, made smaller, and compares them and their ensembles.

    Args:
        run_dir: Directory of the comparison, new or its own.
        scale: Backbone, epochs and learning rates of the smaller systems.
        settings: Data, budget and seed; None: drawn cells without a budget.
        listener: Receives the progress; None shows nothing.
        should_stop: Ends the comparison, with its state saved, when it returns True.

    Returns:
        As ``ablate``.

    Raises:
        UserError: As ``ablate``.

    Example:
        >>> import bloodauto
        >>> comparison = bloodauto.reproduce(  # doctest: +SKIP
        ...     run_dir="runs/published", scale=bloodauto.ScaledTraining("mobilenet_0.25", epochs=5)
        ... )
    """
    folder = shipped_folder("trials")
    published = {file.stem: load_recipe(file) for file in sorted(folder.glob("*.yaml"))}
    variants = tuple(
        Variant(name, scaled(recipe, scale), recipe.source.published.get(HIDDEN_ACCURACY))
        for name, recipe in published.items()
        if recipe.source is not None and recipe.source.published
    )
    ensembles = []
    for file in sorted((folder / "ensembles").glob("*.yaml")):
        declared = load_ensemble_recipes(file)
        member_weights = {Path(member.recipe).stem: member.weight for member in declared.members}
        ensembles.append(ComparedEnsemble(file.stem, member_weights, declared.source.published.get(HIDDEN_ACCURACY)))
    compared = _Compared(variants, HIDDEN_ACCURACY, tuple(ensembles))
    return _compare(compared, Path(run_dir), settings, listener, should_stop)


def _compare(
    compared: _Compared,
    run_dir: Path,
    settings: ComparisonSettings | None,
    listener: ComparisonListener | None,
    should_stop: Callable[[], bool] | None,
) -> ComparisonResult | None:
    check_distinct(compared.variants)
    with restored_process_state():
        runner = ComparisonRunner(run_dir, ComparisonSettings() if settings is None else settings, compared.variants)
        with run_log(runner.run):
            results = runner.execute(
                _SilentListener() if listener is None else listener,
                (lambda: False) if should_stop is None else should_stop,
            )
            if results is None:
                return None
            rows = comparison_rows(runner, results, compared.ensembles)
            correlations = rank_correlations(rows)
            note_lines = notes(rows, correlations, images=len(runner.fold_data.validation_index))
            write_text(runner.run.comparison_table, markdown(rows, compared.published_metric, note_lines))
            write_text(runner.run.comparison_table_csv, as_csv(rows))
    return ComparisonResult(rows, correlations, compared.published_metric, note_lines, run_dir)
