"""Workers go when the budget says so, whatever the driver is doing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bloodauto.run.artifacts import LedgerFile
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.executors.shutdown import DRIVER, WorkerShutdown

SLOTS = ("worker 0", "worker 1", "worker 2")


class Processes:
    """Three processes that compute for ever and cannot be asked to stop."""

    def __init__(self) -> None:
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
        self.started = [subprocess.Popen([sys.executable, "-c", code]) for _ in SLOTS]

    def end(self) -> None:
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
    processes.end()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(
        LedgerFile(tmp_path / "ledger.jsonl"), budget_device_seconds=30.0, now=time.monotonic, wall_clock=time.time
    )
    for slot in SLOTS:
        ledger.reserve(slot, 2.0, "trial")
    return ledger


def test_workers_are_killed_at_the_limit_while_the_main_thread_is_busy(
    ledger: Ledger, processes: Processes, tmp_path: Path
) -> None:
    worker_shutdown = WorkerShutdown(ledger, SLOTS, driver_devices=2.0, kill_workers=processes.end)
    worker_shutdown.limit_device_seconds = 6.0
    worker_shutdown.start()
    # As an executor that hangs in its own end: three slots of two devices would run up 18 device-seconds.
    time.sleep(3.0)
    assert worker_shutdown.requested.is_set()
    assert processes.alive == 0
    assert ledger.devices == 2.0
    worker_shutdown.finish()
    for slot in SLOTS:
        ledger.release(slot)
    ledger.release(DRIVER)
    by_phase = LedgerFile(tmp_path / "ledger.jsonl").device_seconds_by_phase()
    assert 6.0 <= by_phase["trial"] < 6.0 + 6 * 1.0
    assert by_phase["worker shutdown"] == pytest.approx(2 * 3.0 - by_phase["trial"] / 3, abs=2.0)


def test_finish_returns_when_workers_are_gone(ledger: Ledger, processes: Processes) -> None:
    worker_shutdown = WorkerShutdown(ledger, SLOTS, driver_devices=2.0, kill_workers=processes.end)
    worker_shutdown.start()
    assert processes.alive == 3
    worker_shutdown.finish()
    assert processes.alive == 0
    assert ledger.devices == 2.0
    # A slot that has been handed back may still be told what it is charged to.
    before = ledger.charged_for("idle")
    ledger.set_phase("worker 0", "idle")
    ledger.release("worker 0")
    assert ledger.charged_for("idle") == before


def test_workers_that_start_after_the_limit_are_killed(ledger: Ledger) -> None:
    first, second = Processes(), None
    alive = [first]
    worker_shutdown = WorkerShutdown(
        ledger, SLOTS, driver_devices=2.0, kill_workers=lambda: [one.end() for one in alive] and None
    )
    worker_shutdown.start()
    worker_shutdown.requested.set()
    while first.alive:
        time.sleep(0.01)
    second = Processes()
    alive.append(second)
    assert psutil.Process(second.started[0].pid).is_running()
    worker_shutdown.finish()
    assert second.alive == 0
