"""What a search was asked to do: written once into its run, compared on every resume."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import psutil

from bloodauto.config.budget import parse_budget
from bloodauto.config.validation import did_you_mean
from bloodauto.errors import RunError, UserError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_text
from bloodauto.run.yaml_files import dump_yaml, read_yaml
from bloodauto.tuning.objectives import Objectives, parse_objectives

#: A worker with TensorFlow, its share of the images and a small network.
_BYTES_PER_WORKER = 2_500_000_000


@dataclass(frozen=True)
class SearchSettings:
    """Everything that decides what a search does.

    Attributes:
        data: a path, or ``synthetic``.
        image_size_px: side the images are resized to; None: see ``load_dataset``.
        cleaning: whether findings of the cleaning are acted upon.
        target_images: unlabelled images of the laboratory the network is meant for, a path; None: there are none.
        space: name of a shipped space or path; the run keeps its own copy.
        budget: as typed; it limits devices reserved x seconds reserved from the first worker's start to the last byte
            of the export, and not what happens before (reading and cleaning the images).
        workers, cpus_per_trial, gpus_per_trial: trainings at once and what each reserves.
        seed: of splits, views, suggestions and trainings.
        objective: what the search maximises: a score, or several objectives with commas, the leading score first.
        pruner: which pruner stops bad trials.
        warm_start: folder or file of initial configurations; ``none``.
        weights_dir: folder of pre-trained weights that is looked in first.
        refit_fraction: share of the budget kept for the ensemble's trainings, 0-1.
        max_trials: most trials; None: as many as the budget affords.
        max_members: most members of the ensemble; a set of networks, one for each fold, is one.
        max_latency_ms: most milliseconds that one image may take the ensemble, measured on the machine that concludes the
            search; where no network is fast enough, the fastest is taken. None: any.
        storage: an Optuna storage URL; None: SQLite in the run.
    """

    data: str
    image_size_px: int | None
    cleaning: bool
    target_images: str | None
    space: str
    budget: str
    workers: int
    cpus_per_trial: float
    gpus_per_trial: float
    seed: int
    objective: str
    pruner: str
    warm_start: str
    weights_dir: str | None
    refit_fraction: float
    max_trials: int | None
    max_members: int
    max_latency_ms: float | None
    storage: str | None

    @property
    def objectives(self) -> Objectives:
        """Raises UserError: names that are none of a search's objectives."""
        return parse_objectives(self.objective)

    @property
    def device(self) -> str:
        return "gpu" if self.gpus_per_trial > 0 else "cpu"

    @property
    def devices_per_worker(self) -> float:
        """GPUs or CPU cores each worker reserves: what the budget counts."""
        return self.gpus_per_trial if self.gpus_per_trial > 0 else self.cpus_per_trial

    @property
    def budget_device_seconds(self) -> float:
        return parse_budget(self.budget).device_seconds(self.workers * self.devices_per_worker)

    def check(self) -> None:
        """Checks the values against each other.

        Raises:
            UserError: a value out of range, or a budget of devices that the workers do not use.
        """
        positive = {"--workers": self.workers, "--cpus-per-trial": self.cpus_per_trial}
        for name, value in positive.items():
            if value <= 0:
                raise UserError(f"{name}: expected more than 0, got {value:g}.")
        if self.gpus_per_trial < 0:
            raise UserError(f"--gpus-per-trial: expected 0 or more, got {self.gpus_per_trial:g}.")
        if self.seed < 0:
            raise UserError(f"--seed: expected 0 or more, got {self.seed}.")
        if not 0 < self.refit_fraction < 1:
            raise UserError(f"--refit-fraction: expected a fraction between 0 and 1, got {self.refit_fraction:g}.")
        if self.max_trials is not None and self.max_trials < 1:
            raise UserError(f"--max-trials: expected at least 1, got {self.max_trials}.")
        check_caps(self.max_members, self.max_latency_ms)
        from bloodauto.tuning.pruning import PrunerName

        _check_name("--pruner", self.pruner, get_args(PrunerName))
        if len(self.objectives.names) > 1 and self.pruner == "hyperband":
            raise UserError(
                "--pruner hyperband: expected successive_halving, median or none for several objectives, "
                f"of which --objective {self.objective} has {len(self.objectives.names)}."
            )
        kind = parse_budget(self.budget).kind
        if kind == "gpu" and self.gpus_per_trial <= 0:
            raise UserError(
                f"--budget {self.budget}: expected workers with a GPU, got --gpus-per-trial 0. "
                "Pass --gpus-per-trial, or give the budget in cpu-min or cpu-h."
            )
        if kind == "cpu" and self.gpus_per_trial > 0:
            raise UserError(
                f"--budget {self.budget}: expected workers without a GPU, got --gpus-per-trial {self.gpus_per_trial:g}. "
                "Give the budget in gpu-h, or pass --gpus-per-trial 0."
            )


