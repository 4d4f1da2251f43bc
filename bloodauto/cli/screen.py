"""Draws the status of a search and the leaderboard of a run for a terminal."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bloodauto.printable import printable, shell_word

if TYPE_CHECKING:
    from bloodauto.monitor.leaderboard import Leaderboard, LeaderboardRow
    from bloodauto.monitor.status import RunningStatus, SearchStatus
    from bloodauto.run.artifacts import BudgetPlanRow

_BLOCKS = "▁▂▃▄▅▆▇█"
#: Glyph and style of each kind of spending: told apart without colours, too.
_SPENDING = {
    "start-up and idle": ("▒", "yellow"),
    "trials": ("█", "cyan"),
    "refits": ("▓", "blue"),
    "ensemble and export": ("▚", "magenta"),
}
_RUNNING_GLYPH, _LEFT_GLYPH, _LIMIT_GLYPH = "▄", "·", "│"
#: Lines of the screen beside the legend, the trainings, the decisions and the plan.
_FIXED_LINES = 12
_MIN_DECISIONS, _MAX_DECISIONS, _MIN_PLAN = 3, 10, 2
#: Below so many columns the origin of a training and the reason of a plan's row are left out of their tables.
_WIDE_COLUMNS = 100
_MAX_ROWS = 15
_GAP = "   "
#: Less than that is not worth a figure.
_SHOWN_SECONDS = 0.5


def duration(seconds: float) -> str:
    """``3 h 05 min``, ``12 min 30 s`` or ``45 s``.

    Example:
        >>> duration(750)
        '12 min 30 s'
    """
    total_seconds = round(max(seconds, 0.0))
    if total_seconds >= 3600:
        return f"{total_seconds // 3600} h {total_seconds % 3600 // 60:02d} min"
    if total_seconds >= 60:
        return f"{total_seconds // 60} min {total_seconds % 60:02d} s"
    return f"{total_seconds} s"


def sparkline(values: Sequence[float], *, width: int = 24) -> str:
    """A curve as blocks, the lowest value at the bottom; of a long one the last of each group.

    Args:
        values: Of a learning curve, in order.
        width: Most characters.

    Example:
        >>> sparkline([0.1, 0.5, 0.9])
        '▁▅█'
    """
    if len(values) > width:
        values = [values[(index + 1) * len(values) // width - 1] for index in range(width)]
    if not values:
        return ""
    low, high = min(values), max(values)
    if high <= low:
        return _BLOCKS[3] * len(values)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in values)


def status_screen(status: SearchStatus, *, width: int, height: int) -> RenderableType:
    """A search as one screen.

    Args:
        status: The search.
        width: Columns of the terminal.
        height: Its lines; decisions and plan are cut to fit.

    Returns:
        What rich prints.
    """
    open_rows = max(len(status.running), min(status.workers, len(status.running) + 1))
    legend = _budget_legend(status, width)
    free = max(height - _FIXED_LINES - open_rows - len(legend), _MIN_DECISIONS + _MIN_PLAN)
    plan_lines = min(len(status.plan), max(free // 3, _MIN_PLAN))
    decision_lines = max(min(free - plan_lines, _MAX_DECISIONS), _MIN_DECISIONS)
    parts: list[RenderableType] = [_head(status, width), _budget_bar(status, width), *legend]
    if status.state == "running":
        parts += [Text(""), _workers_table(status, width)]
    parts.append(Text(""))
    for line in _best_lines(status, width):
        line.truncate(width - 1, overflow="ellipsis")
        parts.append(line)
    if status.decisions:
        parts += [Text(""), Text("decisions", style="bold"), *_decision_lines(status, decision_lines, width)]
    if status.plan:
        parts += [Text(""), Text("plan for the rest", style="bold"), _plan_table(status.plan, plan_lines)]
    return Group(*parts)


def _cut(text: str) -> Text:
    """A cell that is cut where its column is too narrow. Rich shrinks the columns without ``no_wrap`` alone."""
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def _head(status: SearchStatus, width: int) -> Text:
    left = "" if status.seconds_left is None else f", ends in {duration(status.seconds_left)} at the latest"
    phase = f"  {status.phase}{left}"
    name = printable(status.run)
    room = max(width - len(phase) - 1, 8)
    text = Text(name if len(name) <= room else f"…{name[1 - room :]}", style="bold")
    text.append(phase, style="none")
    return text


def _budget_bar(status: SearchStatus, width: int) -> Text:
    """What was spent on what, what runs now, and where the plan ends search and refits."""
    total = max(status.budget_device_seconds, 1e-9)
    cells = max(min(width - 2, 120), 20)
    charged = sum(seconds for _, seconds in status.spending)
    parts = [(*_SPENDING[kind], seconds) for kind, seconds in status.spending]
    parts.append((_RUNNING_GLYPH, "green", max(status.spent_device_seconds - charged, 0.0)))
    bar, drawn, upto = Text(), 0, 0.0
    for glyph, style, seconds in parts:
        upto += seconds
        count = min(round(upto / total * cells), cells) - drawn
        bar.append(glyph * count, style=style)
        drawn += count
    limits = {
        min(int(limit / total * cells), cells - 1)
        for limit in (status.search_ends_device_seconds, status.refits_end_device_seconds)
        if limit is not None and limit < total
    }
    for cell in range(drawn, cells):
        is_limit = cell in limits
        bar.append(_LIMIT_GLYPH if is_limit else _LEFT_GLYPH, style="bold" if is_limit else "dim")
    return bar


def _budget_legend(status: SearchStatus, width: int) -> list[Text]:
    """The figures of the bar, as many a line as fit."""
    lines = [Text()]
    for entry in _legend_entries(status):
        if lines[-1] and lines[-1].cell_len + len(_GAP) + entry.cell_len > width:
            lines.append(Text())
        lines[-1].append(_GAP if lines[-1] else "").append_text(entry)
    return lines


def _legend_entries(status: SearchStatus) -> Iterator[Text]:
    spent, total = status.spent_device_seconds, max(status.budget_device_seconds, 1e-9)
    yield Text(f"{duration(spent)} of {duration(total)} of {status.device} time ({spent / total:.0%})")
    for kind, seconds in status.spending:
        if seconds > _SHOWN_SECONDS:
            glyph, style = _SPENDING[kind]
            yield Text(glyph, style=style).append(f" {kind} {duration(seconds)}", style="dim")
    in_progress = spent - sum(seconds for _, seconds in status.spending)
    if status.state == "running" and in_progress > _SHOWN_SECONDS:
        yield Text(_RUNNING_GLYPH, style="green").append(f" in progress {duration(in_progress)}", style="dim")
    limit = status.search_ends_device_seconds
    if limit is not None and limit > spent and status.state == "running":
        yield Text(f"{_LIMIT_GLYPH} search ends at {limit / total:.0%}", style="dim")


def _workers_table(status: SearchStatus, width: int) -> Table:
    is_wide = width >= _WIDE_COLUMNS
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("worker", "training", "backbone", "epoch", status.objective, "", "time"):
        table.add_column(heading, no_wrap=True)
    if is_wide:
        table.add_column("", style="dim")
    for index in range(max(status.workers, len(status.running))):
        if index >= len(status.running):
            table.add_row(str(index + 1), "-")
            break
        row = _worker_cells(status.running[index])
        table.add_row(str(index + 1), *row, *([_cut(status.running[index].origin)] if is_wide else []))
    return table


def _worker_cells(training: RunningStatus) -> tuple[str, ...]:
    total = "" if training.total_epochs is None else f"/{training.total_epochs}"
    elapsed = "" if training.elapsed_seconds is None else duration(training.elapsed_seconds)
    if training.given_seconds is not None and elapsed:
        elapsed += f" of {duration(training.given_seconds)}"
    return (
        training.name,
        training.backbone,
        f"{training.epoch}{total}",
        "-" if training.objective is None else f"{training.objective:.4f}",
        sparkline(training.curve, width=12),
        elapsed,
    )


def _best_lines(status: SearchStatus, width: int) -> Iterator[Text]:
    counts = ", ".join(f"{count} {name}" for name, count in status.trials)
    if status.best is None:
        yield Text("best      nothing is complete yet")
    else:
        best = status.best
        text = Text("best      ").append(f"{best.objective:.4f}", style="bold green")
        text.append(f"  trial {best.trial}, {best.backbone}  ").append(sparkline(best.curve), style="green")
        if width >= _WIDE_COLUMNS:
            text.append(f"  {best.origin}", style="dim")
        yield text
    yield Text(f"trials    {counts if counts else 'none yet'}")


def _decision_lines(status: SearchStatus, count: int, width: int) -> Iterator[Text]:
    for decision in status.decisions[-count:]:
        time = datetime.datetime.fromtimestamp(decision.at_unix).strftime("%H:%M:%S")
        line = Text(f"  {time}  ", style="dim", no_wrap=True, overflow="ellipsis")
        line.append(decision.text, style="none" if decision.kind == "ended" else "dim")
        line.truncate(width - 1, overflow="ellipsis")
        yield line


def _plan_table(rows: Sequence[BudgetPlanRow], count: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(style="dim")
    # What is trained comes before what is left out.
    ordered = sorted(rows, key=lambda row: row.count == 0)
    for row in ordered[:count]:
        seconds = "" if row.seconds_each is None else f"{duration(row.seconds_each)} each"
        table.add_row(f"  {printable(row.what)}", f"{row.count} x", seconds, _cut(row.reason))
    if len(rows) > count:
        table.add_row(f"  {len(rows) - count} more", "", "", "plan.json has all")
    return table


# -- leaderboard -------------------------------------------------------------------------------------------------------


def leaderboard_table(board: Leaderboard, *, width: int, max_rows: int | None = _MAX_ROWS) -> RenderableType:
    """The leaderboard of a run.

    Args:
        board: The leaderboard.
        width: Columns of the terminal; a narrow one gets narrower gaps.
        max_rows: Most rows; None for all.

    Returns:
        What rich prints.
    """
    is_wide = width >= _WIDE_COLUMNS
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2 * is_wide, 0, 0)
    )
    table.add_column("model", no_wrap=True, overflow="ellipsis")
    table.add_column("backbone")
    for heading in ("score", *_other_scores(board), "seconds", "ms", "size", "weight"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = board.rows if max_rows is None else board.rows[:max_rows]
    for row in rows:
        table.add_row(*_row_cells(row, board), style="bold" if row.kind == "ensemble" else "")
    legend = f"score: {board.objective} on validation images; seconds of {board.device} time; ms per image in a batch"
    parts: list[RenderableType] = [table, Text(legend, style="dim")]
    hidden = len(board.rows) - len(rows)
    rest = [f"{count} {name}" for name, count in board.not_listed]
    if hidden:
        rest.insert(0, f"{hidden} with lower scores")
    if rest:
        parts.append(Text(f"not listed: {', '.join(rest)}", style="dim"))
    return Group(*parts)


def _other_scores(board: Leaderboard) -> list[str]:
    return [name for name in ("shift", "accuracy") if name != board.objective]


def _row_cells(row: LeaderboardRow, board: Leaderboard) -> tuple[str | Text, ...]:
    by_name = {"shift": row.shift, "accuracy": row.accuracy}
    scores = [row.score, *(by_name[name] for name in _other_scores(board))]
    return (
        printable(row.name),
        _cut(row.backbone),
        *("-" if score is None else f"{score:.4f}" for score in scores),
        "-" if row.device_seconds is None else f"{row.device_seconds:,.0f}",
        "-" if row.latency_ms is None else f"{row.latency_ms:.2f}",
        "-" if row.parameters is None else _millions(row.parameters),
        f"{row.weight:.2f}" if row.weight else "",
    )


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters / 1e3:.1f} k"


def next_steps_lines(status: SearchStatus) -> list[str]:
    """Commands to go on with, for a run that no process works in."""
    steps = status.next_steps.rstrip().splitlines()
    return steps if steps else [f"bloodauto search --resume --run {shell_word(status.run)}"]
