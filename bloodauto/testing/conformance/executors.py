"""Conformance suite of executors: assignments run once, stops are obeyed, failures have their kind, slots are handed back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna

from bloodauto.clock import Clock
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_attributes import TrialAttributes
from bloodauto.testing.simulated_search import MAX_EPOCHS, tiny_space
from bloodauto.tuning.budget.ledger import DRIVER_SLOT, BudgetAccount
from bloodauto.tuning.constants import BudgetConstants
from bloodauto.tuning.executors import Executor
from bloodauto.tuning.executors.simulated import Fault
from bloodauto.tuning.messages import Assignment, Completed, Interrupted, Stopped, TrainingEnd
from bloodauto.tuning.pruning import plan_pruning
from bloodauto.tuning.scheduler import Scheduler
from bloodauto.tuning.settings import SchedulerSettings
from bloodauto.tuning.study import StudyRecord, quiet_optuna

_WORKERS = 2
#: Epochs of the small network that the budget of a check has room for, in each slot.
_BUDGET_EPOCHS = 50
_MAX_TRIALS = 8


class ExecutorHarness(Protocol):
    """Makes executors whose trainings are short.

    Attributes:
        epoch_seconds: Seconds of an epoch of the tiny space's small network; the large one's takes twice as long.
        start_seconds: Seconds that starting a worker may take.
    """

    epoch_seconds: float
    start_seconds: float

    @property
    def clock(self) -> Clock:
        """The clock of the executors."""
        ...

    def executor(
        self, run: RunDirectory, faults: tuple[Fault, ...], *, max_restarts: int
    ) -> AbstractContextManager[Executor]:
        """An executor for a session. Another one for the same run finds the checkpoints of the first.

        Args:
            run: The run directory.
            faults: What goes wrong.
            max_restarts: How often a training whose process died is restarted.
        """
        ...

    def interrupt(self) -> None:
        """Interrupts the session in progress, as a user does."""
        ...


@dataclass
class _Calls:
    """What an executor told the scheduler, in order."""

    assignments: list[Assignment] = field(default_factory=list)
    ends: dict[str, TrainingEnd] = field(default_factory=dict)
    epochs: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    stopped: set[str] = field(default_factory=set)

    def in_slot_of(self, name: str) -> list[str]:
        """The names of all assignments in the slot of one of them, in order."""
        slot = next((assignment.slot for assignment in self.assignments if assignment.name == name), None)
        return [assignment.name for assignment in self.assignments if assignment.slot == slot]


_Condition = Callable[[_Calls], bool]


def _never(calls: _Calls) -> bool:
    return False


class _RecordingScheduler(Scheduler):
    """A scheduler that checks and records what an executor tells it."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.calls = _Calls()
        self._busy: dict[str, str] = {}
        self._interrupt: Callable[[], None] | None = None
        self._when: _Condition = _never

    def interrupt_when(self, condition: _Condition, interrupt: Callable[[], None]) -> None:
        """Interrupts the session as soon as a condition holds."""
        self._when, self._interrupt = condition, interrupt

    def _interrupt_if_due(self) -> None:
        if self._interrupt is not None and self._when(self.calls):
            interrupt, self._interrupt = self._interrupt, None
            interrupt()

    def next_assignment(self, slot: str) -> Assignment | None:
        assert slot not in self._busy, f"{slot} was offered while {self._busy[slot]} runs in it"
        assignment = super().next_assignment(slot)
        if assignment is not None:
            self._busy[slot] = assignment.name
            self.calls.assignments.append(assignment)
            self._interrupt_if_due()
        return assignment

    def on_epoch(self, name: str, report: EpochReport) -> bool:
        assert name in self._busy.values(), f"an epoch of {name}, which does not run"
        assert name not in self.calls.stopped, f"{name} trained on after it was stopped"
        self.calls.epochs[name].append(report.epoch)
        continues = super().on_epoch(name, report)
        if not continues:
            self.calls.stopped.add(name)
        self._interrupt_if_due()
        return continues

    def on_end(self, name: str, end: TrainingEnd) -> None:
        assert name not in self.calls.ends, f"{name} ended twice"
        self.calls.ends[name] = end
        self._busy = {slot: busy for slot, busy in self._busy.items() if busy != name}
        super().on_end(name, end)
        self._interrupt_if_due()


