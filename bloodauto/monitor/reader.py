"""Reads the status of a search from its directory, again and again, without a lock, a write, or work that was done before."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.recipe import load_recipe
from bloodauto.config.settings import SearchSettings, read_settings
from bloodauto.errors import RecipeError, RunError
from bloodauto.monitor.decisions import TrialRecord, origin_text, refit_decision, trial_decisions, trial_record
from bloodauto.monitor.status import (
    SPENDING_KINDS,
    BestStatus,
    Decision,
    RunningStatus,
    SearchState,
    SearchStatus,
    SpendingKind,
)
from bloodauto.report.formatting import training_name
from bloodauto.report.read import require_run
from bloodauto.run.artifacts import LedgerCharge
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_reader import frozen_trials, modification_stamp, snapshot, sqlite_path, sqlite_url
from bloodauto.run.training_directory import TrainingDirectory

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Value = TypeVar("Value")
#: Gives the trials of the study, by number.
TrialsSource = Callable[[], Sequence["FrozenTrial"]]

#: The ledger's heartbeat is written every two seconds; a disk that many machines share may be slow.
_ALIVE_SECONDS = 30.0
_MAX_DECISIONS = 20
_START_UP_PHASES = frozenset({"start-up", "idle", "interrupted"})
_TRIAL, _REFIT = "trial ", "refit "


class _Cached(Generic[Value]):
    """The content of a file, read again only when the file has changed."""

    def __init__(self, path: Path, read: Callable[[], Value], absent: Value) -> None:
        self._path, self._read, self._value = path, read, absent
        self._stamp: tuple[int, int] | None = None

    def get(self) -> Value:
        """The file's content; what it was before where the file is absent."""
        try:
            state = self._path.stat()
        except OSError:
            return self._value
        stamp = (state.st_size, state.st_mtime_ns)
        if stamp != self._stamp:
            self._value, self._stamp = self._read(), stamp
        return self._value


class StoredTrials:
    """The trials of a run's study, read from a copy of it whenever it has changed.

    Args:
        run: The run.
        storage: The setting ``storage``; None: the SQLite file in the run.
    """

    def __init__(self, run: RunDirectory, storage: str | None) -> None:
        self._name, self._url = run.study_name(storage), storage
        self._path = run.study if storage is None else sqlite_path(storage, run.root)
        self._stamp: object = None
        self._trials: Sequence[FrozenTrial] = ()

    def __call__(self) -> Sequence[FrozenTrial]:
        """The trials by number; none before the study is made.

        Raises:
            RunError: The study cannot be read.
        """
        if self._path is None:
            assert self._url is not None
            return frozen_trials(self._url, self._name)
        stamp = modification_stamp(self._path)
        if self._path.is_file() and stamp != self._stamp:
            with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
                copy = Path(folder) / self._path.name
                snapshot(self._path, copy)
                self._trials = frozen_trials(sqlite_url(copy), self._name)
            self._stamp = stamp
        return self._trials


@dataclass(frozen=True)
class _Spent:
    """What the ledger says: its charges, all that is spent, the devices that are reserved now, and whether that is recent."""

    charges: tuple[LedgerCharge, ...]
    device_seconds: float
    devices: float
    is_recent: bool


