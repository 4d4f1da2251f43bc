"""How a running search looks in a terminal, and in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from bloodauto.tuning.budget.ledger import Ledger
    from bloodauto.tuning.scheduler import Scheduler
    from bloodauto.workflows.session import SearchPlan

_REFRESH_SECONDS = 1.0
_LOG_SECONDS = 30.0


def duration(seconds: float) -> str:
    """``3 h 05 min``, ``12 min 30 s`` or ``45 s``."""
    whole = round(max(seconds, 0.0))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"


def incompatible_recipe_lines(not_in_space: Sequence[tuple[str, str]]) -> list[str]:
    """The initial configurations that a space does not contain, those that differ in the same field in one line.

    Args:
        outside: name, and reason: the field and, after a colon, what differs.
    """
    by_field: dict[str, list[tuple[str, str]]] = {}
    for name, reason in not_in_space:
        by_field.setdefault(reason.partition(": ")[0], []).append((name, reason))
    return [
        f"{found[0][0]} ({found[0][1]})" if len(found) == 1 else f"{', '.join(name for name, _ in found)} (by {field})"
        for field, found in by_field.items()
    ]


class TerminalProgress:
    """Says what a search will do, shows it while it runs, and names each training that ended.

    In a terminal the running trainings are shown live; in a log a line is written now and then.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._device = "cpu"
        self._reported: set[int] = set()
        self._last_shown = float("-inf")

    def planned(self, plan: SearchPlan, ledger: Ledger) -> None:
        """One paragraph before the budget starts to run."""
        say, settings = self._console.print, plan.settings
        self._device = settings.device
        summary = plan.data.cleaning.summary(plan.data.dataset)
        splits = plan.data.splits
        train, validation, test = (
            len(i) for i in (splits.train_index(), splits.validation_index(), splits.test_index())
        )
        say(f"[bold]{settings.data}[/]: {summary.images} images, {summary.excluded} excluded by cleaning")
        for finding in summary.findings:
            say(f"  {finding.count} x {finding.finding.replace('_', ' ')}: {finding.action.replace('_', ' ')}")
        for note in splits.notes:
            say(f"  note: {note}")
        say(f"  {train} to train on, {validation} to validate, {test} held out until the end")
        domains = sum(1 for _ in plan.space.domains())
        say(
            f"[bold]space {settings.space}[/]: {domains} domains; objective {settings.objective}; {plan.pruning.table()}"
        )
        if plan.initial.in_space:
            say("  initial configurations: " + ", ".join(name for name, _ in plan.initial.in_space))
        for line in incompatible_recipe_lines(plan.initial.not_in_space):
            say(f"  [dim]not in this space: {escape(line)}[/]")
        spent = ledger.spent_device_seconds
        used = f", {duration(spent)} of it spent already" if spent > 0 else ""
        say(
            f"[bold]budget {settings.budget}[/]: {duration(ledger.budget_device_seconds)} of {self._device} time{used}; "
            f"{settings.workers} at once, each with {settings.devices_per_worker:g} {self._device}"
        )
        say(f"run: {plan.run.root}    Ctrl-C stops cleanly; the run can be resumed")
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:
        """Called several times a second; draws about once."""
        now = time.monotonic()
        interval = _REFRESH_SECONDS if self._live is not None else _LOG_SECONDS
        if now - self._last_shown < _REFRESH_SECONDS:
            return
        self._print_ended(scheduler, ledger)
        if now - self._last_shown < interval:
            return
        self._last_shown = now
        if self._live is not None:
            self._live.update(self._live_view(scheduler, ledger), refresh=True)
        else:
            self._console.print(self._status_line(scheduler, ledger), highlight=False)

    def phase(self, name: str) -> None:
        """What comes after the trainings."""
        self.stop()
        self._console.print(f"{name} ...")

    def stop(self) -> None:
        """Leaves the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print_ended(self, scheduler: Scheduler, ledger: Ledger) -> None:
        for ended in scheduler.ended():
            if ended.number in self._reported:
                continue
            self._reported.add(ended.number)
            if ended.outcome == "out_of_budget" and ended.device_seconds == 0:
                # A suggestion that was never started; the summary counts it.
                continue
            value = f"{ended.objective:.4f}" if ended.objective is not None else "-"
            reason = f" ({ended.reason})" if ended.reason else ""
            self._console.print(
                f"  trial {ended.number:<4} {ended.outcome.replace('_', ' ')}{reason}: {value}  "
                f"[dim]{ended.backbone}, {duration(ended.device_seconds)}[/]",
                highlight=False,
            )

    def _status_line(self, scheduler: Scheduler, ledger: Ledger) -> str:
        incumbent = scheduler.incumbent()
        found = (
            f"best {incumbent.objective:.4f} (trial {incumbent.number})"
            if incumbent is not None
            else "nothing finished yet"
        )
        return (
            f"spent {duration(ledger.spent_device_seconds)} of {duration(ledger.budget_device_seconds)}, "
            f"{duration(ledger.remaining_device_seconds)} left; {len(scheduler.running())} running; {found}"
        )

    def _live_view(self, scheduler: Scheduler, ledger: Ledger) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("running", "backbone", "epoch", "objective", "accuracy"):
            table.add_column(heading)
        for one in scheduler.running():
            last, recipe = one.last, one.assignment.recipe
            limited = one.assignment.kind == "refit"
            table.add_row(
                one.assignment.phase,
                recipe.backbone.label,
                "-" if last is None else f"{last.epoch}" if limited else f"{last.epoch}/{recipe.total_epochs}",
                "-" if last is None else f"{last.objective:.4f}",
                "-" if last is None else f"{last.accuracy:.4f}",
            )
        counts = Counter(ended.outcome for ended in scheduler.ended())
        tally = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))
        total = ledger.budget_device_seconds
        bar = ProgressBar(total=total, completed=min(ledger.spent_device_seconds, total), width=40)
        return Group(table, Text(self._status_line(scheduler, ledger) + (f"; {tally}" if tally else "")), bar)
