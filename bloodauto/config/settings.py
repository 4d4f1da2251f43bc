"""The settings of a search: written once into its run, compared on every resume."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from bloodauto.config.budget import parse_budget
from bloodauto.config.machine import Machine, detect_machine
from bloodauto.config.objectives import Objectives, parse_objectives
from bloodauto.config.validation import explain_validation_error
from bloodauto.errors import RunError, UserError
from bloodauto.printable import printable
from bloodauto.run.artifacts.base import Artifact, Record
from bloodauto.run.directory import RUN_FORMAT_VERSION, SETTINGS_FILE, RunDirectory

PrunerName = Literal["successive_halving", "hyperband", "median", "none"]

#: Data that is drawn by the package instead of read.
SYNTHETIC = "synthetic"
_DEFAULT_GPU_SPACE = "gpu"
_DEFAULT_CPU_SPACE = "small"
#: Options whose name does not follow from the field's.
_OPTIONS = {"cleaning": "--no-cleaning"}
#: Fields that hold a path, and the values of them that are names.
_PATH_FIELDS = ("data", "target_images", "weights_dir", "warm_start")
_PATH_NAMES = (SYNTHETIC, "none", "shipped")
_Model = TypeVar("_Model", bound=Record)


class EnsembleLimits(Record):
    """Limits on the ensemble that a search or an export selects."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_members: Annotated[int, Field(ge=1)] | None = None
    """Largest number of ensemble members. A set of networks, one for each fold, counts as one member, so the exported model
    may hold more networks than this. It does not limit how many trials or refits a search trains.

    Unit: members. Default: 4 for a search; for an export, what the search had. Example: ``--max-members 1``."""

    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Longest time the ensemble may take for one image, measured on the machine that selects the ensemble. Where no member is
    fast enough, the fastest is taken. It does not limit which recipes a search trains, and other machines are not measured.

    Unit: milliseconds per image. Default: no limit. Example: ``--max-latency-ms 5``."""


class SearchSettings(EnsembleLimits, Artifact):
    """``settings.yaml``: everything that decides what a search does.

    ``resolve_settings`` fills in what a user did not say. The fields are the options of ``bloodauto search`` and the
    keywords of ``bloodauto.search``.

    Example:
        >>> settings = SearchSettings(budget="40gpu-h", space="gpu", workers=2, gpus_per_trial=1.0)
        >>> settings.budget_device_seconds
        144000.0
    """

    FILE = SETTINGS_FILE
    FORMAT_VERSION: ClassVar[int] = RUN_FORMAT_VERSION

    data: str = SYNTHETIC
    """Images and labels: a folder of class folders, a ``.csv`` manifest, an ``.npz`` file, or ``synthetic`` for cells that are
    drawn.

    Default: ``synthetic``. Example: ``--data cells.npz``."""

    image_size_px: int | None = None
    """Side that all images are resized to when they are read. It does not set the input size of a network; recipes do.

    Unit: pixels. Default: chosen from the images. Example: ``--image-size-px 96``."""

    cleaning: bool = True
    """Whether images that the data check finds broken, duplicated or mislabelled are left out of training. The check itself
    always runs and is written to ``cleaning.csv``.

    Default: true. Example: ``--no-cleaning``."""

    target_images: str | None = None
    """Unlabelled images of the site where the model will be used; the objective ``shift`` then also counts the accuracy that
    is estimated on them. Nothing is trained on them.

    Default: none. Example: ``--target-images new_site/``."""

    space: str
    """The search space: the name of a shipped space, or a ``.yaml`` file. The run keeps its own copy.

    Default: ``gpu`` with GPUs, otherwise ``small``. Example: ``--space tiny``."""

    budget: str
    """What the search may spend: devices reserved times seconds reserved, from the first worker's start to the last byte of the
    export. It does not count reading and cleaning the images.

    Unit: device time such as ``gpu-h`` or ``cpu-min``, or wall-clock time such as ``h`` or ``min``. Default: none, a new
    run needs one. Example: ``--budget 40gpu-h``, ``--budget 2h``."""

    workers: Annotated[int, Field(ge=1)]
    """Trainings that run at a time. It does not set the threads within one training; see ``cpus_per_trial``.

    Unit: processes. Default: as many as cores, memory and GPUs allow. Example: ``--workers 4``."""

    cpus_per_trial: Annotated[float, Field(gt=0)] = 1.0
    """CPU cores that each training reserves, and the most threads it computes with.

    Unit: cores. Default: 1. Example: ``--cpus-per-trial 2``."""

    gpus_per_trial: Annotated[float, Field(ge=0)]
    """GPUs that each training reserves; a fraction shares one GPU among several trainings, with its memory divided alike.

    Unit: GPUs. Default: 1 with GPUs, otherwise 0. Example: ``--gpus-per-trial 0.5``."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of splits, shifted images, suggestions and trainings. With several workers it does not fix which trials run: that
    depends on which training ends first.

    Default: 0. Example: ``--seed 7``."""

    objective: str = "shift"
    """What the search maximises: a score (``shift``, ``accuracy``, ``balanced_accuracy``, ``macro_f1``), or several objectives
    separated by commas, also costs (``latency``, ``parameters``), with a score first. Pruning, refits and the ensemble
    follow the first alone.

    Default: ``shift``. Example: ``--objective shift,latency``."""

    pruner: PrunerName = "successive_halving"
    """Which rule stops trials early. It does not stop refits. ``hyperband`` works with one objective only.

    Default: ``successive_halving``. Example: ``--pruner median``."""

    warm_start: str = "shipped"
    """Recipes that are tried first: ``shipped``, a folder, a file, or ``none``. Recipes that the space does not contain are
    skipped.

    Default: ``shipped``. Example: ``--warm-start none``."""

    prior: tuple[str, ...] | None = None
    """Earlier runs: their best recipes are tried early, and their completed trials shape the first suggestions, less with every
    trial of this search. Recipes that the space does not contain are skipped.

    Default: none. Example: ``--prior runs/first --prior runs/second``."""

    weights_dir: str | None = None
    """Folder of pre-trained weights that is searched before Keras' own cache.

    Default: none. Example: ``--weights-dir weights/``."""

    refit_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Largest fraction of the budget that is reserved for training the ensemble members longer. The search gets more where
    that is expected to gain more than longer refits would.

    Unit: fraction of the budget, between 0 and 1. Default: 0.5. Example: ``--refit-fraction 0.3``."""

    max_trials: Annotated[int, Field(ge=1)] | None = None
    """Largest number of trials that are started. Refits do not count, and the budget may end the search earlier.

    Unit: trials. Default: as many as the budget affords. Example: ``--max-trials 50``."""

    max_members: Annotated[int, Field(ge=1)] = 4
    """Largest number of ensemble members; see ``EnsembleLimits``.

    Unit: members. Default: 4. Example: ``--max-members 1``."""

    storage: str | None = None
    """URL of the Optuna storage of the study; several machines need a database server. Files of the run are not stored there.

    Default: an SQLite file in the run directory. Example: ``--storage postgresql://user@host/study``."""

    @field_validator("objective")
    @classmethod
    def _check_objective(cls, value: str) -> str:
        # A UserError passes through pydantic as it is.
        parse_objectives(value)
        return value

    @field_validator("budget")
    @classmethod
    def _check_budget(cls, value: str) -> str:
        parse_budget(value)
        return value

    @model_validator(mode="after")
    def _check_pruner(self) -> Self:
        count = len(self.objectives.names)
        if count > 1 and self.pruner == "hyperband":
            raise ValueError(
                "--pruner hyperband: expected successive_halving, median or none for several objectives, "
                f"of which --objective {self.objective} has {count}."
            )
        return self

    @model_validator(mode="after")
    def _check_budget_device(self) -> Self:
        kind = parse_budget(self.budget).kind
        if kind == "gpu" and self.gpus_per_trial == 0:
            raise ValueError(
                f"--budget {self.budget}: expected workers with a GPU, got --gpus-per-trial 0. "
                "Pass --gpus-per-trial, or give the budget in cpu-min or cpu-h."
            )
        if kind == "cpu" and self.gpus_per_trial > 0:
            raise ValueError(
                f"--budget {self.budget}: expected workers without a GPU, got --gpus-per-trial {self.gpus_per_trial:g}. "
                "Give the budget in gpu-h, or pass --gpus-per-trial 0."
            )
        return self

    @property
    def objectives(self) -> Objectives:
        """The parsed objectives."""
        return parse_objectives(self.objective)

    @property
    def device(self) -> Literal["gpu", "cpu"]:
        """The kind of device that the budget counts."""
        return "gpu" if self.gpus_per_trial > 0 else "cpu"

    @property
    def devices_per_worker(self) -> float:
        """GPUs, or CPU cores without GPUs, that each worker reserves."""
        return self.gpus_per_trial if self.gpus_per_trial > 0 else self.cpus_per_trial

    @property
    def budget_device_seconds(self) -> float:
        """The budget as devices times seconds."""
        return parse_budget(self.budget).device_seconds(self.workers * self.devices_per_worker)


