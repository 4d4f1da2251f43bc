"""``bloodauto status`` and ``bloodauto leaderboard``: a run seen from another terminal, while its search goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodauto.cli.options import AsJson, make_console, option

if TYPE_CHECKING:
    from rich.console import Console

    from bloodauto.monitor.reader import StatusReader

RunArgument = Annotated[Path, typer.Argument(help="Directory of a run. Example: runs/first.", show_default=False)]


def status(
    run: RunArgument,
    watch: Annotated[
        bool,
        option("--watch", "Redraw until the search ends; Ctrl-C stops watching.", default="off", example="--watch"),
    ] = False,
    interval: Annotated[
        float,
        option("--interval", "Time between two looks with --watch.", unit="seconds", example="--interval 5", min=0.2),
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show how far a search is, beside it and without disturbing it: budget, workers, best, decisions, plan."""
    from bloodauto.monitor.reader import StatusReader

    reader, console = StatusReader(run), make_console()
    if as_json:
        _print_json(reader, interval if watch else None)
    elif watch:
        _watch(reader, console, interval)
    else:
        _print_status(reader, console)


def _print_status(reader: StatusReader, console: Console) -> None:
    from bloodauto.cli.screen import next_steps_lines, status_screen

    current = reader.read()
    console.print(status_screen(current, width=console.width, height=console.height), soft_wrap=False)
    if current.state != "running":
        console.print("\nnext:", *next_steps_lines(current), sep="\n", highlight=False, markup=False)


def _print_json(reader: StatusReader, interval: float | None) -> None:
    """One object; with an interval one for each look, until the search ends."""
    while True:
        current = reader.read()
        typer.echo(json.dumps(current.to_json()))
        if interval is None or current.state != "running":
            return
        time.sleep(interval)


def _watch(reader: StatusReader, console: Console, interval: float) -> None:
    from rich.live import Live

    from bloodauto.cli.screen import status_screen

    if not console.is_terminal:
        _watch_lines(reader, console, interval)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while (current := reader.read()).state == "running":
            live.update(status_screen(current, width=console.width, height=console.height), refresh=True)
            time.sleep(interval)
    _print_status(reader, console)


def _watch_lines(reader: StatusReader, console: Console, interval: float) -> None:
    """For a log: what is decided, as it is decided."""
    seen_until = float("-inf")
    while True:
        current = reader.read()
        for decision in current.decisions:
            if decision.at_unix > seen_until:
                console.print(decision.text, highlight=False, markup=False)
                seen_until = decision.at_unix
        if current.state != "running":
            break
        time.sleep(interval)
    _print_status(reader, console)


def leaderboard(
    run: RunArgument,
    every: Annotated[
        bool, option("--all", "List every model instead of the best 15.", default="off", example="--all")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models of a run, finished or not: score, time, milliseconds, size."""
    from bloodauto.cli.screen import leaderboard_table
    from bloodauto.monitor.leaderboard import read_leaderboard

    board, console = read_leaderboard(run), make_console()
    if as_json:
        typer.echo(json.dumps(board.to_json()))
        return
    for note in board.notes:
        typer.echo(f"note: {note}", err=True)
    if not board.rows:
        console.print("No training is complete yet.")
        return
    limit = {"max_rows": None} if every else {}
    console.print(leaderboard_table(board, width=console.width, **limit), soft_wrap=False)
