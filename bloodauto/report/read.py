"""Reads a run directory into ``RunInfo``. A missing or broken file becomes a note, never an exception."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from optuna.trial import FrozenTrial

from bloodauto.config.settings import SearchSettings, read_settings
from bloodauto.errors import RunError, UserError
from bloodauto.report.run_info import Note, Parameter, RunInfo, TrialInfo, TrialState
from bloodauto.run import study_reader
from bloodauto.run.artifacts import Ensemble
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_attributes import TrialAttributes
from bloodauto.run.training_directory import ArtifactFile, F

Value = TypeVar("Value")

_NO_SETTINGS = "no settings: budget, seed and search space are unknown."
_NO_FINGERPRINT = "no description of the data: the run stopped before or while it read the images."
_NO_CLEANING = "no record of the cleaning: the run stopped before it."
_NO_STUDY = "no study: the search has not begun."
_NO_LEDGER = "no ledger: nothing has been charged yet, or it was removed."
_NO_ENSEMBLE = "no ensemble yet: it is selected after the last trial and needs at least one complete one."
_NO_TEST = "the held-out test set has not been evaluated yet: that happens once, at the end of the run."

_STATES: dict[str, TrialState] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


class _Reader:
    """Reads parts of one run and collects a note for each that is missing or broken."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[Note] = []

    def note(self, path: Path, text: str) -> None:
        self.notes.append(Note(path.relative_to(self.root).as_posix(), text.replace(f"{self.root}/", "")))

    def part(self, path: Path, read: Callable[[], Value], *, missing: str = "") -> Value | None:
        """``read()``, or None and a note. A file that is missing gets a note where ``missing`` says what that means."""
        if not path.exists():
            if missing:
                self.note(path, missing)
            return None
        try:
            return read()
        except (UserError, OSError, UnicodeDecodeError) as error:
            self.note(path, f"could not be read and is left out: {study_reader.mask_passwords(str(error))}")
            return None

    def artifact(self, file: ArtifactFile[F], *, missing: str = "") -> F | None:
        return self.part(file.path, file.read, missing=missing)


def read_run(root: Path) -> RunInfo:
    """Reads everything that a run directory holds. No file in it is written, created or locked.

    A run that is in progress gives a consistent picture of the study at one moment; every other file is whole, because files
    are written atomically.

    Args:
        root: the run directory.

    Raises:
        RunError: no run directory, or one of another format version.
    """
    root = Path(root)
    require_run(root)
    run, reader = RunDirectory(root), _Reader(root)
    settings = reader.part(run.settings, lambda: read_settings(run), missing=_NO_SETTINGS)
    site_scores, pareto_front = reader.artifact(run.site_scores), reader.artifact(run.pareto_front)
    next_steps = reader.part(run.next_steps, lambda: run.next_steps.read_text(encoding="utf-8"))
    ensemble = reader.artifact(run.ensemble, missing=_NO_ENSEMBLE)
    trials = _trials(run, reader, settings)
    return RunInfo(
        root=root,
        settings=settings,
        fingerprint=reader.artifact(run.fingerprint, missing=_NO_FINGERPRINT),
        cleaning=reader.artifact(run.cleaning, missing=_NO_CLEANING),
        splits=reader.artifact(run.splits),
        trials=trials,
        ledger=reader.part(run.ledger.path, run.ledger.read, missing=_NO_LEDGER) or (),
        ensemble=ensemble,
        held_out_test=reader.artifact(run.held_out_test, missing=_NO_TEST),
        ood=reader.artifact(run.ood_evaluation),
        site_scores=() if site_scores is None else site_scores.sites,
        target_estimate=reader.artifact(run.target_estimate),
        distilled=reader.artifact(run.distilled),
        pareto_front=() if pareto_front is None else pareto_front.trials,
        next_steps="" if next_steps is None else next_steps,
        data_pictures=reader.artifact(run.data_pictures),
        result_pictures=reader.artifact(run.result_pictures),
        recipe=_recipe(run, reader, ensemble, trials),
        notes=tuple(reader.notes),
    )


