"""The commands that train without a search: ``train``, ``ablate`` and ``trials``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodauto.cli.options import (
    AsJson,
    Cleaning,
    ComparisonBudget,
    Data,
    Epochs,
    Images,
    ImageSize,
    LearningRateFactor,
    NewRun,
    Seed,
    WeightsDir,
    import_workflows,
    make_console,
    new_run_directory,
    option,
    stop_on_interrupt,
)
from bloodauto.cli.search import INTERRUPTED_EXIT_CODE
from bloodauto.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from bloodauto.evaluation.fold_data import FoldData
    from bloodauto.run.artifacts import EpochReport
    from bloodauto.workflows.compare import ComparisonResult
    from bloodauto.workflows.comparison.variants import Variant
    from bloodauto.workflows.train import TrainResult


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe (.yaml), or the name of a shipped one. Example: tiny_cnn.")],
    run: NewRun = None,
    data: Data = "synthetic",
    weights_dir: WeightsDir = None,
    seed: Seed = 0,
    image_size_px: ImageSize = None,
    cleaning: Cleaning = True,
    smoke: Annotated[
        bool,
        option(
            "--smoke",
            "Train the recipe's smoke variant: seconds, without pre-trained weights.",
            default="off",
            example="--smoke",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train one recipe; continues where an earlier run in the same directory stopped."""
    import_workflows()
    from bloodauto.workflows.train import train as train_recipe

    console, run_dir = make_console(), new_run_directory(run)
    with stop_on_interrupt() as should_stop:
        result = train_recipe(
            recipe,
            run_dir=run_dir,
            data=data,
            weights_dir=weights_dir,
            seed=seed,
            image_size_px=image_size_px,
            cleaning=cleaning,
            smoke=smoke,
            report=lambda epoch: console.print(_epoch_line(epoch), highlight=False),
            should_stop=should_stop,
        )
    _print_training(result, console)
    if not result.result.finished:
        console.print(
            "Go on with the same command." if run is not None else f"Go on with the same command and --run {run_dir}"
        )
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    if not result.result.finished:
        raise typer.Exit(INTERRUPTED_EXIT_CODE)


def _print_training(result: TrainResult, console: Console) -> None:
    training, tta = result.result, result.with_tta
    console.print(
        f"{'finished' if training.finished else 'stopped'} after {len(training.history)} epochs: "
        f"accuracy {training.evaluation.clean.accuracy:.4f}, shift {training.evaluation.score:.4f}, "
        f"{training.parameters:,} parameters; {result.run_dir}",
        highlight=False,
    )
    if tta is not None:
        console.print(
            f"with its test-time augmentation, {result.forward_passes} passes an image: "
            f"accuracy {tta.clean.accuracy:.4f}, shift {tta.score:.4f}",
            highlight=False,
        )


def _epoch_line(epoch: EpochReport) -> str:
    return (
        f"epoch {epoch.epoch} (stage {epoch.stage + 1}): {epoch.seconds:.0f} s, loss {epoch.train_loss:.3f}, "
        f"accuracy {epoch.accuracy:.4f}, shift {epoch.shift:.4f}"
    )


def ablate(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe, or a file that declares variants; or a shipped one's name. Example: tiny_cnn."),
    ],
    vary: Annotated[
        list[str] | None,
        option(
            "--vary",
            "A field and values with commas; each value is a variant. Repeatable.",
            default="the variants that the file declares",
            example="--vary head.dropout=0,0.3",
        ),
    ] = None,
    run: NewRun = None,
    data: Data = "synthetic",
    images: Images = None,
    image_size_px: ImageSize = None,
    weights_dir: WeightsDir = None,
    backbone: Annotated[
        str | None,
        option(
            "--backbone",
            "Train every variant with this backbone.",
            default="as declared",
            example="--backbone mobilenet_0.25",
        ),
    ] = None,
    epochs: Epochs = None,
    learning_rate_factor: LearningRateFactor = 10.0,
    budget: ComparisonBudget = None,
    seed: Seed = 0,
    cleaning: Cleaning = True,
    as_json: AsJson = False,
) -> None:
    """Train variants of one recipe under one budget, on the same images, and compare them."""
    if backbone is None and epochs is not None:
        raise UserError("--epochs: expected --backbone with it; without, vary stages.0.epochs.")
    import_workflows()
    from bloodauto.workflows import compare
    from bloodauto.workflows.comparison.scaled_recipes import ScaledTraining
    from bloodauto.workflows.comparison.settings import ComparisonSettings

    run_dir, printer = new_run_directory(run), _ComparisonPrinter()
    with stop_on_interrupt() as should_stop:
        result = compare.ablate(
            recipe,
            run_dir=run_dir,
            settings=ComparisonSettings(data, image_size_px, images, cleaning, _text(weights_dir), budget, seed),
            vary=() if vary is None else vary,
            scale=None if backbone is None else ScaledTraining(backbone, epochs, learning_rate_factor),
            listener=printer,
            should_stop=should_stop,
        )
    printer.print_result(result, run_dir, as_json=as_json)


