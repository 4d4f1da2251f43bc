import os
import sys
from pathlib import Path

import psutil
import pytest

from bloodauto.config import machine as machine_module
from bloodauto.config.machine import (
    Machine,
    available_cores,
    available_memory_bytes,
    count_local_gpus,
    detect_machine,
    total_memory_bytes,
)


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


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists four GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\nfor index in range(4):\n    print('GPU', index)\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 4), ("", 0), ("-1", 0), ("2", 1), ("0,3", 2), ("0,-1,1", 1), ("7", 0), ("GPU-1f,GPU-2a", 2), ("none", 0)],
)
def test_gpus_are_counted_as_cuda_lets_them_be_seen(
    driver: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_local_gpus() == count


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_cores_are_those_that_the_control_group_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(machine_module, "_CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(machine_module, "_cgroup_folders", lambda controller: [tmp_path, tmp_path / controller])
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("limit_file", "usage_file"),
    [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")],
)
def test_memory_is_what_the_control_group_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_file: str, usage_file: str
) -> None:
    monkeypatch.setattr(machine_module, "_cgroup_folders", lambda controller: [tmp_path])
    (tmp_path / limit_file).write_text("200000000")
    (tmp_path / usage_file).write_text("50000000")
    assert available_memory_bytes() == 150_000_000
    assert total_memory_bytes() == 200_000_000
    (tmp_path / limit_file).write_text("9223372036854771712")
    assert total_memory_bytes() == psutil.virtual_memory().total
