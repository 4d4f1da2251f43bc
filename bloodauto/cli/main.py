"""The command line: commands and printing, nothing else."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

from bloodauto.cli.data import data_app
from bloodauto.cli.doctor import doctor
from bloodauto.cli.experiments import ablate, train, trials
from bloodauto.cli.export import export_best, export_trained, predict
from bloodauto.cli.follow import leaderboard, status
from bloodauto.cli.options import DEBUG, Run, import_workflows, option, with_debug
from bloodauto.cli.search import INTERRUPTED_EXIT_CODE, search
from bloodauto.cli.site import adapt, evaluate, explain
from bloodauto.errors import BloodautoError, UserError
from bloodauto.printable import printable

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(data_app, name="data")

#: Exit code of an error that is not raised on purpose.
_UNEXPECTED_EXIT_CODE = 1
_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK_FULL_HINT = (
    "Nothing that was written before is lost. Make room, then give the command again: a search goes on with "
    "bloodauto search --resume --run DIR, or, when its trainings are over, with bloodauto export-best --run DIR --output DIR."
)


@app.callback()
def _main_help() -> None:
    """AutoML for blood-cell images: searches for what holds in another laboratory, inside a fixed budget."""


def report(
    run: Run,
    output: Annotated[
        Path | None,
        option("--output", "HTML file to write.", default="report.html in the run", example="--output report.html"),
    ] = None,
) -> None:
    """Write one self-contained HTML page about a run, finished or not."""
    from bloodauto.report.html import write_report

    typer.echo(write_report(run, output))


def dashboard(
    run: Run,
    port: Annotated[
        int, option("--port", "TCP port of the page; 0 takes any free one.", unit="port number", example="--port 8081")
    ] = 8080,
    once: Annotated[
        bool, option("--once", "Start, check that it responds, and stop.", default="off", example="--once")
    ] = False,
) -> None:
    """Serve the Optuna dashboard on a copy of the run's study; safe beside a running search."""
    from bloodauto.monitor.dashboard import serve_dashboard

    check = serve_dashboard(run, port, once=once, announce=typer.echo)
    if check is not None:
        typer.echo(check)


def spaces(
    space: Annotated[
        str | None,
        typer.Argument(help="A name or file to check and show; default: list all. Example: tiny.", show_default=False),
    ] = None,
) -> None:
    """List and check the search spaces."""
    import_workflows()
    from bloodauto.config.shipped import find_space, shipped_folder
    from bloodauto.workflows.planning import load_checked_space

    paths = sorted(shipped_folder("search_spaces").glob("*.yaml")) if space is None else [find_space(space)]
    for path in paths:
        checked = load_checked_space(path)
        domains = list(checked.domains())
        typer.echo(f"{checked.name}: {len(domains)} domains  ({path})")
        if space is not None:
            for domain in domains:
                typer.echo(f"  {domain.describe()}")


for _command in (
    search,
    status,
    leaderboard,
    train,
    trials,
    ablate,
    export_trained,
    export_best,
    predict,
    evaluate,
    explain,
    adapt,
    report,
    dashboard,
    spaces,
    doctor,
):
    app.command(_command.__name__.replace("_", "-"))(with_debug(_command))


def main() -> None:
    """Runs a command. An error becomes one line and an exit code; with ``--debug`` its traceback comes first."""
    for stream in (sys.stdout, sys.stderr):
        # A file name that is no UTF-8 must not end a command that prints it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]  # it ignores where the warning arose
            app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT_CODE)
    except Exception as error:
        if DEBUG in sys.argv:
            traceback.print_exc()
        message, exit_code = _explained(error)
        sys.stderr.write(f"error: {printable(message, keep_lines=True)}\n")
        sys.exit(exit_code)


def _show_warning(message: Warning | str, category: type[Warning], *_location: object) -> None:
    """Prints a warning of ours as a line; what libraries tell their developers is not for users."""
    if issubclass(category, UserWarning):
        sys.stderr.write(f"warning: {printable(str(message))}\n")


def _explained(error: Exception) -> tuple[str, int]:
    """What a user reads of an error, and the exit code."""
    if isinstance(error, BloodautoError):
        return str(error), error.exit_code
    if (message := _full_disk_message(error)) is not None:
        return message, UserError.exit_code
    if isinstance(error, MemoryError):
        return (
            f"expected enough free memory, got: {error}. Take fewer or smaller images, or more memory.",
            UserError.exit_code,
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        # What a path leads to can change at any time, so that no check beforehand is enough.
        path = os.fsdecode(error.filename if error.filename2 is None else error.filename2)
        return f"{path}: expected a path that can be used, got: {error.strerror}.", UserError.exit_code
    notes = getattr(error, "__notes__", [])
    hint = "; ".join(notes) if notes else f"give {DEBUG} for the full traceback"
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {text[:300]} ({hint})", _UNEXPECTED_EXIT_CODE


def _full_disk_message(error: BaseException | None) -> str | None:
    """The message for an error that comes of a full disk, also if a library has wrapped it; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
            location = f"{error.filename}: " if error.filename is not None else ""
            return f"{location}expected room to write, got: {error.strerror}. {_DISK_FULL_HINT}"
        if "database or disk is full" in str(error):
            return f"expected room to write the study, got: the disk is full. {_DISK_FULL_HINT}"
        error = error.__cause__ if error.__cause__ is not None else error.__context__
    return None