def option_name(field: str) -> str:
    """The command-line option of a field of ``SearchSettings``; empty for the empty name.

    Example:
        >>> option_name("cpus_per_trial")
        '--cpus-per-trial'
    """
    return _OPTIONS.get(field, f"--{field.replace('_', '-')}" if field else "")


def check_ensemble_limits(max_members: int | None, max_latency_ms: float | None) -> None:
    """Checks the limits of an export.

    Raises:
        UserError: a limit under which there is no ensemble.
    """
    _validate(EnsembleLimits, {"max_members": max_members, "max_latency_ms": max_latency_ms})


def resolve_settings(requested: Mapping[str, Any], machine: Machine | None = None) -> SearchSettings:
    """Fills in what was not requested: devices from the machine, everything else from the fields' defaults.

    Args:
        requested: values by field of ``SearchSettings``; None and absent fields are filled in. ``budget`` must be there.
        machine: what the workers run on; None: this machine, which is looked at only where a default depends on it.

    Raises:
        UserError: no budget, an unknown field, or values that do not fit together.

    Example:
        >>> machine = Machine(cores=4, free_memory_bytes=32_000_000_000, gpus=0)
        >>> settings = resolve_settings({"budget": "30cpu-min"}, machine)
        >>> settings.workers, settings.space
        (4, 'small')
    """
    values = {name: value for name, value in requested.items() if value is not None}
    if "budget" not in values:
        raise UserError("--budget: missing; give what the search may spend, for example 30cpu-min, 40gpu-h or 2h.")
    if "gpus_per_trial" not in values:
        machine = detect_machine() if machine is None else machine
        values["gpus_per_trial"] = 0.0 if machine.gpus == 0 or "cpu-" in str(values["budget"]).lower() else 1.0
    values.setdefault("space", _DEFAULT_CPU_SPACE if values["gpus_per_trial"] == 0 else _DEFAULT_GPU_SPACE)
    settings = _validate(SearchSettings, {"workers": 1, **values})
    if "workers" in values:
        return settings
    machine = detect_machine() if machine is None else machine
    workers = machine.max_workers(cpus_per_trial=settings.cpus_per_trial, gpus_per_trial=settings.gpus_per_trial)
    return settings.model_copy(update={"workers": workers})


