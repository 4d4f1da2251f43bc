"""``bloodauto search``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodauto.cli.options import (
    ImageSize,
    MaxLatency,
    NewRun,
    TargetImages,
    WeightsDir,
    import_workflows,
    make_console,
    max_members_option,
    new_run_directory,
    option,
)
from bloodauto.printable import shell_word

if TYPE_CHECKING:
    from rich.console import Console

    from bloodauto.cli.progress import StoppableProgress
    from bloodauto.run.directory import RunDirectory
    from bloodauto.workflows.search import SearchResult

#: Rows of the leaderboard that a search ends with; ``bloodauto leaderboard`` has all.
_LEADERBOARD_ROWS = 8
#: Ended by Ctrl-C, in a shell's words.
INTERRUPTED_EXIT_CODE = 130


def search(
    run: NewRun = None,
    data: Annotated[
        str | None,
        option(
            "--data",
            "Images and labels: a folder of class folders, a .csv manifest, an .npz file, or 'synthetic' for drawn cells.",
            default="synthetic",
            example="--data cells.npz",
        ),
    ] = None,
    target_images: TargetImages = None,
    budget: Annotated[
        str | None,
        option(
            "--budget",
            "What the search may spend: devices reserved x seconds reserved.",
            unit="device time such as gpu-h or cpu-min, or wall-clock time such as h or min",
            default="none, a new run needs one",
            example="--budget 40gpu-h",
        ),
    ] = None,
    space: Annotated[
        str | None,
        option(
            "--space",
            "Search space: name of a shipped one, or a .yaml file.",
            default="gpu with GPUs, otherwise small",
            example="--space tiny",
        ),
    ] = None,
    weights_dir: WeightsDir = None,
    workers: Annotated[
        int | None,
        option(
            "--workers",
            "Trainings that run at a time.",
            unit="processes",
            default="as many as cores, memory and GPUs allow",
            example="--workers 4",
        ),
    ] = None,
    cpus_per_trial: Annotated[
        float | None,
        option(
            "--cpus-per-trial",
            "CPU cores that each training reserves.",
            unit="cores",
            default="1",
            example="--cpus-per-trial 2",
        ),
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        option(
            "--gpus-per-trial",
            "GPUs that each training reserves; a fraction shares one GPU.",
            unit="GPUs",
            default="1 with GPUs, otherwise 0",
            example="--gpus-per-trial 0.5",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        option(
            "--seed",
            "Seed of splits, shifted images, suggestions and trainings.",
            default="0",
            example="--seed 7",
        ),
    ] = None,
    resume: Annotated[
        bool,
        option("--resume", "Continue the run in --run with its own settings.", default="off", example="--resume"),
    ] = False,
    warm_start: Annotated[
        str | None,
        option(
            "--warm-start",
            "Recipes that are tried first: 'shipped', a folder, a file, or 'none'.",
            default="shipped",
            example="--warm-start none",
        ),
    ] = None,
    prior: Annotated[
        list[Path] | None,
        option(
            "--prior",
            "An earlier run whose trials this search starts from; may be given several times.",
            default="none",
            example="--prior runs/first",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        option(
            "--objective",
            "What the search maximizes: shift, accuracy, balanced_accuracy or macro_f1; with commas several, also latency "
            "and parameters.",
            default="shift",
            example="--objective shift,latency",
        ),
    ] = None,
    pruner: Annotated[
        str | None,
        option(
            "--pruner",
            "Rule that stops trials early: successive_halving, hyperband, median or none.",
            default="successive_halving",
            example="--pruner median",
        ),
    ] = None,
    refit_fraction: Annotated[
        float | None,
        option(
            "--refit-fraction",
            "Largest part of the budget that is reserved for training the ensemble members longer.",
            unit="fraction of the budget, between 0 and 1",
            default="0.5",
            example="--refit-fraction 0.3",
        ),
    ] = None,
    max_trials: Annotated[
        int | None,
        option(
            "--max-trials",
            "Largest number of trials.",
            unit="trials",
            default="as many as the budget affords",
            example="--max-trials 50",
        ),
    ] = None,
    max_members: Annotated[
        int | None,
        max_members_option("4"),
    ] = None,
    max_latency_ms: MaxLatency = None,
    image_size_px: ImageSize = None,
    cleaning: Annotated[
        bool | None,
        option(
            "--cleaning/--no-cleaning",
            "Exclude images that the data check finds broken, duplicated or mislabelled.",
            default="true",
            example="--no-cleaning",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        option(
            "--storage",
            "URL of the Optuna storage of the study.",
            default="an SQLite file in the run directory",
            example="--storage postgresql://user@host/study",
        ),
    ] = None,
    address: Annotated[
        str | None,
        option("--address", "Address of a Ray cluster.", default="this machine", example="--address auto"),
    ] = None,
    quiet: Annotated[
        bool, option("--quiet", "Print the result and no progress.", default="off", example="--quiet")
    ] = False,
    as_json: Annotated[
        bool,
        option(
            "--json",
            "Print the result as one JSON object, and the progress as JSON lines on standard error.",
            default="off",
            example="--json",
        ),
    ] = False,
) -> None:
    """Search, refit, choose an ensemble and export it, inside a budget."""
    requested = {
        "data": data,
        "target_images": _text(target_images),
        "budget": budget,
        "space": space,
        "weights_dir": _text(weights_dir),
        "workers": workers,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "seed": seed,
        "warm_start": warm_start,
        "prior": tuple(str(run) for run in prior) if prior else None,
        "objective": objective,
        "pruner": pruner,
        "refit_fraction": refit_fraction,
        "max_trials": max_trials,
        "max_members": max_members,
        "max_latency_ms": max_latency_ms,
        "image_size_px": image_size_px,
        "cleaning": cleaning,
        "storage": storage,
    }
    typed = {name: value for name, value in requested.items() if value is not None}
    console = make_console()
    from bloodauto.cli.progress import search_progress

    progress = search_progress(console, quiet=quiet, as_json=as_json)
    result = _search(new_run_directory(run), typed, progress, resume=resume, address=address)
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    else:
        _print_result(result, console)
    if not result.finished:
        raise typer.Exit(INTERRUPTED_EXIT_CODE)


def _search(
    run: Path, typed: Mapping[str, object], progress: StoppableProgress, *, resume: bool, address: str | None
) -> SearchResult:
    from bloodauto.config.settings import absolute_paths, resolve_settings

    # A mistake in an option is reported before the seconds that importing TensorFlow takes.
    settings = None if resume else resolve_settings(absolute_paths(typed))
    import_workflows()
    from bloodauto.workflows.search import resume_search, start_search

    try:
        if settings is None:
            return resume_search(run, expected=typed, address=address, progress=progress)
        return start_search(settings, run, address=address, progress=progress)
    finally:
        progress.stop()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _print_result(result: SearchResult, console: Console) -> None:
    from bloodauto.cli.screen import duration, leaderboard_table
    from bloodauto.monitor.leaderboard import read_leaderboard
    from bloodauto.run.directory import RunDirectory

    run, spent, total = RunDirectory(result.run_dir), result.spent_device_seconds, result.budget_device_seconds
    trials = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in result.trials.items() if count)
    console.print(
        f"spent {duration(spent)} of {duration(total)} ({spent / total:.1%}); trials: {trials}", highlight=False
    )
    if not result.finished:
        command = f"bloodauto search --resume --run {shell_word(result.run_dir)}"
        console.print(f"Stopped. Nothing is lost; go on with: {command}", markup=False)
        return
    board = leaderboard_table(read_leaderboard(result.run_dir), width=console.width, max_rows=_LEADERBOARD_ROWS)
    console.print("", board, "", sep="\n", soft_wrap=False)
    for trial in result.pareto_front:
        values = ", ".join(f"{name} {value:,.4g}" for name, value in trial.values.items())
        console.print(f"Pareto front: trial {trial.trial}, {trial.backbone}: {values}", highlight=False)
    for line in _estimate_lines(run):
        console.print(line, highlight=False)
    console.print(f"exported to {result.export}; next:", highlight=False, markup=False)
    next_steps = run.next_steps.read_text(encoding="utf-8").rstrip()
    console.print(textwrap.indent(next_steps, "  "), highlight=False, markup=False)


def _estimate_lines(run: RunDirectory) -> Iterator[str]:
    """What to expect of the export at the training site and elsewhere; nothing where it was not measured."""
    test = run.held_out_test.read_if_exists()
    if test is None:
        return
    yield (
        f"same laboratory: accuracy {test.accuracy:.1%} ({test.accuracy_low:.1%} to {test.accuracy_high:.1%}) on "
        f"{test.images:,} held-out images"
    )
    if test.external is not None:
        external = test.external
        yield (
            f"another laboratory: expect {external.mean:.0%} ({external.low:.0%} to {external.high:.0%}), estimated from "
            f"{external.simulated_sites} simulated sites"
        )
