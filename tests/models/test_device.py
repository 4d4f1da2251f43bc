"""The memory limit of a shared GPU, and the measured settings of a device."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bloodauto.errors import RunError
from bloodauto.models.device import DeviceSettings, _cache_path, cached_device_settings, gpu_memory_limit_mib
from bloodauto.models.device_speed import measure_device_settings


def put_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a driver's tool that runs a script first on PATH."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_fraction_of_the_first_gpus_memory_leaves_headroom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/arguments; echo 81920; echo 24576')
    assert gpu_memory_limit_mib(0.5) == 36864
    assert gpu_memory_limit_mib(0.25) == 18432
    assert 4 * gpu_memory_limit_mib(0.25) < 81920
    arguments = (tmp_path / "arguments").read_text()
    assert "--query-gpu=memory.total" in arguments
    assert "--id" not in arguments


def test_the_visible_gpu_is_queried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, 'case "$*" in *--id=3*) echo 24576;; *) echo 81920;; esac')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert gpu_memory_limit_mib(0.5) == 11059


@pytest.mark.parametrize("script", ["exit 9", "true", "echo '[N/A]'"])
def test_a_tool_that_prints_no_number_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, script)
    with pytest.raises(RunError, match="expected nvidia-smi to print the GPU's"):
        gpu_memory_limit_mib(0.5)


def test_no_tool_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="expected nvidia-smi"):
        gpu_memory_limit_mib(0.5)


@pytest.mark.slow
def test_the_fastest_setting_is_chosen() -> None:
    settings = measure_device_settings(on_gpu=False, seconds_per_variant=0.1)
    assert {speed.precision for speed in settings.measured} == {"float32"}
    assert {speed.jit_compile for speed in settings.measured} == {False, True}
    fastest = max(settings.measured, key=lambda speed: speed.steps_per_second)
    assert (settings.jit_compile, settings.precision) == (fastest.jit_compile, fastest.precision)
    assert fastest.steps_per_second > 0


def test_a_user_without_a_home_has_a_cache_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", _no_home)
    assert _cache_path().name == "device.json"
    assert _cache_path().is_absolute()


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.slow
def test_a_device_is_measured_once_and_again_when_its_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    (tmp_path / "keras.py").write_text("raise SystemExit('notes of mine')\n")
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "bloodauto" / "device.json"
    assert cached_device_settings(on_gpu=False).measured
    content = json.loads(cache.read_text())
    (key,) = content["devices"]
    content["devices"][key]["precision"] = "cached"
    cache.write_text(json.dumps(content))
    assert cached_device_settings(on_gpu=False).precision == "cached", "it was not measured a second time"
    cache.write_text("{")
    # The process that measures was seen to work above.
    printed = DeviceSettings().model_dump_json()
    monkeypatch.setattr("bloodauto.models.device._MEASURING_PROGRAM", f"print({printed!r})")
    assert cached_device_settings(on_gpu=False).precision == "float32"
    assert json.loads(cache.read_text())["devices"].keys() == {key}
