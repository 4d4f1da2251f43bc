"""The simulated executor passes the conformance suite of executors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bloodauto.clock import SimulatedClock
from bloodauto.config.recipe import Recipe
from bloodauto.run.directory import RunDirectory
from bloodauto.testing.conformance.executors import EXECUTOR_CHECKS, ExecutorHarness
from bloodauto.tuning.executors import Executor
from bloodauto.tuning.executors.simulated import CurvePoint, Fault, SimulatedExecutor, SimulatedMachine


@dataclass
class SimulatedHarness:
    """One simulated machine for all sessions of a check."""

    epoch_seconds: float = 5.0
    start_seconds: float = 12.0
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    executors: dict[RunDirectory, SimulatedExecutor] = field(default_factory=dict)

    def curve(self, recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        factor = 1 if recipe.backbone.width == 16 else 2
        return CurvePoint(min(0.5 + 0.05 * epoch, 1.0), factor * self.epoch_seconds, 0.1 * self.epoch_seconds)

    @contextlib.contextmanager
    def executor(self, run: RunDirectory, faults: tuple[Fault, ...], *, max_restarts: int) -> Iterator[Executor]:
        if run not in self.executors:
            machine = SimulatedMachine(tick_seconds=1.0, faults=faults)
            self.executors[run] = SimulatedExecutor(self.curve, machine, max_restarts=max_restarts, clock=self.clock)
        yield self.executors[run]

    def interrupt(self) -> None:
        for executor in self.executors.values():
            executor.interrupt()


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
def test_the_simulated_executor_conforms(check: Callable[[ExecutorHarness, Path], None], tmp_path: Path) -> None:
    check(SimulatedHarness(), tmp_path)
