"""Inputs of searches, and one finished search that all tests share which only read it; a plugin of the root conftest."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.run.directory import RunDirectory
from tests.command_line import Completed, bloodauto

SPACE = """
input: {{size_px: 32}}
backbone: {{name: own_cnn, weights: none, width: 8, blocks: 3}}
head: {{dropout: {{float: [0.0, 0.3]}}}}
augmentation: {{orientation: true}}
batch_size: 32
stages:
  - epochs: {epochs}
    unfreeze: all
    optimizer:
      choice:
        - {{name: adamw, learning_rate: {{float: [2.0e-3, 1.0e-2], log: true}}}}
        - {{name: nadam, learning_rate: {{float: [2.0e-3, 1.0e-2], log: true}}}}
    schedule: {{name: constant}}
"""
#: Seconds of ``_LOOP`` on a quiet core of the machine for which budgets are chosen.
_REFERENCE_SECONDS = 0.45
_LOOP = """
import time
started, total = time.perf_counter(), 0
for number in range(3_000_000):
    total += number
print(time.perf_counter() - started)
"""


@dataclass(frozen=True)
class Inputs:
    """Four hundred small synthetic cells, and spaces of one network that is trained on them within seconds.

    Attributes:
        dataset: 400 cells of 32 px, ``.npz``.
        short_space: Three epochs for each trial.
        long_space: Twelve epochs for each trial.
    """

    dataset: Path
    short_space: Path
    long_space: Path


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    write_dataset(synthesize(400, site="lab_a", seed=3, image_size_px=32), folder / "cells.npz")
    for name, epochs in (("short", 3), ("long", 12)):
        (folder / f"{name}.yaml").write_text(SPACE.format(epochs=epochs))
    return Inputs(folder / "cells.npz", folder / "short.yaml", folder / "long.yaml")


@pytest.fixture(scope="session")
def slowness() -> float:
    """How many times longer this machine takes, at least 1, than the one for which the tests' budgets are chosen.

    A search is limited in time, so what it completes depends on the machine. Tests multiply their budgets by this.
    """
    command = [sys.executable, "-c", _LOOP]
    seconds = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
    return max(1.0, sum(seconds) / len(seconds) / _REFERENCE_SECONDS)


@dataclass(frozen=True)
class FinishedSearch:
    """A search with two workers that came to its end.

    Attributes:
        run: Its directory.
        command: How the command ended.
        budget_device_seconds: What it was given.
    """

    run: RunDirectory
    command: Completed
    budget_device_seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        """The last line that ``--json`` printed."""
        summary: dict[str, Any] = json.loads(self.command.out.splitlines()[-1])
        return summary


@pytest.fixture(scope="session")
def finished_search(inputs: Inputs, slowness: float, tmp_path_factory: pytest.TempPathFactory) -> FinishedSearch:
    """One search for all tests that only read it. They stand in one file, which one process runs."""
    run, budget = tmp_path_factory.mktemp("finished") / "run", round(110 * slowness)
    command = bloodauto(
        "search", "--run", run, "--data", inputs.dataset, "--space", inputs.short_space, "--budget", f"{budget}cpu-s",
        "--workers", 2, "--refit-fraction", 0.3, "--json", timeout_seconds=90 + budget,
    )  # fmt: skip
    assert command.code == 0, (command.out[-3000:], command.err[-3000:])
    return FinishedSearch(RunDirectory(run), command, budget)
