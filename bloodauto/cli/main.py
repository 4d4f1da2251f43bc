"""The command line: commands and printing, nothing else."""

from __future__ import annotations

import errno
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bloodauto.cli.data import ImageSize, data_app
from bloodauto.cli.experiments import ablate
from bloodauto.cli.options import (
    Distill,
    Formats,
    NoCleaning,
    StudentBudget,
    TestTimeAugmentation,
    WeightsDir,
    make_console,
)
from bloodauto.cli.trials import export_trained, print_exported, train, trials
from bloodauto.errors import BloodautoError, UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(data_app, name="data")

_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK_FULL_HINT = (
    "Nothing that was written before is lost. Make room, then give the command again: a search goes on with "
    "bloodauto search --resume --run DIR, or, when its trainings are over, with bloodauto export-best --run DIR --output DIR."
)

Run = Annotated[Path, typer.Option("--run", help="Directory of the run.")]
TargetImages = Annotated[Path | None, typer.Option("--target-images", help="Unlabelled images of the target site.")]
MaxMembers = Annotated[int | None, typer.Option("--max-members", help="Most members of the ensemble.")]
MaxLatency = Annotated[
    float | None,
    typer.Option("--max-latency-ms", help="Most milliseconds one image may take the ensemble, as measured."),
]


@app.callback()
def _main_help() -> None:
    """AutoML for blood-cell images: searches for what holds in another laboratory, inside a fixed budget."""


