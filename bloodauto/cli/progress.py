"""Shows a running search in a terminal, or as lines of a log."""

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

from bloodauto.cli.screen import duration
from bloodauto.printable import printable

if TYPE_CHECKING:
    from bloodauto.tuning.budget.ledger import Ledger
    from bloodauto.tuning.scheduler import Scheduler
    from bloodauto.workflows.planning import SearchPlan

_REFRESH_SECONDS = 1.0
_LOG_SECONDS = 30.0


def incompatible_recipe_lines(not_in_space: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each field in which initial configurations differ from a space that does not contain them.

    Args:
        not_in_space: Name and reason of each: the field and, after a colon, the difference.

    Returns:
        Lines of text.
    """
    by_field: dict[str, list[tuple[str, str]]] = {}
    for name, reason in not_in_space:
        by_field.setdefault(reason.partition(": ")[0], []).append((name, reason))
    lines = []
    for field, entries in by_field.items():
        if len(entries) == 1:
            name, reason = entries[0]
            lines.append(f"{name} ({reason})")
        else:
            lines.append(f"{', '.join(name for name, _ in entries)} (by {field})")
    return lines


class TerminalProgress:
    """Prints what a search will do, shows it while it runs, and names each training that ended.

    In a terminal the running trainings are shown live; in a log a line is written every half minute.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._device = "cpu"
        self._reported: set[int] = set()
        self._last_shown = float("-inf")

    def planned(self, plan: SearchPlan, ledger: Ledger) -> None:
        """Prints data, space and budget before the budget starts to run."""
        self._device = plan.settings.device
        self._print_data(plan)
        self._print_space(plan)
        self._print_budget(plan, ledger)
        self._console.print(f"run: {escape(printable(plan.run.root))}    Ctrl-C stops cleanly; the run can be resumed")
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def _print_data(self, plan: SearchPlan) -> None:
        summary, splits = plan.data.cleaning.summary(plan.data.dataset), plan.data.splits
        self._console.print(
            f"[bold]{escape(printable(plan.settings.data))}[/]: {summary.images} images, "
            f"{summary.excluded} excluded by cleaning"
        )
        for finding in summary.findings:
            self._console.print(
                f"  {finding.count} x {finding.finding.replace('_', ' ')}: {finding.action.replace('_', ' ')}"
            )
        for note in (*plan.data.dataset.notes, *splits.notes):
            self._console.print(f"  note: {escape(note)}")
        train, validation, test = splits.train_index(), splits.validation_index(), splits.test_index()
        self._console.print(
            f"  {len(train)} to train on, {len(validation)} to validate, {len(test)} held out until the end"
        )

    def _print_space(self, plan: SearchPlan) -> None:
        settings, domains = plan.settings, sum(1 for _ in plan.space.domains())
        self._console.print(
            f"[bold]space {escape(printable(settings.space))}[/]: {domains} domains; "
            f"objective {settings.objective}; {plan.pruning.table()}"
        )
        if plan.initial.in_space:
            names = ", ".join(printable(name) for name, _ in plan.initial.in_space)
            self._console.print(f"  initial configurations: {escape(names)}")
        for line in incompatible_recipe_lines(plan.initial.not_in_space):
            self._console.print(f"  [dim]not in this space: {escape(line)}[/]")

    def _print_budget(self, plan: SearchPlan, ledger: Ledger) -> None:
        settings, spent = plan.settings, ledger.spent_device_seconds
        already_spent = f", {duration(spent)} of it spent already" if spent > 0 else ""
        self._console.print(
            f"[bold]budget {settings.budget}[/]: {duration(ledger.budget_device_seconds)} of {self._device} "
            f"time{already_spent}; {settings.workers} at once, each with {settings.devices_per_worker:g} {self._device}"
        )

    def budget_planned(self, lines: Sequence[str]) -> None:
        """Prints the table of the budget's plan."""
        for line in ("the budget's plan:", *lines):
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:
        """Redraws at most once a second."""
        now = time.monotonic()
        interval = _REFRESH_SECONDS if self._live is not None else _LOG_SECONDS
        if now - self._last_shown < _REFRESH_SECONDS:
            return
        self._print_ended(scheduler)
        if now - self._last_shown < interval:
            return
        self._last_shown = now
        if self._live is not None:
            self._live.update(self._live_table(scheduler, ledger), refresh=True)
        else:
            self._console.print(self._status_line(scheduler, ledger), highlight=False)

    def phase(self, name: str) -> None:
        """Names the step that begins after the trainings."""
        self.stop()
        self._console.print(f"{name} ...", markup=False)

    def stop(self) -> None:
        """Ends the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print_ended(self, scheduler: Scheduler) -> None:
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
        best = (
            "nothing finished yet"
            if incumbent is None
            else f"best {incumbent.objective:.4f} (trial {incumbent.number})"
        )
        return (
            f"spent {duration(ledger.spent_device_seconds)} of {duration(ledger.budget_device_seconds)}, "
            f"{duration(ledger.remaining_device_seconds)} left; {len(scheduler.running())} running; {best}"
        )

    def _live_table(self, scheduler: Scheduler, ledger: Ledger) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("running", "backbone", "epoch", "objective", "accuracy"):
            table.add_column(heading)
        for training in scheduler.running():
            last, recipe = training.last_report, training.assignment.recipe
            # A time limit, not its epochs, ends a refit.
            total_epochs = "" if training.assignment.kind == "refit" else f"/{recipe.total_epochs}"
            table.add_row(
                training.assignment.phase,
                recipe.backbone.label,
                "-" if last is None else f"{last.epoch}{total_epochs}",
                "-" if last is None else f"{last.objective:.4f}",
                "-" if last is None else f"{last.accuracy:.4f}",
            )
        counts = Counter(ended.outcome for ended in scheduler.ended())
        outcomes = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))
        total = ledger.budget_device_seconds
        bar = ProgressBar(total=total, completed=min(ledger.spent_device_seconds, total), width=40)
        return Group(table, Text(self._status_line(scheduler, ledger) + (f"; {outcomes}" if outcomes else "")), bar)
