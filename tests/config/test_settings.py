"""The settings of a search: defaults, validation, the file, and the comparison on a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bloodauto.config.machine import Machine
from bloodauto.config.settings import (
    SearchSettings,
    absolute_paths,
    check_ensemble_limits,
    check_settings_unchanged,
    option_name,
    read_settings,
    resolve_settings,
    write_settings,
)
from bloodauto.errors import BudgetError, RunError, UserError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.yaml_files import dump_yaml, read_yaml

CPU_MACHINE = Machine(cores=4, free_memory_bytes=64_000_000_000, gpus=0)
GPU_MACHINE = Machine(cores=16, free_memory_bytes=64_000_000_000, gpus=2)


def test_every_field_has_a_docstring_with_default_and_example() -> None:
    for name, field in SearchSettings.model_fields.items():
        assert field.description is not None, name
        assert "efault" in field.description, name
        assert option_name(name) in field.description, name


def test_defaults_follow_the_machine() -> None:
    on_cpu = resolve_settings({"budget": "2h"}, CPU_MACHINE)
    assert (on_cpu.workers, on_cpu.gpus_per_trial, on_cpu.space, on_cpu.device) == (4, 0.0, "small", "cpu")
    on_gpu = resolve_settings({"budget": "2h"}, GPU_MACHINE)
    assert (on_gpu.workers, on_gpu.gpus_per_trial, on_gpu.space, on_gpu.device) == (2, 1.0, "gpu", "gpu")
    cpu_budget = resolve_settings({"budget": "30cpu-min"}, GPU_MACHINE)
    assert (cpu_budget.workers, cpu_budget.gpus_per_trial, cpu_budget.space) == (16, 0.0, "small")


def test_requested_values_replace_defaults() -> None:
    settings = resolve_settings(
        {"budget": "2h", "workers": 3, "gpus_per_trial": 0.5, "space": "tiny", "seed": None}, GPU_MACHINE
    )
    assert (settings.workers, settings.gpus_per_trial, settings.space, settings.seed) == (3, 0.5, "tiny", 0)
    assert settings.devices_per_worker == 0.5
    assert settings.budget_device_seconds == 2 * 3600 * 1.5


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ({"workers": 0}, "--workers: expected at least 1, got 0"),
        ({"workers": 1.5}, "--workers: expected a whole number, got 1.5"),
        ({"cpus_per_trial": 0.0}, "--cpus-per-trial: expected more than 0.0, got 0.0"),
        ({"cpus_per_trial": "two"}, "--cpus-per-trial: expected a number, got 'two'"),
        ({"gpus_per_trial": -1.0}, "--gpus-per-trial: expected at least 0.0, got -1.0"),
        ({"seed": -1}, "--seed: expected at least 0, got -1"),
        ({"refit_fraction": 1.0}, "--refit-fraction: expected less than 1.0, got 1.0"),
        ({"max_trials": 0}, "--max-trials: expected at least 1, got 0"),
        ({"max_members": 0}, "--max-members: expected at least 1, got 0"),
        ({"max_latency_ms": 0.0}, "--max-latency-ms: expected more than 0.0, got 0.0"),
        ({"max_latency_ms": float("inf")}, "--max-latency-ms: expected a finite number, got inf"),
        ({"pruner": "medain"}, "--pruner: .*did you mean 'median'"),
        ({"objective": "shfit"}, "--objective: .*did you mean 'shift'"),
        ({"objective": "shift,latency", "pruner": "hyperband"}, "--pruner hyperband: expected successive_halving"),
        ({"worker": 2}, "--worker: no such field; did you mean 'workers'"),
        ({"budget": "2gpu-h"}, "--budget 2gpu-h: expected workers with a GPU"),
        ({"budget": "2cpu-h", "gpus_per_trial": 1.0}, "--budget 2cpu-h: expected workers without a GPU"),
        ({"budget": None}, "--budget: missing"),
    ],
)
def test_invalid_values_are_explained_by_option(requested: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_settings({"budget": "2h", **requested}, CPU_MACHINE)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(UserError) as error:
        resolve_settings({"budget": "2h", "workers": 0, "seed": -1}, CPU_MACHINE)
    assert str(error.value).splitlines() == [
        "--workers: expected at least 1, got 0",
        "--seed: expected at least 0, got -1",
    ]


def test_an_unreadable_budget_is_a_budget_error() -> None:
    with pytest.raises(BudgetError, match="40tpu-h"):
        resolve_settings({"budget": "40tpu-h"}, CPU_MACHINE)


def test_limits_of_an_export_are_checked_alike() -> None:
    check_ensemble_limits(None, None)
    check_ensemble_limits(1, 2.5)
    with pytest.raises(UserError, match="--max-members: expected at least 1, got 0"):
        check_ensemble_limits(0, None)


def test_settings_are_frozen() -> None:
    settings = resolve_settings({"budget": "2h"}, CPU_MACHINE)
    with pytest.raises(ValidationError):
        settings.seed = 3


def test_the_file_gives_back_the_settings(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    settings = resolve_settings({"budget": "30cpu-min", "cpus_per_trial": 2, "max_latency_ms": 3}, CPU_MACHINE)
    write_settings(run, settings)
    assert read_settings(run) == settings


def test_a_run_of_another_format_gives_one_clear_error(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(RunError, match="expected a run"):
        read_settings(run)
    write_settings(run, resolve_settings({"budget": "2h"}, CPU_MACHINE))
    values = read_yaml(run.settings).value
    run.settings.write_text(dump_yaml({**values, "format_version": 99}), encoding="utf-8")
    with pytest.raises(RunError, match="format_version: expected 2, got 99"):
        read_settings(run)
    del values["format_version"]
    run.settings.write_text(dump_yaml(values), encoding="utf-8")
    with pytest.raises(RunError, match="format_version: expected 2, got none"):
        read_settings(run)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"workers": 0}, "settings.yaml: workers: expected greater than or equal to 1, got 0"),
        ({"budget": "much"}, "settings.yaml: --budget: expected an amount"),
        ({"lanes": 2}, "settings.yaml: lanes: expected no such field"),
    ],
)
def test_a_file_that_was_changed_by_hand_is_explained(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    run = RunDirectory(tmp_path)
    write_settings(run, resolve_settings({"budget": "2h"}, CPU_MACHINE))
    run.settings.write_text(dump_yaml({**read_yaml(run.settings).value, **changed}), encoding="utf-8")
    with pytest.raises(RunError, match=message):
        read_settings(run)


def test_a_resume_lists_what_differs() -> None:
    saved = resolve_settings({"budget": "2h", "seed": 3}, CPU_MACHINE)
    check_settings_unchanged(saved, {})
    check_settings_unchanged(saved, {"seed": 3, "cpus_per_trial": 1})
    with pytest.raises(RunError) as error:
        check_settings_unchanged(saved, {"seed": 4, "budget": "2h", "workers": 9})
    assert "seed: the run has 3, you gave 4" in str(error.value)
    assert "workers: the run has 4, you gave 9" in str(error.value)
    assert "budget" not in str(error.value)


def test_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").touch()
    requested = {"data": Path("cells.npz"), "space": "space.yaml", "warm_start": "none", "weights_dir": "w", "seed": 1}
    assert absolute_paths(requested) == {
        "data": str(tmp_path / "cells.npz"),
        "space": str(tmp_path / "space.yaml"),
        "warm_start": "none",
        "weights_dir": str(tmp_path / "w"),
        "seed": 1,
    }
    assert absolute_paths({"data": "synthetic", "space": "tiny"}) == {"data": "synthetic", "space": "tiny"}