@dataclass
class _Search:
    """One search that an executor runs, in one or several sessions.

    Its budget has room for ``budget_starts`` starts of a worker besides the epochs: starts are slow on a busy machine.
    """

    harness: ExecutorHarness
    folder: Path
    faults: tuple[Fault, ...] = ()
    max_restarts: int = 2
    max_trials: int = _MAX_TRIALS
    budget_starts: float = 2.5

    def __post_init__(self) -> None:
        self.run = RunDirectory(self.folder)
        self.run.root.mkdir(parents=True, exist_ok=True)
        self.space = tiny_space()
        with quiet_optuna():
            self.study = optuna.create_study(direction="maximize")
        in_each_slot = _BUDGET_EPOCHS * self.harness.epoch_seconds + self.budget_starts * self.harness.start_seconds
        self.budget_device_seconds = _WORKERS * in_each_slot

    def session(self, *, interrupt_when: _Condition = _never) -> tuple[_RecordingScheduler, bool]:
        """Runs a session; returns its scheduler, and whether the executor was not interrupted."""
        harness = self.harness
        with (
            quiet_optuna(),
            harness.executor(self.run, self.faults, max_restarts=self.max_restarts) as executor,
            BudgetAccount.open(
                self.run.ledger,
                budget_device_seconds=self.budget_device_seconds,
                devices_per_slot=1.0,
                clock=harness.clock,
            ) as account,
        ):
            slots = account.reserve_workers(_WORKERS)
            scheduler = self._scheduler(account)
            scheduler.interrupt_when(interrupt_when, harness.interrupt)
            completed = executor.execute(scheduler, slots)
            assert account.ledger.devices == 1.0, "the devices of the workers are handed back"
            assert account.ledger.is_reserved(DRIVER_SLOT), "the driver pays from then on"
            if completed:
                scheduler.close()
        assert account.ledger.spent_device_seconds <= self.budget_device_seconds
        return scheduler, completed

    def _scheduler(self, account: BudgetAccount) -> _RecordingScheduler:
        settings = SchedulerSettings(
            seed=7,
            workers=_WORKERS,
            devices_per_worker=1.0,
            refit_fraction=0.35,
            finalization_device_seconds=0.1 * self.budget_device_seconds,
            num_folds=5,
            max_trials=self.max_trials,
        )
        return _RecordingScheduler.create(
            StudyRecord(self.study, self.space, settings.objectives),
            self.space,
            account.ledger,
            pruning=plan_pruning("successive_halving", max_epochs=MAX_EPOCHS),
            settings=settings,
            initial=(),
            # A hanging training is to be noticed within the test's time.
            budget_constants=BudgetConstants(
                min_heartbeat_timeout_seconds=self.harness.start_seconds,
                min_estimated_heartbeat_timeout_seconds=self.harness.start_seconds,
                heartbeat_timeout_factor=1.5,
                estimated_heartbeat_timeout_factor=1.5,
            ),
        )

    def trials(self) -> list[TrialAttributes]:
        """What is recorded of every trial."""
        return [TrialAttributes.read(trial) for trial in self.study.get_trials(deepcopy=False)]


def check_a_whole_search(harness: ExecutorHarness, folder: Path) -> None:
    """Every assignment runs once, in its slot, from its first epoch to its end; stops are obeyed; refits follow trials."""
    search = _Search(harness, folder)
    scheduler, completed = search.session()
    calls = scheduler.calls
    assert completed
    names = [assignment.name for assignment in calls.assignments]
    assert len(set(names)) == len(names), "an assignment was made twice"
    assert set(calls.ends) == set(names), "an assignment has no end"
    assert Counter(assignment.slot for assignment in calls.assignments).keys() == {"worker 0", "worker 1"}
    for name, epochs in calls.epochs.items():
        assert epochs == list(range(1, len(epochs) + 1)), f"{name}: epochs {epochs}"
    for name in calls.stopped:
        assert isinstance(calls.ends[name], Stopped), f"{name} was stopped, and ended as {calls.ends[name]}"
    kinds = [assignment.kind for assignment in calls.assignments]
    assert {"trial", "refit"} == set(kinds)
    assert any(isinstance(calls.ends[assignment.name], Completed) for assignment in calls.assignments)
    assert all(trial.outcome in ("complete", "pruned", "out_of_budget") for trial in search.trials())