@app.command()
def search(
    run: Annotated[
        Path | None, typer.Option("--run", help="Directory of the run; default: a new one in runs/.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Folder of class folders, .csv, .npz, or 'synthetic'.")
    ] = None,
    target_images: TargetImages = None,
    budget: Annotated[str | None, typer.Option("--budget", help="40gpu-h, 30cpu-min, or 2h (wall clock).")] = None,
    space: Annotated[str | None, typer.Option("--space", help="Name of a shipped space, or a .yaml file.")] = None,
    weights_dir: WeightsDir = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Trainings at once; default: what fits.")] = None,
    cpus_per_trial: Annotated[float | None, typer.Option("--cpus-per-trial")] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option("--gpus-per-trial", help="May be a fraction, e.g. 0.5.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run.")] = False,
    warm_start: Annotated[
        str | None, typer.Option("--warm-start", help="Recipes tried first: a folder, a file, or 'none'.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="shift, accuracy, balanced_accuracy, macro_f1; several: shift,latency."),
    ] = None,
    pruner: Annotated[
        str | None, typer.Option("--pruner", help="successive_halving, hyperband, median or none.")
    ] = None,
    refit_fraction: Annotated[
        float | None,
        typer.Option("--refit-fraction", help="Fraction of the budget reserved for the ensemble's trainings."),
    ] = None,
    max_trials: Annotated[int | None, typer.Option("--max-trials")] = None,
    max_members: MaxMembers = None,
    max_latency_ms: MaxLatency = None,
    image_size: ImageSize = None,
    no_cleaning: NoCleaning = False,
    storage: Annotated[
        str | None, typer.Option("--storage", help="Optuna storage URL; default: SQLite in the run.")
    ] = None,
    address: Annotated[str | None, typer.Option("--address", help="Of a Ray cluster; default: this machine.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Search, refit, choose an ensemble and export it, inside a budget."""
    import bloodauto
    from bloodauto.cli.progress import TerminalProgress, duration

    if run is None:
        run = Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    console = make_console()
    progress = TerminalProgress(console)
    try:
        summary = bloodauto.search(
            run=run,
            resume=resume,
            address=address,
            progress=progress,
            data=data,
            target_images=None if target_images is None else str(target_images),
            budget=budget,
            space=space,
            weights_dir=None if weights_dir is None else str(weights_dir),
            workers=workers,
            cpus_per_trial=cpus_per_trial,
            gpus_per_trial=gpus_per_trial,
            seed=seed,
            warm_start=warm_start,
            objective=objective,
            pruner=pruner,
            refit_fraction=refit_fraction,
            max_trials=max_trials,
            max_members=max_members,
            max_latency_ms=max_latency_ms,
            image_size_px=image_size,
            cleaning=False if no_cleaning else None,
            storage=storage,
        )
    finally:
        progress.stop()
    spent, total = summary.spent_device_seconds, summary.budget_device_seconds
    console.print(f"spent {duration(spent)} of {duration(total)} ({spent / total:.1%})", highlight=False)
    console.print("trials: " + ", ".join(f"{count} {name}" for name, count in summary.trials.items() if count))
    if summary.finished:
        console.print(_score_line("best single training", summary.best), highlight=False)
        console.print(_score_line("ensemble", summary.ensemble), highlight=False)
        for row in summary.front:
            values = ", ".join(f"{name} {value:,.4g}" for name, value in row["values"].items())
            console.print(f"front: trial {row['trial']}, {row['backbone']}: {values}", highlight=False)
        console.print(f"exported to {summary.export}; next:")
        console.print((summary.run / "NEXT.txt").read_text(encoding="utf-8").rstrip(), highlight=False)
    else:
        console.print(f"Stopped. Nothing is lost; go on with: bloodauto search --resume --run {summary.run}")
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    if not summary.finished:
        raise typer.Exit(130)


def _score_line(name: str, scores: Any) -> str:
    wanted = [key for key in ("accuracy", "shifted_accuracy", "balanced_accuracy", "ece", "objective") if key in scores]
    return f"{name}, on validation images: " + ", ".join(f"{key.replace('_', ' ')} {scores[key]:.4f}" for key in wanted)


for _command in (train, trials, ablate):
    app.command()(_command)
app.command("export-trained")(export_trained)


@app.command("export-best")
def export_best(
    run: Run,
    output: Annotated[Path, typer.Option("--output", help="Folder to write to.")],
    formats: Formats = "keras,codabench",
    tta: TestTimeAugmentation = False,
    max_members: MaxMembers = None,
    max_latency_ms: MaxLatency = None,
    target_images: TargetImages = None,
    distill: Distill = None,
    budget: StudentBudget = None,
) -> None:
    """Write a run's ensemble, or one network that learns from it, as files that answer without this project."""
    import bloodauto

    exported = bloodauto.export_best(
        run=run,
        output=output,
        formats=[one.strip() for one in formats.split(",") if one.strip()],
        tta=tta,
        max_members=max_members,
        max_latency_ms=max_latency_ms,
        target_images=target_images,
        distill=distill,
        budget=budget,
    )
    print_exported(exported)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model.keras, or the folder it lies in.")],
    images: Annotated[Path, typer.Argument(help="Folder, image, .npz or .npy.")],
    output: Annotated[Path, typer.Option("--output", help="CSV to write.")],
) -> None:
    """Answer for images with an exported model."""
    import bloodauto

    typer.echo(bloodauto.predict(model=model, images=images, output=output))


@app.command()
def report(
    run: Run, output: Annotated[Path | None, typer.Option("--output", help="Default: report.html in the run.")] = None
) -> None:
    """Write one self-contained HTML page about a run, finished or not."""
    from bloodauto.report.html import write_report

    typer.echo(write_report(run, output))


@app.command()
def dashboard(
    run: Run,
    port: Annotated[int, typer.Option("--port", help="0 takes any free one.")] = 8080,
    once: Annotated[bool, typer.Option("--once", help="Start, check that it answers, and stop.")] = False,
) -> None:
    """Serve the Optuna dashboard on a copy of the run's study; safe beside a running search."""
    from bloodauto.report.dashboard import serve_dashboard

    check = serve_dashboard(run, port, once=once, announce=typer.echo)
    if check is not None:
        typer.echo(check)


@app.command()
def spaces(
    space: Annotated[str | None, typer.Argument(help="A name or file to check and show; default: list all.")] = None,
) -> None:
    """List and check the search spaces."""
    from bloodauto.config.shipped import shipped_folder
    from bloodauto.workflows.prepare import find_space, load_checked_space

    paths = sorted(shipped_folder("search_spaces").glob("*.yaml")) if space is None else [find_space(space)]
    for path in paths:
        checked = load_checked_space(path)
        domains = list(checked.domains())
        typer.echo(f"{checked.name}: {len(domains)} domains  ({path})")
        if space is not None:
            for domain in domains:
                typer.echo(f"  {domain.describe()}")


def main() -> None:
    """Runs a command; an error raised on purpose becomes a sentence and an exit code."""
    try:
        app()
    except BloodautoError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (full := _full_disk(error)) is None:
            raise
        sys.stderr.write(f"error: {full}\n")
        sys.exit(UserError.exit_code)


def _full_disk(error: BaseException | None) -> str | None:
    """What to say when an error comes of a disk that takes no more, also if a library has wrapped it; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
            place = f"{error.filename}: " if error.filename is not None else ""
            return f"{place}expected room to write, got: {error.strerror}. {_DISK_FULL_HINT}"
        if "database or disk is full" in str(error):
            return f"expected room to write the study, got: the disk is full. {_DISK_FULL_HINT}"
        error = error.__cause__ or error.__context__
    return None
