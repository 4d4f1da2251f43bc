"""Workers are gone when the budget says so, whatever the driver is doing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bloodauto.run.artifacts import LedgerFile
from bloodauto.tuning.budget.ledger import BudgetAccount, WorkerSlots
from bloodauto.tuning.executors import shutdown as shutdown_module
from bloodauto.tuning.executors.shutdown import WorkerShutdown

WORKERS = 3


class Processes:
    """Three processes that run for ever and ignore a request to stop."""

    def __init__(self) -> None:
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
        self.started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(WORKERS)]

    def kill(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()

    @property
    def alive(self) -> int:
        return sum(process.poll() is None for process in self.started)


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes()
    yield processes
    processes.kill()


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[WorkerSlots]:
    file = LedgerFile(tmp_path / "ledger.jsonl")
    with BudgetAccount.open(file, budget_device_seconds=30.0, devices_per_slot=2.0) as account:
        slots = account.reserve_workers(WORKERS)
        for name in slots.names:
            account.ledger.set_phase(name, "trial")
        yield slots


def test_workers_are_killed_at_the_limit_while_the_main_thread_is_busy(
    slots: WorkerSlots, processes: Processes, tmp_path: Path
) -> None:
    shutdown = WorkerShutdown(slots, processes.kill)
    shutdown.limit_device_seconds = 6.0
    shutdown.start()
    # As an executor that hangs in its own end: three slots of two devices would run up 18 device-seconds.
    time.sleep(3.0)
    assert shutdown.requested.is_set()
    assert processes.alive == 0
    assert slots.ledger.devices == 2.0
    shutdown.finish()
    slots.ledger.release_all()
    by_phase = LedgerFile(tmp_path / "ledger.jsonl").device_seconds_by_phase()
    assert 6.0 <= by_phase["trial"] < 6.0 + 6 * 1.0
    assert by_phase["worker shutdown"] == pytest.approx(2 * 3.0 - by_phase["trial"] / 3, abs=2.0)


def test_finish_returns_when_workers_are_gone(slots: WorkerSlots, processes: Processes) -> None:
    shutdown = WorkerShutdown(slots, processes.kill)
    shutdown.start()
    assert processes.alive == WORKERS
    shutdown.finish()
    assert processes.alive == 0
    assert slots.ledger.devices == 2.0


def test_workers_that_start_after_the_limit_are_killed(slots: WorkerSlots, processes: Processes) -> None:
    started = [processes]

    def kill_all() -> None:
        for group in started:
            group.kill()

    shutdown = WorkerShutdown(slots, kill_all)
    shutdown.start()
    shutdown.requested.set()
    while processes.alive:
        time.sleep(0.01)
    late = Processes()
    started.append(late)
    shutdown.finish()
    assert late.alive == 0


def test_workers_save_before_they_are_killed_but_not_at_the_limit(slots: WorkerSlots) -> None:
    events: list[str] = []
    on_request = WorkerShutdown(slots, lambda: events.append("kill"), lambda: events.append("save"))
    on_request.start()
    on_request.finish()
    assert events[:2] == ["save", "kill"]

    events.clear()
    at_limit = WorkerShutdown(slots, lambda: events.append("kill"), lambda: events.append("save"))
    at_limit.limit_device_seconds = 0.0
    at_limit.start()
    assert at_limit.requested.wait(5.0)
    at_limit.finish()
    assert "save" not in events


def test_lost_workers_are_charged_no_more_and_a_hanging_main_thread_is_given_up(
    slots: WorkerSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown_module, "_LOST_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(shutdown_module, "_GIVE_UP_SECONDS", 0.3)
    given_up = threading.Event()
    shutdown = WorkerShutdown(slots, lambda: None, are_lost=lambda: True, give_up=given_up.set)
    shutdown.start()
    assert given_up.wait(10.0)
    assert shutdown.lost.is_set()
    assert slots.ledger.devices == 2.0, "the driver's slot alone"
    shutdown.finish()


def test_workers_that_are_ended_on_purpose_are_not_lost(slots: WorkerSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown_module, "_GIVE_UP_SECONDS", 0.0)
    given_up = threading.Event()
    shutdown = WorkerShutdown(slots, lambda: None, give_up=given_up.set)
    shutdown.start()
    shutdown.requested.set()
    time.sleep(0.8)
    shutdown.finish()
    assert not given_up.is_set()
    assert not shutdown.lost.is_set()