def check_failures(harness: ExecutorHarness, folder: Path) -> None:
    """A crash fails one trial; a process that dies is restarted from the checkpoint; one that dies again and again is lost."""
    faults = (
        Fault("00000", 1, "crash"),
        Fault("00001", 2, "dies", times=1),
        Fault("00002", 1, "dies", times=9),
    )
    search = _Search(harness, folder, faults, max_restarts=1, budget_starts=10.0)
    scheduler, _ = search.session(
        interrupt_when=lambda calls: {"00000", "00001", "00002"} <= calls.ends.keys() and len(calls.ends) > 3
    )
    trials, calls = search.trials(), scheduler.calls
    assert (trials[0].outcome, trials[0].reason) == ("failed", "crash")
    assert trials[1].outcome in ("complete", "pruned", "out_of_budget")
    assert calls.epochs["00001"] == list(range(1, len(calls.epochs["00001"]) + 1)), "resumed from the checkpoint"
    assert (trials[2].outcome, trials[2].reason) == ("failed", "worker_died")
    lost = calls.ends["00002"]
    assert isinstance(lost, Interrupted)
    assert lost.process_lost
    assert len(calls.ends) > 3, "the other trainings go on"


def check_a_hanging_training(harness: ExecutorHarness, folder: Path) -> None:
    """A training that is silent for too long is killed, and its slot goes on with another one."""
    faults = (Fault("00000", 2, "hangs", times=9),)
    search = _Search(harness, folder, faults, max_restarts=0, budget_starts=10.0)
    scheduler, _ = search.session(
        interrupt_when=lambda calls: "00000" in calls.ends and len(calls.in_slot_of("00000")) > 1
    )
    assert (search.trials()[0].outcome, search.trials()[0].reason) == ("failed", "watchdog")
    assert scheduler.calls.in_slot_of("00000")[0] == "00000"
    assert len(scheduler.calls.in_slot_of("00000")) > 1, "the slot of the killed training is used again"


def check_abort(harness: ExecutorHarness, folder: Path) -> None:
    """A failure that every training would have stops everything."""
    search = _Search(harness, folder, (Fault("00001", 1, "abort"),))
    scheduler, completed = search.session()
    assert completed
    assert scheduler.abort_reason
    assert len(scheduler.calls.assignments) <= 2 * _WORKERS
    assert (search.trials()[1].outcome, search.trials()[1].reason) == ("failed", "abort")


def check_interruption(harness: ExecutorHarness, folder: Path) -> None:
    """An interruption leaves open trials open; the next session resumes them, and no epoch is lost or repeated."""
    search = _Search(harness, folder)
    first, completed = search.session(
        interrupt_when=lambda calls: sum(len(epochs) for epochs in calls.epochs.values()) >= 4
    )
    assert not completed
    open_trials = [number for number, trial in enumerate(search.trials()) if trial.outcome is None]
    assert open_trials, "the interruption came while trainings ran"
    second, completed = search.session()
    assert completed
    assert all(trial.outcome is not None for trial in search.trials())
    resumed = [assignment.name for assignment in second.calls.assignments]
    lost = {number for number in open_trials if f"{number:05d}" not in resumed}
    assert all(search.trials()[number].outcome == "out_of_budget" for number in lost), "open trials are resumed"
    for name in resumed:
        before, after = first.calls.epochs[name], second.calls.epochs[name]
        for epochs in (before, after):
            assert epochs == sorted(set(epochs)), f"{name}: epochs {epochs}"
        # The report of an epoch that ends while the session does may come again, or not at all: its checkpoint counts.
        all_epochs = set(before) | set(after)
        missing = set(range(1, max(all_epochs, default=0) + 1)) - all_epochs
        assert missing <= {max(before, default=0) + 1}, f"{name}: epochs {before}, then {after}"
    ended_before = set(first.calls.ends)
    assert ended_before.isdisjoint(resumed), "what had ended is not repeated"


#: All checks; each takes a harness and an empty folder.
EXECUTOR_CHECKS: tuple[Callable[[ExecutorHarness, Path], None], ...] = (
    check_a_whole_search,
    check_failures,
    check_a_hanging_training,
    check_abort,
    check_interruption,
)
