"""``bloodauto doctor``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodauto.cli.options import AsJson, WeightsDir, import_workflows, make_console, option
from bloodauto.errors import UserError
from bloodauto.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from bloodauto.workflows.doctor import Check

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    folder: Annotated[
        Path,
        option(
            "--folder", "Folder in which runs are to be written.", default="this one", example="--folder /data/runs"
        ),
    ] = Path(),
    space: Annotated[
        str, option("--space", "Search space whose pre-trained weights are looked for.", example="--space gpu")
    ] = "small",
    weights_dir: WeightsDir = None,
    storage: Annotated[
        str | None,
        option(
            "--storage",
            "URL of an Optuna storage that is tried.",
            default="none, SQLite is tried in the folder",
            example="--storage postgresql://user@host/study",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine for a search: packages, devices, memory, disk, weights, storage, a short training.

    Each line says ok, warn or fail; where something is to be mended, how. The exit code is 2 where something fails.
    """
    console, checks = make_console(), []
    for check in _checks(folder, space, weights_dir, storage):
        checks.append(check)
        if not as_json:
            _print(check, console)
    failed = sum(check.state == "fail" for check in checks)
    if as_json:
        typer.echo(json.dumps({"ok": failed == 0, "checks": [asdict(check) for check in checks]}))
    else:
        warned = sum(check.state == "warn" for check in checks)
        console.print(f"{len(checks)} checks: {failed} failed, {warned} with a warning", highlight=False)
    if failed:
        raise typer.Exit(UserError.exit_code)


def _checks(folder: Path, space: str, weights_dir: Path | None, storage: str | None) -> Iterator[Check]:
    from bloodauto.workflows.doctor import Check, machine_checks

    yield from machine_checks(folder)
    try:
        import_workflows()
        from bloodauto.workflows.doctor_training import training_checks
    except Exception as error:
        # Whatever a broken installation raises is what the user wants to know.
        yield Check("TensorFlow", "fail", f"{type(error).__name__}: {error}", "pip install -c constraints.txt .")
        return
    yield from training_checks(space, weights_dir, storage)


def _print(check: Check, console: Console) -> None:
    from rich.text import Text

    line = Text(f"{check.state:<5}", style=_STYLES[check.state])
    line.append(f"{check.name:<12}", style="bold").append(printable(check.finding), style="none")
    console.print(line)
    if check.mend:
        console.print(Text(f"     {'':<12}mend: {printable(check.mend)}"))
