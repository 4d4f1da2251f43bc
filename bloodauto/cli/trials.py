"""The commands about recipes: train one, list or reproduce the declared ones, export what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bloodauto.cli.data import Data, ImageSize
from bloodauto.cli.experiments import ExperimentPrinter, epoch_line, experiment_settings
from bloodauto.cli.options import (
    AsJson,
    Budget,
    Epochs,
    Formats,
    Images,
    LearningRateFactor,
    NewRun,
    NoCleaning,
    Seed,
    TestTimeAugmentation,
    WeightsDir,
    make_console,
    run_directory,
    stop_on_interrupt,
)
from bloodauto.errors import UserError


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe (.yaml), or the name of a shipped one.")],
    run: NewRun = None,
    data: Data = "synthetic",
    weights_dir: WeightsDir = None,
    seed: Seed = 0,
    image_size: ImageSize = None,
    no_cleaning: NoCleaning = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Its quick variant, in seconds, without weights.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train one recipe; goes on where an earlier run in the same directory stopped."""
    import bloodauto

    console = make_console()
    given, run = run is not None, run_directory(run)
    summary = bloodauto.train(
        recipe=recipe,
        run=run,
        data=data,
        weights_dir=weights_dir,
        seed=seed,
        image_size_px=image_size,
        cleaning=not no_cleaning,
        smoke=smoke,
        report=lambda epoch: console.print(epoch_line(epoch), highlight=False),
        should_stop=stop_on_interrupt(),
    )
    result = summary.result
    console.print(
        f"{'finished' if result.finished else 'stopped'} after {len(result.history)} epochs: "
        f"accuracy {result.evaluation.metrics.accuracy:.4f}, shift {result.evaluation.shift:.4f}, "
        f"{result.parameters:,} parameters; {run}",
        highlight=False,
    )
    seen = summary.with_tta
    if seen is not None:
        console.print(
            f"averaged over its {summary.forward_passes} test-time transforms, {summary.forward_passes} passes an image: "
            f"accuracy {seen.metrics.accuracy:.4f}, shift {seen.shift:.4f}",
            highlight=False,
        )
    if not result.finished:
        console.print("Go on with the same command." if given else f"Go on with the same command and --run {run}")
    if as_json:
        tta = None if seen is None else {"accuracy": seen.metrics.accuracy, "shift": seen.shift}
        typer.echo(
            json.dumps({"run": str(run), **result.to_json(), "with_tta": tta, "forward_passes": summary.forward_passes})
        )
    if not result.finished:
        raise typer.Exit(130)


def export_trained(
    trainings: Annotated[list[Path], typer.Argument(help="Folders that bloodauto train wrote (its --run).")],
    output: Annotated[Path, typer.Option("--output", help="Folder to write to.")],
    data: Data = "synthetic",
    image_size: ImageSize = None,
    seed: Seed = 0,
    weights: Annotated[str | None, typer.Option("--weights", help="Of each, e.g. 2,1; default: equal.")] = None,
    formats: Formats = "keras,codabench",
    tta: TestTimeAugmentation = False,
) -> None:
    """Average trainings into one calibrated model, with the images and the seed that they were trained with."""
    import bloodauto

    exported = bloodauto.export_trained(
        trainings=trainings,
        output=output,
        data=data,
        image_size_px=image_size,
        weights=None if weights is None else _numbers(weights),
        seed=seed,
        formats=_split_names(formats),
        tta=tta,
    )
    print_exported(exported)


def _split_names(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(one) for one in _split_names(text)]
    except ValueError:
        raise UserError(f"--weights: expected numbers such as 2,1, got {text!r}.") from None


def print_exported(exported: Any) -> None:
    """The files, and what test-time transforms change and cost."""
    gain = exported.gain
    if gain is not None:
        console = make_console(quiet=True)
        before, after = gain.scores_without_tta, gain.scores
        console.print(
            f"test-time transforms: {gain.forward_passes} passes an image instead of {gain.forward_passes_without_tta}, {gain.time_ratio:.1f} times "
            f"the time; on {gain.images} images kept apart: accuracy {before['accuracy']:.4f} -> {after['accuracy']:.4f}, "
            f"shift {before['shift']:.4f} -> {after['shift']:.4f}",
            highlight=False,
        )
        if not gain.helps:
            console.print("They do not help here; --no-tta exports without them.")
    if exported.distilled is not None:
        _print_distilled(exported.distilled)
    for file in exported.result.files:
        typer.echo(file)