def check_caps(max_members: int | None, max_latency_ms: float | None) -> None:
    """Raises:
    UserError: a cap under which there is no ensemble.
    """
    if max_members is not None and max_members < 1:
        raise UserError(f"--max-members: expected at least 1, got {max_members}.")
    if max_latency_ms is not None and not max_latency_ms > 0:
        raise UserError(f"--max-latency-ms: expected more than 0, got {max_latency_ms:g}.")


def _check_name(option: str, name: str, valid: tuple[str, ...]) -> None:
    if name not in valid:
        expected = ", ".join(valid[:-1]) + f" or {valid[-1]}"
        raise UserError(f"{option}: expected {expected}, got {name!r}; {did_you_mean(name, valid)}")


def default_workers(cpus_per_trial: float, gpus_per_trial: float, gpus: int) -> int:
    """As many as the machine's cores, memory and GPUs carry, at least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [affinity / cpus_per_trial, psutil.virtual_memory().available / _BYTES_PER_WORKER]
    if gpus_per_trial > 0:
        limits.append(gpus / gpus_per_trial)
    return max(int(min(limits)), 1)


def write_settings(run: RunDirectory, settings: SearchSettings) -> None:
    """Writes ``settings.yaml``, with what follows from the settings for whoever reads the run."""
    derived = {"device": settings.device, "budget_device_seconds": settings.budget_device_seconds}
    write_text(run.settings, dump_yaml({**asdict(settings), **derived}))


def read_settings(run: RunDirectory) -> SearchSettings:
    """Reads ``settings.yaml``.

    Raises:
        RunError: no run there, or its settings are not those of this version.
    """
    if not run.settings.is_file():
        raise RunError(f"{run.root}: expected a run (a folder with settings.yaml), found none. Check --run.")
    value = read_yaml(run.settings).value
    names = {field.name for field in fields(SearchSettings)}
    if not isinstance(value, dict) or not names <= set(value):
        raise RunError(f"{run.settings}: expected the settings {sorted(names)}; the file was changed or is too old.")
    known: dict[str, Any] = {name: value[name] for name in names}
    for name in ("cpus_per_trial", "gpus_per_trial", "refit_fraction"):
        known[name] = float(known[name])
    return SearchSettings(**known)


def check_settings_unchanged(saved: SearchSettings, requested: dict[str, Any]) -> None:
    """Compares the settings a resume was given with the run's own; those that were not given do not count.

    Raises:
        RunError: they differ; the message says in what.
    """
    differences = [
        f"  {name}: the run has {getattr(saved, name)!r}, you gave {value!r}"
        for name, value in requested.items()
        if getattr(saved, name) != value
    ]
    if differences:
        raise RunError(
            "--resume: expected the settings the run was made with, but\n"
            + "\n".join(differences)
            + "\nLeave them out to go on with the run's own, or start a new run."
        )


def count_local_gpus() -> int:
    """GPUs that the NVIDIA driver lists; 0 without one."""
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(listed.stdout.splitlines())


def new_settings(requested: Mapping[str, Any]) -> SearchSettings:
    """Fills in what was not given: devices from the machine, everything else from fixed defaults.

    Raises:
        UserError: no budget, or values that do not fit together.
    """
    if requested.get("budget") is None:
        raise UserError("--budget: missing; give what the search may spend, for example 30cpu-min, 40gpu-h or 2h.")
    known = {name: value for name, value in requested.items() if value is not None}
    gpus = count_local_gpus() if "gpus_per_trial" not in known or "workers" not in known else 0
    wants_cpu = "cpu-" in str(known["budget"]).lower()
    gpus_per_trial = float(known.get("gpus_per_trial", 0.0 if wants_cpu or gpus == 0 else 1.0))
    cpus_per_trial = float(known.get("cpus_per_trial", 1.0))
    if cpus_per_trial <= 0:
        raise UserError(f"--cpus-per-trial: expected more than 0, got {cpus_per_trial:g}.")
    workers = known.get("workers")
    defaults: dict[str, Any] = {
        "data": "synthetic",
        "image_size_px": None,
        "cleaning": True,
        "target_images": None,
        "space": "gpu" if gpus_per_trial > 0 else "small",
        "seed": 0,
        "objective": "shift",
        "pruner": "successive_halving",
        "warm_start": "shipped",
        "weights_dir": None,
        "refit_fraction": 0.5,
        "max_trials": None,
        "max_members": 4,
        "max_latency_ms": None,
        "storage": None,
    }
    devices = {
        "workers": default_workers(cpus_per_trial, gpus_per_trial, gpus) if workers is None else workers,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
    }
    settings = SearchSettings(**{**defaults, **known, **devices})
    settings.check()
    return settings


def absolute_paths(requested: Mapping[str, Any]) -> dict[str, Any]:
    """Paths as absolute ones, so that a resume may come from another folder; names stay names."""
    result = dict(requested)
    for name in ("data", "target_images", "weights_dir", "warm_start"):
        value = result.get(name)
        if value is not None and value not in ("synthetic", "none", "shipped"):
            result[name] = str(Path(value).expanduser().resolve())
    if result.get("space") is not None and Path(result["space"]).is_file():
        result["space"] = str(Path(result["space"]).resolve())
    return result