class StatusReader:
    """Reads the status of one search, cheaply when asked every second.

    Files are written atomically and read as they are; the study is copied and the copy is read. A search that runs beside it
    notices nothing.

    Args:
        root: The run directory.
        trials: Gives the trials; None: they are read from the study.
        clock: Tells the time.

    Raises:
        RunError: No run there, one of another format version, or damaged settings.

    Example:
        >>> import tempfile
        >>> from bloodauto.testing.run_factory import build_run
        >>> status = StatusReader(build_run(Path(tempfile.mkdtemp()) / "run", trials=8, finished=False).root).read()
        >>> status.state, status.best.trial in range(8)
        ('stopped', True)
    """

    def __init__(self, root: Path, *, trials: TrialsSource | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        require_run(root)
        self._run, self._clock = RunDirectory(root), clock
        self._settings: SearchSettings = read_settings(self._run)
        self._trials = StoredTrials(self._run, self._settings.storage) if trials is None else trials
        ledger, plan = self._run.ledger, self._run.budget_plan
        self._charges = _Cached[tuple[LedgerCharge, ...]](ledger.path, ledger.read, ())
        self._plan = _Cached(plan.path, plan.read_if_exists, None)
        self._ended: dict[int, TrialRecord] = {}
        self._total_epochs: dict[Path, tuple[str, int]] = {}

    def read(self) -> SearchStatus:
        """The status now.

        Raises:
            RunError: A file of the run is damaged.
        """
        run, settings, spent = self._run, self._settings, self._spent()
        # A trial that waits was written by a search that was killed in this moment; it is no training.
        records = [self._record(trial) for trial in self._trials() if trial.state.name != "WAITING"]
        plan, state = self._plan.get(), self._state(spent)
        counts = Counter(_state_text(record, state) for record in records)
        is_finalizing = state == "running" and self._is_finalizing(spent)
        running = tuple(self._running(records)) if state == "running" and not is_finalizing else ()
        return SearchStatus(
            run=run.root,
            state=state,
            phase="ensemble and export" if is_finalizing else _phase(state, spent.charges, running),
            objective=settings.objectives.primary,
            device=settings.device,
            workers=settings.workers,
            budget=settings.budget,
            budget_device_seconds=settings.budget_device_seconds,
            spent_device_seconds=spent.device_seconds,
            spending=_spending(spent.charges),
            search_ends_device_seconds=None if plan is None else plan.search_ends_device_seconds,
            refits_end_device_seconds=None if plan is None else plan.refits_end_device_seconds,
            seconds_left=self._seconds_left(state, spent),
            running=running,
            best=_best(records),
            trials=tuple(sorted(counts.items())),
            decisions=self._decisions(records, spent.charges),
            plan=() if plan is None or state == "finished" else plan.rows,
            next_steps=run.next_steps.read_text(encoding="utf-8") if run.next_steps.is_file() else "",
        )

    def _spent(self) -> _Spent:
        charges = self._charges.get()
        charged = charges[-1].spent_device_seconds if charges else 0.0
        file = self._run.ledger_heartbeat
        try:
            written_at = file.path.stat().st_mtime
            heartbeat = file.read()
        except (OSError, RunError):
            # There is none, or it was removed in this moment: nothing is reserved.
            return _Spent(charges, charged, devices=0.0, is_recent=False)
        age_seconds = max(self._clock.wall() - written_at, 0.0)
        is_recent = age_seconds < _ALIVE_SECONDS
        spent = max(charged, heartbeat.spent_device_seconds + (heartbeat.devices * age_seconds if is_recent else 0.0))
        return _Spent(charges, min(spent, self._settings.budget_device_seconds), heartbeat.devices, is_recent)

    def _state(self, spent: _Spent) -> SearchState:
        if spent.is_recent:
            return "running"
        if self._run.ensemble.exists and self._run.export.labels.exists:
            return "finished"
        return "stopped" if spent.charges else "not begun"

    def _is_finalizing(self, spent: _Spent) -> bool:
        """Whether the workers are gone for good: only the driver's slot is charged, and nothing has trained since."""
        charges = [charge for charge in spent.charges if charge.device_seconds > 0]
        if not charges or _kind(charges[-1].phase) != "ensemble and export":
            return False
        if spent.devices > self._settings.devices_per_worker:
            return False
        # A search that was interrupted and resumed trains after that charge.
        directories = (*self._run.trials(), *self._run.refits())
        return not any(_modified_at(directory.heartbeat) > charges[-1].at_unix for directory in directories)

    def _seconds_left(self, state: SearchState, spent: _Spent) -> float | None:
        if state != "running" or spent.devices == 0:
            return None
        return (self._settings.budget_device_seconds - spent.device_seconds) / spent.devices

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        """The trial; one that has ended is read once."""
        if trial.number not in self._ended:
            record = trial_record(trial)
            if not trial.state.is_finished():
                return record
            self._ended[trial.number] = record
        return self._ended[trial.number]

    # -- trainings in progress -----------------------------------------------------------------------------------------

    def _running(self, records: Sequence[TrialRecord]) -> Iterator[RunningStatus]:
        now = self._clock.wall()
        for record in records:
            if record.state == "running" and record.attributes.started:
                _, total_epochs = self._recipe(self._run.trial(record.number))
                yield RunningStatus(
                    kind="trial",
                    name=f"trial {record.number}",
                    backbone=record.attributes.backbone,
                    origin=origin_text(record.attributes),
                    epoch=record.curve[-1][0] if record.curve else 0,
                    total_epochs=total_epochs if total_epochs > 0 else None,
                    objective=record.curve[-1][1] if record.curve else None,
                    curve=tuple(value for _, value in record.curve),
                    elapsed_seconds=None if record.started_at is None else max(now - record.started_at, 0.0),
                    given_seconds=record.attributes.given_seconds,
                )
        for directory in self._run.refits():
            # A refit whose worker was killed leaves neither; it is listed until the trainings are over.
            if directory.recipe.is_file() and not (directory.result.exists or directory.failure.exists):
                yield self._running_refit(directory, now)

    def _running_refit(self, directory: TrainingDirectory, now: float) -> RunningStatus:
        history = directory.history.read_if_exists()
        curve = () if history is None else tuple(report.objective for report in history.epochs)
        backbone, _ = self._recipe(directory)
        name = training_name(directory.root.name)
        return RunningStatus(
            kind="refit",
            name=name,
            backbone=backbone,
            origin="longer training for the ensemble",
            epoch=0 if history is None else len(history.epochs),
            total_epochs=None,
            objective=curve[-1] if curve else None,
            curve=curve,
            elapsed_seconds=max(now - directory.recipe.stat().st_mtime, 0.0),
            given_seconds=None,
        )

    def _recipe(self, directory: TrainingDirectory) -> tuple[str, int]:
        """Backbone and epochs of a training's recipe; an empty name and 0 before it is written."""
        if directory.root not in self._total_epochs:
            try:
                recipe = load_recipe(directory.recipe)
            except (RecipeError, OSError):
                return "", 0
            self._total_epochs[directory.root] = (recipe.backbone.label, recipe.total_epochs)
        return self._total_epochs[directory.root]

    def _decisions(self, records: Sequence[TrialRecord], charges: Sequence[LedgerCharge]) -> tuple[Decision, ...]:
        decisions = [*trial_decisions(records)]
        # A refit that was interrupted is charged as well; the last charge of one that has ended is its end.
        last_charges = {charge.phase: charge for charge in charges if charge.phase.startswith(_REFIT)}
        for phase, charge in last_charges.items():
            directory = self._run.refit(phase.removeprefix(_REFIT))
            if directory.result.exists or directory.failure.exists:
                decisions.append(refit_decision(charge))
        return tuple(sorted(decisions, key=lambda decision: decision.at_unix)[-_MAX_DECISIONS:])


def _modified_at(path: Path) -> float:
    """Unix time; 0 for a file that is absent."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _state_text(record: TrialRecord, state: SearchState) -> str:
    """How a trial ended, in words; ``open`` for one that a search left."""
    if record.state == "running":
        return "running" if state == "running" else "open"
    return record.state.replace("_", " ")


def _phase(state: SearchState, charges: Sequence[LedgerCharge], running: Sequence[RunningStatus]) -> str:
    if state != "running":
        return state
    if not running:
        has_trained = any(_kind(charge.phase) == "trials" for charge in charges)
        return "between trainings" if has_trained else "starting workers"
    return "search" if any(training.kind == "trial" for training in running) else "refits"


def _kind(phase: str) -> SpendingKind:
    if phase in _START_UP_PHASES:
        return "start-up and idle"
    if phase.startswith(_TRIAL):
        return "trials"
    return "refits" if phase.startswith(_REFIT) else "ensemble and export"


def _spending(charges: Sequence[LedgerCharge]) -> tuple[tuple[SpendingKind, float], ...]:
    sums: Counter[SpendingKind] = Counter()
    for charge in charges:
        sums[_kind(charge.phase)] += charge.device_seconds  # type: ignore[assignment]  # a counter of seconds
    return tuple((kind, float(sums[kind])) for kind in SPENDING_KINDS)


def _best(records: Sequence[TrialRecord]) -> BestStatus | None:
    complete = [record for record in records if record.state == "complete" and record.objective is not None]
    if not complete:
        return None
    best = max(complete, key=lambda record: (record.objective, -record.number))
    assert best.objective is not None
    return BestStatus(
        trial=best.number,
        backbone=best.attributes.backbone,
        origin=origin_text(best.attributes),
        objective=best.objective,
        curve=tuple(value for _, value in best.curve),
    )