def trials(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A recipe or a folder of them; default: the shipped ones. Example: my_recipes/.", show_default=False
        ),
    ] = None,
    reproduce: Annotated[
        bool,
        option(
            "--reproduce",
            "Train the published systems, made smaller by --backbone, and compare them.",
            default="off",
            example="--reproduce",
        ),
    ] = False,
    run: NewRun = None,
    data: Data = "synthetic",
    images: Images = None,
    image_size_px: ImageSize = None,
    weights_dir: WeightsDir = None,
    backbone: Annotated[
        str,
        option(
            "--backbone",
            "Backbone that replaces the published ones.",
            example="--backbone mobilenet_0.25",
        ),
    ] = "mobilenet_0.25",
    epochs: Epochs = None,
    learning_rate_factor: LearningRateFactor = 10.0,
    budget: ComparisonBudget = None,
    seed: Seed = 0,
    cleaning: Cleaning = True,
    as_json: AsJson = False,
) -> None:
    """List and check the initial configurations; or reproduce the published systems, made smaller."""
    if not reproduce:
        _list_trials(path)
        return
    if path is not None:
        raise UserError("--reproduce: expected no path; it trains the published systems that are shipped.")
    if epochs is None and budget is None:
        raise UserError("--reproduce: expected --budget or --epochs; as published the systems train for days.")
    import_workflows()
    from bloodauto.workflows import compare
    from bloodauto.workflows.comparison.scaled_recipes import ScaledTraining
    from bloodauto.workflows.comparison.settings import ComparisonSettings

    run_dir, printer = new_run_directory(run), _ComparisonPrinter()
    with stop_on_interrupt() as should_stop:
        result = compare.reproduce(
            run_dir=run_dir,
            settings=ComparisonSettings(data, image_size_px, images, cleaning, _text(weights_dir), budget, seed),
            scale=ScaledTraining(backbone, epochs, learning_rate_factor),
            listener=printer,
            should_stop=should_stop,
        )
    printer.print_result(result, run_dir, as_json=as_json)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


class _ComparisonPrinter:
    """Prints the progress and the result of an experiment."""

    def __init__(self) -> None:
        self._console = make_console()

    def planned(self, variants: Sequence[Variant], fold_data: FoldData, seconds_per_variant: float | None) -> None:
        from bloodauto.cli.screen import duration

        self._console.print(
            f"{len(fold_data.train_index)} images to train on, {len(fold_data.validation_index)} to validate",
            highlight=False,
        )
        limit = "all its epochs" if seconds_per_variant is None else f"at most {duration(seconds_per_variant)}"
        self._console.print(
            f"{len(variants)} trainings, each {limit}: {', '.join(variant.name for variant in variants)}",
            highlight=False,
        )
        self._console.print("Ctrl-C stops cleanly; the same command goes on")

    def epoch(self, name: str, report: EpochReport) -> None:
        self._console.print(f"{name}: {_epoch_line(report)}", highlight=False, markup=False)

    def print_result(self, result: ComparisonResult | None, run_dir: Path, *, as_json: bool) -> None:
        if result is None:
            self._console.print(f"Stopped. Nothing is lost; go on with the same command and --run {run_dir}")
            raise typer.Exit(INTERRUPTED_EXIT_CODE)
        from bloodauto.run.directory import RunDirectory
        from bloodauto.workflows.comparison import tables

        typer.echo(tables.plain(result.rows, result.published_metric))
        for note in result.notes:
            self._console.print(note, highlight=False, markup=False)
        run = RunDirectory(result.run_dir)
        self._console.print(f"{run.comparison_table}  {run.comparison_table_csv}")
        if as_json:
            typer.echo(json.dumps({"run": str(run_dir), **tables.as_json(result.rows, result.rank_correlations)}))


def _list_trials(path: Path | None) -> None:
    import_workflows()
    from bloodauto.config.recipe import load_recipe
    from bloodauto.config.shipped import shipped_folder
    from bloodauto.config.space import NotInSpace, parameters_of
    from bloodauto.models.backbones import check_recipe
    from bloodauto.training.augmentation import check_augmentation
    from bloodauto.workflows.planning import HIDDEN_ACCURACY, load_checked_space

    folder = shipped_folder("trials") if path is None else path
    shipped_spaces = [load_checked_space(file) for file in sorted(shipped_folder("search_spaces").glob("*.yaml"))]
    files = sorted(folder.glob("*.yaml")) if folder.is_dir() else [folder]
    if not files:
        raise UserError(f"{folder}: expected recipes (.yaml), found none.")
    for file in files:
        recipe = load_recipe(file)
        check_recipe(recipe)
        check_augmentation(recipe)
        spaces = []
        for space in shipped_spaces:
            try:
                parameters_of(space, recipe)
                spaces.append(space.name)
            except NotInSpace:
                continue
        where = ", ".join(spaces) if spaces else "no shipped space"
        hidden = None if recipe.source is None else recipe.source.published.get(HIDDEN_ACCURACY)
        published = "" if hidden is None else f"; published {hidden:.2f} on the hidden set"
        typer.echo(
            f"{file.stem}: {recipe.backbone.label}, {recipe.total_epochs} epochs, id {recipe.id}; in {where}{published}"
        )
