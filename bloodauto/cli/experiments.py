"""Comparing trainings: variants of one recipe, and how an experiment is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodauto.cli.data import Data, ImageSize
from bloodauto.cli.options import (
    AsJson,
    Budget,
    Epochs,
    Images,
    LearningRateFactor,
    NewRun,
    NoCleaning,
    Seed,
    WeightsDir,
    make_console,
    run_directory,
    stop_on_interrupt,
)
from bloodauto.errors import UserError

if TYPE_CHECKING:
    from bloodauto.evaluation.fold_data import FoldData
    from bloodauto.training.checkpoint import EpochReport
    from bloodauto.workflows.compare import ExperimentResult
    from bloodauto.workflows.comparison.settings import ExperimentSettings
    from bloodauto.workflows.comparison.variants import Variant


def epoch_line(epoch: EpochReport) -> str:
    """What one epoch did."""
    return (
        f"epoch {epoch.epoch} (stage {epoch.stage + 1}): {epoch.seconds:.0f} s, loss {epoch.train_loss:.3f}, "
        f"accuracy {epoch.accuracy:.4f}, shift {epoch.shift:.4f}"
    )


def experiment_settings(
    data: str,
    images: int | None,
    image_size_px: int | None,
    weights_dir: Path | None,
    budget: str | None,
    seed: int,
    no_cleaning: bool,
) -> ExperimentSettings:
    """The options of an experiment as its settings."""
    from bloodauto.workflows.comparison.settings import ExperimentSettings

    return ExperimentSettings(
        data=data,
        image_size_px=image_size_px,
        images=images,
        cleaning=not no_cleaning,
        weights_dir=None if weights_dir is None else str(weights_dir),
        budget=budget,
        seed=seed,
    )


def ablate(
    recipe: Annotated[str, typer.Argument(help="A recipe, or a file that declares variants; or a shipped one's name.")],
    vary: Annotated[
        list[str] | None, typer.Option("--vary", help="path=value,value; each value is a variant. Repeatable.")
    ] = None,
    run: NewRun = None,
    data: Data = "synthetic",
    images: Images = None,
    image_size: ImageSize = None,
    weights_dir: WeightsDir = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Scale every variant to it; default: as declared.")
    ] = None,
    epochs: Epochs = None,
    learning_rate_factor: LearningRateFactor = 10.0,
    budget: Budget = None,
    seed: Seed = 0,
    no_cleaning: NoCleaning = False,
    as_json: AsJson = False,
) -> None:
    """Train variants of one recipe under one budget, on the same images, and compare them."""
    from bloodauto.workflows.compare import ScaledTraining
    from bloodauto.workflows.compare import ablate as ablate_recipe

    if backbone is None and epochs is not None:
        raise UserError("--epochs: expected --backbone with it; without, vary stages.0.epochs.")
    run = run_directory(run)
    printer = ExperimentPrinter()
    comparison = ablate_recipe(
        recipe,
        run=run,
        settings=experiment_settings(data, images, image_size, weights_dir, budget, seed, no_cleaning),
        vary=() if vary is None else vary,
        scale=None if backbone is None else ScaledTraining(backbone, epochs, learning_rate_factor),
        listener=printer,
        should_stop=stop_on_interrupt(),
    )
    printer.print_result(comparison, run, as_json=as_json)


class ExperimentPrinter:
    """Says how an experiment goes, and what came out."""

    def __init__(self) -> None:
        self._console = make_console()

    def planned(self, variants: Sequence[Variant], fold_data: FoldData, seconds_per_variant: float | None) -> None:
        from bloodauto.cli.progress import duration

        say = self._console.print
        say(
            f"{len(fold_data.train_index)} images to train on, {len(fold_data.validation_index)} to validate",
            highlight=False,
        )
        limit = "all its epochs" if seconds_per_variant is None else f"at most {duration(seconds_per_variant)}"
        say(
            f"{len(variants)} trainings, each {limit}: {', '.join(variant.name for variant in variants)}",
            highlight=False,
        )
        say("Ctrl-C stops cleanly; the same command goes on")

    def epoch(self, name: str, report: EpochReport) -> None:
        self._console.print(f"{name}: {epoch_line(report)}", highlight=False, markup=False)

    def print_result(self, comparison: ExperimentResult | None, run: Path, *, as_json: bool) -> None:
        if comparison is None:
            self._console.print(f"Stopped. Nothing is lost; go on with the same command and --run {run}")
            raise typer.Exit(130)
        from bloodauto.workflows.comparison.tables import as_json as to_json
        from bloodauto.workflows.comparison.tables import plain

        typer.echo(plain(comparison.rows, comparison.published_metric))
        for note in comparison.notes:
            self._console.print(note, highlight=False, markup=False)
        self._console.print(f"{comparison.run / 'table.md'}  {comparison.run / 'table.csv'}")
        if as_json:
            typer.echo(json.dumps({"run": str(run), **to_json(comparison.rows, comparison.rank_correlations)}))