def _validate(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(explain_validation_error(error, model, option_name)) from error


def write_settings(run: RunDirectory, settings: SearchSettings) -> None:
    """Writes ``settings.yaml``."""
    run.file(SearchSettings).write(settings)


def read_settings(run: RunDirectory) -> SearchSettings:
    """Reads ``settings.yaml``.

    Raises:
        RunError: no run there, a run of another format, or a file that was changed by hand to something invalid.
    """
    if not run.settings.is_file():
        raise RunError(f"{run.root}: expected a run (a folder with settings.yaml), found none. Check --run.")
    run.check_format()
    try:
        return run.file(SearchSettings).read()
    except RunError:
        raise
    except UserError as error:
        # An unreadable budget or objective.
        raise RunError(f"{run.settings}: {error}") from error


def check_settings_unchanged(saved: SearchSettings, requested: Mapping[str, Any]) -> None:
    """Compares the settings that a resume was given with those of the run; settings that were not given do not count.

    Args:
        saved: the settings of the run.
        requested: values by field of ``SearchSettings``, with absolute paths.

    Raises:
        RunError: they differ; the message lists the differences.
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


def _absolute(value: str | Path, name: str) -> str:
    """A path from the root, which the settings can hold: YAML is text in UTF-8."""
    path = Path(value)
    with contextlib.suppress(RuntimeError):
        # A ~ followed by the name of nobody stays as it is.
        path = path.expanduser()
    text = str(path.resolve())
    if printable(text) != text:
        raise UserError(
            f"{option_name(name)} {text}: expected a path of printable UTF-8 text. Rename it, or give a link to it."
        )
    return text


def absolute_paths(requested: Mapping[str, Any]) -> dict[str, Any]:
    """The requested settings with absolute paths, so that a resume may start in another folder; names stay names."""
    result = dict(requested)
    for name in _PATH_FIELDS:
        value = result.get(name)
        if value is not None and str(value) not in _PATH_NAMES:
            result[name] = _absolute(value, name)
    if result.get("prior"):
        result["prior"] = tuple(str(Path(run).expanduser().resolve()) for run in result["prior"])
    space = result.get("space")
    if space is not None:
        result["space"] = _absolute(space, "space") if Path(space).is_file() else str(space)
    return result
