"""Workers with half a GPU each, as Ray counts GPUs; no hardware is needed, so what runs on the device itself is not tested."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bloodauto.run.directory import RunDirectory

from .conftest import Material
from .runs import bloodauto, charges

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


_NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *memory*) echo 16384 ;;
  *) echo "No GPU at all" ;;
esac
"""


def test_two_workers_share_a_gpu_and_are_charged_half_of_it_each(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "bin/nvidia-smi"
    command.parent.mkdir()
    command.write_text(_NVIDIA_SMI)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = RunDirectory(tmp_path / "run")
    answer = bloodauto(
        "search", "--run", run.root, "--data", material.dataset, "--space", material.short, "--budget", "75gpu-s",
        "--workers", 2, "--gpus-per-trial", 0.5, "--refit-fraction", 0.3, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err[-3000:]
    summary = json.loads(answer.out.splitlines()[-1])
    assert summary["budget_device_seconds"] == 75
    assert summary["spent_device_seconds"] <= 75
    assert summary["trials"]["complete"] > 0
    assert (run.export.root / "model.keras").is_file()
    lines = charges(run)
    wall_seconds = lines[-1]["at_unix"] - lines[0]["at_unix"]
    # Two halves while both train; half a GPU in the end.
    assert 0.5 * wall_seconds <= summary["spent_device_seconds"] <= 1.1 * wall_seconds + 10
