"""Shows a running search: live in a terminal, as lines of a log, or as JSON lines for programs."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from bloodauto.cli.screen import duration, status_screen
from bloodauto.errors import RunError
from bloodauto.monitor.reader import StatusReader
from bloodauto.monitor.status import Decision, SearchStatus
from bloodauto.printable import printable

if TYPE_CHECKING:
    from bloodauto.tuning.budget.ledger import Ledger
    from bloodauto.tuning.scheduler import Scheduler
    from bloodauto.tuning.study import StudyRecord
    from bloodauto.workflows.planning import SearchPlan

#: How often the state is read and shown; a program gets the figures more rarely.
_REFRESH_SECONDS, _JSON_SECONDS = 1.0, 10.0
_log = logging.getLogger(__name__)


class StoppableProgress(Protocol):
    """A ``workflows.search.Progress`` that leaves the terminal as it was when it is stopped."""

    def planned(self, plan: SearchPlan, study: StudyRecord, ledger: Ledger) -> None:
        """As ``Progress.planned``."""

    def budget_planned(self, lines: Sequence[str]) -> None:
        """As ``Progress.budget_planned``."""

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:
        """As ``Progress.running``."""

    def phase(self, name: str) -> None:
        """As ``Progress.phase``."""

    def stop(self) -> None:
        """Ends whatever is drawn; calling it again does nothing."""


def search_progress(console: Console, *, quiet: bool, as_json: bool) -> StoppableProgress:
    """The progress that fits where it is shown.

    Args:
        console: Where text is printed.
        quiet: Whether nothing is shown.
        as_json: Whether a program reads it, as JSON lines on standard error.
    """
    if as_json:
        return JsonProgress(sys.stderr)
    if quiet:
        return QuietProgress()
    is_screen = console.is_terminal and not console.is_dumb_terminal
    return ScreenProgress(console) if is_screen else LogProgress(console)


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


class QuietProgress:
    """Shows nothing."""

    def planned(self, plan: SearchPlan, study: StudyRecord, ledger: Ledger) -> None:
        """Shows nothing."""

    def budget_planned(self, lines: Sequence[str]) -> None:
        """Shows nothing."""

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:
        """Shows nothing."""

    def phase(self, name: str) -> None:
        """Shows nothing."""

    def stop(self) -> None:
        """Does nothing."""


class _Follower:
    """Reads the state of the own search, at most once a second, and reports decisions that are new.

    It reads the run's directory as ``bloodauto status`` does; only the trials come from memory.
    """

    def __init__(self) -> None:
        self._reader: StatusReader | None = None
        self._read_at = float("-inf")
        self._reported: set[tuple[str, str]] = set()

    def follow(self, plan: SearchPlan, study: StudyRecord) -> None:
        """Begins to follow a search. Decisions of earlier sessions are not new."""
        self._reader = StatusReader(plan.run.root, trials=study.frozen_trials)
        status = self.last_status()
        if status is not None:
            self.new_decisions(status)

    def status(self) -> SearchStatus | None:
        """The state; None when it was read less than a second ago, or cannot be read."""
        now = time.monotonic()
        if now - self._read_at < _REFRESH_SECONDS:
            return None
        self._read_at = now
        return self.last_status()

    def last_status(self) -> SearchStatus | None:
        """The state now, whenever it was read; None before the search is planned, or where it cannot be read."""
        if self._reader is None:
            return None
        try:
            return self._reader.read()
        except (RunError, OSError) as error:
            # A disk that fails for a moment must not end a search because of its display.
            _log.warning("the state of the search could not be shown: %s", error)
            return None

    def new_decisions(self, status: SearchStatus) -> list[Decision]:
        """The decisions that were not reported yet."""
        new = [decision for decision in status.decisions if (decision.kind, decision.name) not in self._reported]
        self._reported.update((decision.kind, decision.name) for decision in new)
        return new


class LogProgress:
    """Prints what a search will do, then a line whenever a training ends or the plan changes.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._follower = _Follower()

    def planned(self, plan: SearchPlan, study: StudyRecord, ledger: Ledger) -> None:
        """Prints data, space and budget before the budget starts to run."""
        _print_plan(self._console, plan, ledger)
        self._follower.follow(plan, study)

    def budget_planned(self, lines: Sequence[str]) -> None:
        """Prints the table of the budget's plan."""
        for line in ("the budget's plan:", *lines):
            self._console.print(line, highlight=False, markup=False)

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:  # noqa: ARG002 -- the state is read from the run
        """Prints the trainings that have ended since."""
        status = self._follower.status()
        if status is not None:
            self._print_ended(status)

    def _print_ended(self, status: SearchStatus) -> None:
        fraction = status.spent_device_seconds / max(status.budget_device_seconds, 1e-9)
        for decision in self._follower.new_decisions(status):
            if decision.kind == "ended":
                self._console.print(f"{fraction:4.0%}  {decision.text}", highlight=False, markup=False)

    def phase(self, name: str) -> None:
        """Names the step that begins after the trainings."""
        status = self._follower.last_status()
        if status is not None:
            self._print_ended(status)
        self._console.print(f"{name} ...", highlight=False, markup=False)

    def stop(self) -> None:
        """Does nothing."""


