import os

import pytest

from bloodauto.config.machine import Machine, count_local_gpus, detect_machine


@pytest.mark.parametrize(
    ("cpus_per_trial", "gpus_per_trial", "workers"),
    [(1.0, 0.0, 8), (2.0, 0.0, 4), (1.0, 0.5, 4), (1.0, 1.0, 2), (64.0, 0.0, 1)],
)
def test_the_scarcest_resource_limits_the_workers(cpus_per_trial: float, gpus_per_trial: float, workers: int) -> None:
    machine = Machine(cores=8, free_memory_bytes=1_000_000_000_000, gpus=2)
    assert machine.max_workers(cpus_per_trial=cpus_per_trial, gpus_per_trial=gpus_per_trial) == workers


def test_memory_limits_the_workers() -> None:
    machine = Machine(cores=64, free_memory_bytes=8_000_000_000, gpus=0)
    assert machine.max_workers(cpus_per_trial=1.0, gpus_per_trial=0.0) == 3


def test_this_machine_has_a_core_and_memory() -> None:
    machine = detect_machine()
    assert machine.cores >= 1
    assert machine.free_memory_bytes > 0


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", "")
    assert count_local_gpus() == 0
