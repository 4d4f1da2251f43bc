from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bloodauto.errors import RunError
from bloodauto.models.device import cached_device_settings, gpu_memory_limit_mib, measure_device_settings


def put_nvidia_smi(folder: Path, monkeypatch, script: str) -> None:
    """A driver's tool that answers as the script says, first on PATH."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_share_of_the_first_gpus_memory_with_room_to_spare(tmp_path, monkeypatch):
    put_nvidia_smi(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; echo 81920; echo 24576')
    assert gpu_memory_limit_mib(0.5) == 36864
    assert gpu_memory_limit_mib(0.25) == 18432
    assert 4 * gpu_memory_limit_mib(0.25) < 81920
    asked = (tmp_path / "asked").read_text()
    assert "--query-gpu=memory.total" in asked
    assert "--id" not in asked


def test_the_visible_gpu_is_asked_for(tmp_path, monkeypatch):
    put_nvidia_smi(tmp_path, monkeypatch, 'case "$*" in *--id=3*) echo 24576;; *) echo 81920;; esac')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert gpu_memory_limit_mib(0.5) == 11059


@pytest.mark.parametrize("script", ["exit 9", "true", "echo '[N/A]'"])
def test_a_tool_that_does_not_answer(tmp_path, monkeypatch, script):
    put_nvidia_smi(tmp_path, monkeypatch, script)
    with pytest.raises(RunError, match="expected nvidia-smi to tell the GPU's"):
        gpu_memory_limit_mib(0.5)


def test_no_tool_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="expected nvidia-smi"):
        gpu_memory_limit_mib(0.5)


@pytest.mark.slow
def test_the_fastest_setting_is_chosen():
    choice = measure_device_settings(on_gpu=False, seconds_per_variant=0.1)
    assert {one.precision for one in choice.measured} == {"float32"}
    assert {one.jit_compile for one in choice.measured} == {False, True}
    best = max(choice.measured, key=lambda one: one.steps_per_second)
    assert (choice.jit_compile, choice.precision) == (best.jit_compile, best.precision)
    assert best.steps_per_second > 0


@pytest.mark.slow
def test_it_is_measured_once_and_again_when_the_memory_of_it_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "bloodauto" / "device.json"
    first = cached_device_settings(on_gpu=False)
    assert first.measured
    known = json.loads(cache.read_text())
    (key,) = known
    known[key]["precision"] = "remembered"
    cache.write_text(json.dumps(known))
    assert cached_device_settings(on_gpu=False).precision == "remembered", "it was not measured a second time"
    cache.write_text("{")
    assert cached_device_settings(on_gpu=False).precision == "float32"
    assert json.loads(cache.read_text()).keys() == {key}
