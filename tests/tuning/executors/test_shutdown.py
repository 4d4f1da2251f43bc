"""Workers go when the budget says so, whatever the driver is doing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bloodauto.tuning.budget.ledger import Ledger, read_ledger
from bloodauto.tuning.executors.shutdown import DRIVER, Closing

LANES = ("worker 0", "worker 1", "worker 2")


class Processes:
    """Three processes that compute for ever and cannot be asked to stop."""

    def __init__(self) -> None:
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
        self.started = [subprocess.Popen([sys.executable, "-c", code]) for _ in LANES]

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
    ledger = Ledger(tmp_path / "ledger.jsonl", budget_device_seconds=30.0, now=time.monotonic, wall_clock=time.time)
    for lane in LANES:
        ledger.reserve(lane, 2.0, "trial")
    return ledger


def test_at_the_point_given_workers_go_though_the_main_thread_does_something_else(
    ledger: Ledger, processes: Processes, tmp_path: Path
) -> None:
    closing = Closing(ledger, LANES, driver_devices=2.0, end_workers=processes.end)
    closing.at_device_seconds = 6.0
    closing.start()
    # As an executor that hangs in its own end: three lanes of two devices would run up 18 device-seconds.
    time.sleep(3.0)
    assert closing.over.is_set()
    assert processes.alive == 0
    assert ledger.devices == 2.0
    closing.finish()
    for lane in LANES:
        ledger.release(lane)
    ledger.release(DRIVER)
    by_purpose = read_ledger(tmp_path / "ledger.jsonl")
    assert 6.0 <= by_purpose["trial"] < 6.0 + 6 * 1.0
    assert by_purpose["end of the trainings"] == pytest.approx(2 * 3.0 - by_purpose["trial"] / 3, abs=2.0)


def test_finish_returns_when_they_are_gone(ledger: Ledger, processes: Processes) -> None:
    closing = Closing(ledger, LANES, driver_devices=2.0, end_workers=processes.end)
    closing.start()
    assert processes.alive == 3
    closing.finish()
    assert processes.alive == 0
    assert ledger.devices == 2.0
    # A lane that has been handed back may still be told what it is charged to.
    before = ledger.charged_for("idle")
    ledger.enter("worker 0", "idle")
    ledger.release("worker 0")
    assert ledger.charged_for("idle") == before


def test_what_starts_after_the_end_is_ended_too(ledger: Ledger) -> None:
    first, second = Processes(), None
    alive = [first]
    closing = Closing(ledger, LANES, driver_devices=2.0, end_workers=lambda: [one.end() for one in alive] and None)
    closing.start()
    closing.over.set()
    while first.alive:
        time.sleep(0.01)
    second = Processes()
    alive.append(second)
    assert psutil.Process(second.started[0].pid).is_running()
    closing.finish()
    assert second.alive == 0