def _recipe(run: RunDirectory, reader: _Reader, ensemble: Ensemble | None, trials: Sequence[TrialInfo]) -> str:
    """The recipe of the member with the largest weight, else of the incumbent; empty where there is none."""
    if ensemble is not None:
        path = max(ensemble.members, key=lambda member: member.weight).networks[0].files.recipe
    else:
        incumbent = RunInfo(run.root, trials=tuple(trials)).incumbent
        if incumbent is None:
            return ""
        path = run.trial(incumbent.number).recipe
    # A member may lie in another folder, which is not the run's to read from.
    if not path.resolve().is_relative_to(run.root.resolve()):
        return ""
    text = reader.part(path, lambda: path.read_text(encoding="utf-8"))
    return "" if text is None else text


def require_run(root: Path) -> None:
    """Checks that there is a run which this version can read.

    Args:
        root: the directory.

    Raises:
        RunError: no directory, one that holds nothing a run writes (the message names runs inside it), or a run of another
            format version.
    """
    if _is_run_directory(root):
        RunDirectory(root).check_format()
        return
    if not root.is_dir():
        raise RunError(f"{root}: expected a run directory, found {'a file' if root.exists() else 'nothing'} there.")
    inside = sorted(path.name for path in root.iterdir() if path.is_dir() and _is_run_directory(path))
    hint = f"Did you mean {root / inside[-1]}?" if inside else "Give the folder that 'bloodauto search' wrote into."
    raise RunError(f"{root}: expected a run directory (with settings or a study), found neither. {hint}")


def _is_run_directory(root: Path) -> bool:
    run = RunDirectory(root)
    return any(path.is_file() for path in (run.settings, run.study, run.ledger.path, run.fingerprint.path))


def _trials(run: RunDirectory, reader: _Reader, settings: SearchSettings | None) -> tuple[TrialInfo, ...]:
    storage = None if settings is None else settings.storage
    if storage is None:
        name = run.study_name(None)
        frozen = reader.part(run.study, lambda: _from_sqlite(run.study, name), missing=_NO_STUDY)
    else:
        frozen = _from_storage(run, reader, storage)
    return tuple(_trial(run, reader, trial) for trial in frozen or ())


def _from_storage(run: RunDirectory, reader: _Reader, storage: str) -> Sequence[FrozenTrial] | None:
    try:
        path, name = study_reader.sqlite_path(storage, run.root), run.study_name(storage)
        return study_reader.frozen_trials(storage, name) if path is None else _from_sqlite(path, name)
    except RunError as error:
        reader.note(run.settings, f"storage: the study could not be read: {study_reader.mask_passwords(str(error))}")
        return None


def _from_sqlite(path: Path, name: str) -> Sequence[FrozenTrial]:
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        copy = Path(folder) / path.name
        study_reader.snapshot(path, copy)
        return study_reader.frozen_trials(study_reader.sqlite_url(copy), name)


def _trial(run: RunDirectory, reader: _Reader, trial: FrozenTrial) -> TrialInfo:
    directory = run.trial(trial.number)
    try:
        attributes = TrialAttributes.read(trial)
    except RunError as error:
        reader.note(run.study, str(error))
        attributes = TrialAttributes()
    values = trial.intermediate_values if trial.intermediate_values else dict(attributes.curve)
    curve = tuple((epoch, float(value)) for epoch, value in sorted(values.items()) if math.isfinite(value))
    state = _STATES[trial.state.name]
    if trial.state.is_finished() and attributes.outcome is not None:
        state = attributes.outcome
    history = reader.artifact(directory.history)
    return TrialInfo(
        number=trial.number,
        state=state,
        objective=_objective(trial, state, curve),
        curve=curve,
        parameters=tuple(
            Parameter(name, value, trial.distributions[name]) for name, value in sorted(trial.params.items())
        ),
        attributes=attributes,
        result=reader.artifact(directory.result),
        history=() if history is None else history.epochs,
    )


def _objective(trial: FrozenTrial, state: TrialState, curve: Sequence[tuple[int, float]]) -> float | None:
    if state == "complete":
        # With several objectives the first one is the primary.
        value = trial.values[0] if trial.values else None
        return value if value is not None and math.isfinite(value) else None
    return curve[-1][1] if curve and state in ("pruned", "out_of_budget", "running") else None