class ScreenProgress:
    """Prints what a search will do, then shows its state as one screen that is redrawn every second.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._follower = _Follower()
        self._live: Live | None = None

    def planned(self, plan: SearchPlan, study: StudyRecord, ledger: Ledger) -> None:
        """Prints data, space and budget before the budget starts to run, and begins to draw."""
        self._console.soft_wrap = False
        _print_plan(self._console, plan, ledger)
        self._console.soft_wrap = True
        self._follower.follow(plan, study)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def budget_planned(self, lines: Sequence[str]) -> None:
        """The screen shows the plan."""

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:  # noqa: ARG002 -- the state is read from the run
        """Redraws at most once a second."""
        status = self._follower.status()
        if status is not None and self._live is not None:
            screen = status_screen(status, width=self._console.width, height=self._console.height)
            self._live.update(screen, refresh=True)

    def phase(self, name: str) -> None:
        """Names the step that begins after the trainings."""
        self.stop()
        self._console.print(f"{name} ...", highlight=False, markup=False)

    def stop(self) -> None:
        """Ends the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class JsonProgress:
    """Writes what happens as JSON, one object a line with ``event`` as its first key.

    ``planned``: the search begins; ``plan``: the plan of the budget has changed; ``started`` and ``ended``: a training, with
    the reason as text; ``progress``: figures, every ten seconds; ``phase``: a step after the trainings.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._follower = _Follower()
        self._progress_at = float("-inf")

    def _write(self, event: str, **values: Any) -> None:
        self._stream.write(json.dumps({"event": event, "at_unix": round(time.time(), 3), **values}) + "\n")
        self._stream.flush()

    def planned(self, plan: SearchPlan, study: StudyRecord, ledger: Ledger) -> None:
        """Writes ``planned``."""
        splits = plan.data.splits
        self._write(
            "planned",
            run=str(plan.run.root),
            budget_device_seconds=ledger.budget_device_seconds,
            spent_device_seconds=ledger.spent_device_seconds,
            workers=plan.settings.workers,
            objective=plan.settings.objective,
            training_images=len(splits.train_index()),
            validation_images=len(splits.validation_index()),
            test_images=len(splits.test_index()),
        )
        self._follower.follow(plan, study)

    def budget_planned(self, lines: Sequence[str]) -> None:
        """Writes ``plan``."""
        self._write("plan", lines=list(lines))

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:  # noqa: ARG002 -- the state is read from the run
        """Writes ``started``, ``ended`` and ``progress``."""
        status = self._follower.status()
        if status is None:
            return
        self._write_decisions(status)
        now = time.monotonic()
        if now - self._progress_at >= _JSON_SECONDS:
            self._progress_at = now
            value = status.to_json()
            kept = ("phase", "spent_device_seconds", "seconds_left", "running", "best", "trials")
            self._write("progress", **{name: value[name] for name in kept})

    def _write_decisions(self, status: SearchStatus) -> None:
        for decision in self._follower.new_decisions(status):
            self._write(decision.kind, name=decision.name, text=decision.text)

    def phase(self, name: str) -> None:
        """Writes ``phase``."""
        status = self._follower.last_status()
        if status is not None:
            self._write_decisions(status)
        self._write("phase", name=name)

    def stop(self) -> None:
        """Does nothing."""


def _print_plan(console: Console, plan: SearchPlan, ledger: Ledger) -> None:
    """What a search will do: data, space, budget. A log gets whole lines, a terminal lines that break between words."""
    _print_data(console, plan)
    _print_space(console, plan)
    settings, spent = plan.settings, ledger.spent_device_seconds
    already_spent = f", {duration(spent)} of it spent already" if spent > 0 else ""
    device = settings.device
    console.print(
        f"[bold]budget {settings.budget}[/]: {duration(ledger.budget_device_seconds)} of {device} "
        f"time{already_spent}; {settings.workers} at once, each with {settings.devices_per_worker:g} {device}"
    )
    console.print(f"run: {escape(printable(plan.run.root))}    Ctrl-C stops cleanly; the run can be resumed")


def _print_data(console: Console, plan: SearchPlan) -> None:
    summary, splits = plan.data.cleaning.summary(plan.data.dataset), plan.data.splits
    console.print(
        f"[bold]{escape(printable(plan.settings.data))}[/]: {summary.images} images, "
        f"{summary.excluded} excluded by cleaning"
    )
    for finding in summary.findings:
        console.print(f"  {finding.count} x {finding.finding.replace('_', ' ')}: {finding.action.replace('_', ' ')}")
    for note in (*plan.data.dataset.notes, *splits.notes):
        console.print(f"  note: {escape(note)}")
    train, validation, test = splits.train_index(), splits.validation_index(), splits.test_index()
    console.print(f"  {len(train)} to train on, {len(validation)} to validate, {len(test)} held out until the end")


def _print_space(console: Console, plan: SearchPlan) -> None:
    settings, domains = plan.settings, sum(1 for _ in plan.space.domains())
    console.print(
        f"[bold]space {escape(printable(settings.space))}[/]: {domains} domains; "
        f"objective {settings.objective}; {plan.pruning.table()}"
    )
    if plan.initial.in_space:
        names = ", ".join(printable(name) for name, _ in plan.initial.in_space)
        console.print(f"  initial configurations: {escape(names)}")
    for line in incompatible_recipe_lines(plan.initial.not_in_space):
        console.print(f"  [dim]not in this space: {escape(line)}[/]")
