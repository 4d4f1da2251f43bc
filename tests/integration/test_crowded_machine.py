"""A machine that others begin to use in the middle of a search."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bloodauto.run.directory import RunDirectory

from .conftest import Material
from .runs import Started, bloodauto, charges

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_BUDGET_DEVICE_SECONDS = 120


def _toil() -> None:
    while True:
        pass


@contextmanager
def crowd(processes: int) -> Iterator[None]:
    """So many processes that never rest, more eager for the cores than the workers of a search, which are nice."""
    toiling = [multiprocessing.get_context("spawn").Process(target=_toil, daemon=True) for _ in range(processes)]
    for one in toiling:
        one.start()
    try:
        yield
    finally:
        for one in toiling:
            one.kill()
            one.join()


def test_what_was_foreseen_on_a_quiet_machine_does_not_overspend_on_a_crowded_one(
    material: Material, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    with Started(
        "search", "--run", run.root, "--data", material.dataset, "--space", material.short,
        "--budget", f"{_BUDGET_DEVICE_SECONDS}cpu-s", "--workers", 2, "--refit-fraction", 0.3,
    ) as search:  # fmt: skip
        search.until(lambda: (run.root / "trials/00001/result.json").is_file(), "a second trial to end")
        with crowd(2 * (os.cpu_count() or 1)):
            answer = search.end(timeout_seconds=400)
    assert charges(run)[-1]["spent_device_seconds"] <= _BUDGET_DEVICE_SECONDS
    assert answer.code == 0, (answer.out[-3000:], answer.err[-3000:])
    # Whatever there was no time for can be made up for.
    output = tmp_path / "best"
    exported = bloodauto("export-best", "--run", run.root, "--output", output)
    assert exported.code == 0, exported.err[-3000:]
    assert {"model.keras", "labels.json", "README.md", "submission.zip"} <= {path.name for path in output.iterdir()}