def _print_distilled(distilled: Any) -> None:
    """The student beside its ensemble, and what it cost."""
    both, console = distilled.comparison, make_console(quiet=True)
    scores = ", ".join(
        f"{name.replace('_', ' ')} {both.scores[name]:.4f} ({both.teacher_scores[name]:.4f})"
        for name in ("accuracy", "shifted_accuracy", "shift", "ece", "ece_shifted")
    )
    difference = distilled.parity_difference
    parity = "" if difference is None else f"; the file answers as the search did to {difference:.1e}"
    console.print(
        f"distilled: {distilled.network}, {distilled.parameters:,} parameters instead of {distilled.teacher_parameters:,}, "
        f"{distilled.epochs} epochs; spent {distilled.spent_device_seconds:.0f} of {distilled.budget_device_seconds:.0f} "
        "device-seconds",
        highlight=False,
    )
    console.print(
        f"on {both.images} images kept apart and {both.tta} views of them, in brackets its ensemble: {scores}; "
        f"same answer for {both.agreement:.1%} and {both.agreement_shifted:.1%}{parity}",
        highlight=False,
    )


def trials(
    path: Annotated[
        Path | None, typer.Argument(help="A recipe or a folder of them; default: the shipped ones.")
    ] = None,
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Train the published systems, scaled to --backbone, and compare.")
    ] = False,
    run: NewRun = None,
    data: Data = "synthetic",
    images: Images = None,
    image_size: ImageSize = None,
    weights_dir: WeightsDir = None,
    backbone: Annotated[str, typer.Option("--backbone", help="That takes the place of the published ones.")] = (
        "mobilenet_0.25"
    ),
    epochs: Epochs = None,
    learning_rate_factor: LearningRateFactor = 10.0,
    budget: Budget = None,
    seed: Seed = 0,
    no_cleaning: NoCleaning = False,
    as_json: AsJson = False,
) -> None:
    """List and check the initial configurations and the spaces that contain them; or reproduce the published ones, made small."""
    if not reproduce:
        _list_trials(path)
        return
    if path is not None:
        raise UserError("--reproduce: expected no path; it trains the published systems that are shipped.")
    if epochs is None and budget is None:
        raise UserError("--reproduce: expected --budget or --epochs; as published the systems train for days.")
    from bloodauto.workflows.compare import ScaledTraining
    from bloodauto.workflows.compare import reproduce as reproduce_all

    run = run_directory(run)
    printer = ExperimentPrinter()
    comparison = reproduce_all(
        run=run,
        settings=experiment_settings(data, images, image_size, weights_dir, budget, seed, no_cleaning),
        scale=ScaledTraining(backbone, epochs, learning_rate_factor),
        listener=printer,
        should_stop=stop_on_interrupt(),
    )
    printer.print_result(comparison, run, as_json=as_json)


def _list_trials(path: Path | None) -> None:
    from bloodauto.config.recipe import load_recipe
    from bloodauto.config.shipped import shipped_folder
    from bloodauto.config.space import NotInSpace, parameters_of
    from bloodauto.models.backbones import check_recipe
    from bloodauto.training.augmentation import check_augmentation
    from bloodauto.workflows.compare import HIDDEN_ACCURACY
    from bloodauto.workflows.prepare import load_checked_space

    folder = shipped_folder("trials") if path is None else path
    shipped_spaces = [load_checked_space(file) for file in sorted(shipped_folder("search_spaces").glob("*.yaml"))]
    for file in sorted(folder.glob("*.yaml")) if folder.is_dir() else [folder]:
        recipe = load_recipe(file)
        check_recipe(recipe)
        check_augmentation(recipe)
        inside = []
        for one in shipped_spaces:
            try:
                parameters_of(one, recipe)
                inside.append(one.name)
            except NotInSpace:
                continue
        where = ", ".join(inside) if inside else "no shipped space"
        hidden = None if recipe.source is None else recipe.source.published.get(HIDDEN_ACCURACY)
        published = "" if hidden is None else f"; published {hidden:.2f} on the hidden set"
        typer.echo(
            f"{file.stem}: {recipe.backbone.label}, {recipe.total_epochs} epochs, id {recipe.id}; in {where}{published}"
        )
