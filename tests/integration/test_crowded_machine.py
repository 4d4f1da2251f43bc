"""A machine that other processes begin to use in the middle of a search."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bloodauto.run.directory import RunDirectory
from tests.command_line import Started, bloodauto_here, charges
from tests.search_fixtures import Inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _busy_loop() -> None:
    while True:
        pass


@contextmanager
def crowd(num_processes: int) -> Iterator[None]:
    """Processes that never rest, with the priority of a search's workers."""
    processes = [
        multiprocessing.get_context("spawn").Process(target=_busy_loop, daemon=True) for _ in range(num_processes)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_predictions_of_a_quiet_machine_do_not_overspend_on_a_crowded_one(
    inputs: Inputs, tmp_path: Path, slowness: float
) -> None:
    run, budget = RunDirectory(tmp_path / "run"), round(90 * slowness)
    with Started(
        "search", "--run", run.root, "--data", inputs.dataset, "--space", inputs.short_space,
        "--budget", f"{budget}cpu-s", "--workers", 2, "--refit-fraction", 0.3,
    ) as search:  # fmt: skip
        search.wait_until(lambda: run.trial(1).result.exists, "a second trial to end")
        with crowd(2 * (os.cpu_count() or 1)):
            ended = search.wait(timeout_seconds=120 + budget)
    assert charges(run)[-1].spent_device_seconds <= budget
    assert ended.code == 0, (ended.out[-3000:], ended.err[-3000:])
    # A later command writes what there was no time for.
    output = tmp_path / "best"
    exported = bloodauto_here("export-best", "--run", run.root, "--output", output)
    assert exported.code == 0, exported.err[-3000:]
    assert {"model.keras", "labels.json", "README.md", "submission.zip"} <= {path.name for path in output.iterdir()}
