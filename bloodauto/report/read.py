"""A run directory -> ``RunInfo``. Reads only; a missing or broken file becomes a note, never an exception."""

from __future__ import annotations

import csv
import json
import math
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bloodauto.config.settings import read_settings
from bloodauto.ensemble.assemble import out_of_fold_ensemble, read_ensemble
from bloodauto.errors import RunError, UserError
from bloodauto.report import distilled as student
from bloodauto.report import parse, study
from bloodauto.report import parse_results as parse_end
from bloodauto.report import site_tables as places
from bloodauto.report.info import (
    CleaningInfo,
    EpochInfo,
    LedgerEntry,
    Note,
    Outcome,
    ParamValue,
    RunInfo,
    Scores,
    TrialInfo,
    ValidationPredictions,
)
from bloodauto.run.artifacts import LedgerFile, TrainingHistory
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_arrays, read_json

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Value = TypeVar("Value")

#: What reading a broken file can raise: wrong encoding, wrong JSON, wrong types, damaged archives, no permission.
_READ_ERRORS = (
    UserError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RecursionError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)

_MISSING_FILE_NOTES = {
    "settings.yaml": "the run's settings are not there; budget, seed and search space are unknown.",
    "fingerprint.json": "no description of the data: the run stopped before or while it read the images.",
    "cleaning.csv": "no record of the cleaning: the run stopped before it, or the cleaning was switched off.",
    "study.db": "no study: the search has not begun.",
    "ledger.jsonl": "no ledger: nothing has been charged yet, or it was removed.",
    "ensemble.json": "no ensemble yet: it is made after the last trial and needs at least one complete one.",
    "test.json": "the held-out test images have not been opened yet: that happens once, at the end of the run.",
}

_BY_STATE: dict[str, Outcome] = {
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

    def part(self, path: Path, read: Callable[[Path], Value], *, optional: bool = False) -> Value | None:
        """``read(path)``, or ``None`` and a note. A missing ``optional`` file needs no note."""
        if not path.exists():
            if not optional:
                self.note(path, _MISSING_FILE_NOTES[path.name])
            return None
        try:
            return read(path)
        except _READ_ERRORS as error:
            self.note(path, f"could not be used and is left out: {study.mask_passwords(str(error))}")
            return None


def read_run(root: Path) -> RunInfo:
    """Reads everything a run directory holds, disturbing nothing: no file in it is written, created or locked.

    A run that is still going gives a consistent picture of the study at one moment; the other files are each whole,
    because they are written atomically.

    Raises:
        RunError: ``root`` is no run directory.
    """
    root = Path(root)
    require_run(root)
    run, reader = RunDirectory(root), _Reader(root)
    settings: dict[str, Any] = reader.part(run.settings, _settings) or {}
    trials = _trials(run, reader, settings.get("storage"))
    best = RunInfo(root, trials=trials).best
    splits = reader.part(run.splits.path, lambda path: parse.splits(read_json(path)), optional=True)
    sizes, split_notes = ((), ()) if splits is None else splits
    return RunInfo(
        root=root,
        settings=tuple((key, study.mask_passwords(_setting_text(value))) for key, value in settings.items()),
        budget=parse.text(settings.get("budget")),
        budget_device_seconds=_budget(settings, run, reader),
        device=parse.text(settings.get("device")) or "device",
        fingerprint=reader.part(run.fingerprint.path, lambda path: parse.fingerprint(read_json(path))),
        cleaning=reader.part(run.cleaning.path, _cleaning),
        split_sizes=sizes,
        split_notes=split_notes,
        trials=trials,
        ledger=reader.part(run.ledger.path, _ledger) or (),
        ensemble=reader.part(run.ensemble.path, lambda path: parse_end.ensemble(read_json(path))),
        test=reader.part(run.held_out_test.path, lambda path: parse_end.test_result(read_json(path))),
        ood=reader.part(run.ood_evaluation.path, lambda path: parse_end.ood(read_json(path)), optional=True),
        sites=reader.part(root / "site_scores.json", lambda path: places.sites(read_json(path)), optional=True) or (),
        target=reader.part(root / "target.json", lambda path: places.target(read_json(path)), optional=True),
        student=reader.part(root / "distilled.json", lambda path: student.student(read_json(path)), optional=True),
        pareto_front=reader.part(
            root / "pareto_front.json", lambda path: places.pareto_front(read_json(path)), optional=True
        )
        or (),
        predictions=_ensemble_predictions(run) or _trial_predictions(run, reader, best),
        next_steps=reader.part(run.next_steps, lambda path: path.read_text(encoding="utf-8"), optional=True) or "",
        exported=tuple(sorted(path.name for path in run.export.root.iterdir())) if run.export.root.is_dir() else (),
        notes=tuple(reader.notes),
    )


def require_run(root: Path) -> None:
    """Raises:
    RunError: ``root`` is no folder, or holds nothing that a run writes; the message names runs inside it.
    """
    if _is_run_directory(root):
        return
    if not root.is_dir():
        raise RunError(f"{root}: expected a run directory, found {'a file' if root.exists() else 'nothing'} there.")
    inside = sorted(path.name for path in root.iterdir() if path.is_dir() and _is_run_directory(path))
    hint = f"Did you mean {root / inside[-1]}?" if inside else "Give the folder that 'bloodauto search' wrote into."
    raise RunError(f"{root}: expected a run directory (with settings.yaml or study.db), found neither. {hint}")


def _is_run_directory(root: Path) -> bool:
    run = RunDirectory(root)
    return any(path.is_file() for path in (run.settings, run.study, run.ledger.path, run.fingerprint.path))


def _settings(path: Path) -> dict[str, Any]:
    settings = read_settings(RunDirectory(path.parent))
    derived = {"device": settings.device, "budget_device_seconds": settings.budget_device_seconds}
    return {**settings.model_dump(mode="json"), **derived}


def _setting_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _budget(settings: dict[str, Any], run: RunDirectory, reader: _Reader) -> float | None:
    try:
        return parse.number(settings.get("budget_device_seconds"), "budget_device_seconds")
    except ValueError as error:
        reader.note(run.settings, str(error))
        return None


def _cleaning(path: Path) -> CleaningInfo:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        if "name" not in (rows.fieldnames or ()):
            raise ValueError("expected a header with 'name', 'finding' and 'action'")
        return parse.cleaning(rows)


def _ledger(path: Path) -> tuple[LedgerEntry, ...]:
    charges = LedgerFile(path).read()
    return tuple(LedgerEntry(one.phase, one.device_seconds, one.spent_device_seconds) for one in charges)


def _trials(run: RunDirectory, reader: _Reader, storage: Any) -> tuple[TrialInfo, ...]:
    frozen = (
        reader.part(run.study, lambda path: _from_sqlite(path, run.study_name(None)))
        if not storage
        else _from_url(run, reader, storage)
    )
    return tuple(_trial(run, reader, trial) for trial in frozen or ())


def _from_url(run: RunDirectory, reader: _Reader, storage: Any) -> list[FrozenTrial] | None:
    try:
        path = study.sqlite_path(str(storage), run.root)
        name = run.study_name(str(storage))
        return list(study.frozen_trials(str(storage), name)) if path is None else _from_sqlite(path, name)
    except RunError as error:
        reader.note(run.settings, f"storage: the study could not be read: {study.mask_passwords(str(error))}")
        return None


def _from_sqlite(path: Path, name: str) -> list[FrozenTrial]:
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        copy = Path(folder) / "study.db"
        study.snapshot(path, copy)
        return list(study.frozen_trials(f"sqlite:///{copy}", name))


def _trial(run: RunDirectory, reader: _Reader, trial: FrozenTrial) -> TrialInfo:
    folder = run.trial(trial.number).root
    attributes = trial.user_attrs
    result = reader.part(folder / "result.json", _result, optional=True) or {}
    intermediate = tuple(
        (int(step), float(value)) for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)
    )
    outcome = _BY_STATE[trial.state.name]
    if trial.state.is_finished() and attributes.get("outcome") in ("complete", "pruned", "failed", "out_of_budget"):
        outcome = attributes["outcome"]
    return TrialInfo(
        number=trial.number,
        outcome=outcome,
        value=_value(trial, outcome, intermediate),
        intermediate=intermediate,
        params=tuple(ParamValue(key, value, trial.distributions[key]) for key, value in sorted(trial.params.items())),
        origin=parse.text(attributes.get("origin")),
        reason=parse.text(attributes.get("reason", result.get("reason"))),
        message=parse.text(attributes.get("message")),
        recipe_id=parse.text(attributes.get("recipe_id")),
        backbone=parse.text(attributes.get("backbone")),
        device_seconds=_first_number(attributes.get("device_seconds"), result.get("device_seconds")),
        parameters=parse.integer(result.get("parameters"), "parameters"),
        metrics=result.get("metrics", ()),
        history=reader.part(folder / "history.json", _history, optional=True) or (),
    )


def _value(trial: FrozenTrial, outcome: Outcome, intermediate: tuple[tuple[int, float], ...]) -> float | None:
    if outcome == "complete":
        return trial.value if trial.value is not None and math.isfinite(trial.value) else None
    return intermediate[-1][1] if intermediate and outcome in ("pruned", "out_of_budget", "running") else None


def _first_number(*values: Any) -> float | None:
    for value in values:
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def _result(path: Path) -> dict[str, Any]:
    fields = dict(parse.mapping(read_json(path), "result"))
    metrics: Scores = parse.scores(fields.get("metrics"), "metrics")
    return {**fields, "metrics": metrics, "parameters": parse.number(fields.get("parameters"), "parameters")}


def _history(path: Path) -> tuple[EpochInfo, ...]:
    return tuple(
        EpochInfo(entry.epoch, str(entry.stage), entry.train_accuracy, entry.accuracy, entry.shift, entry.objective)
        for entry in TrainingHistory.read(path).epochs
    )


def _ensemble_predictions(run: RunDirectory) -> ValidationPredictions | None:
    """The ensemble's calibrated answers, from those of its members; ``None`` when they cannot be had."""
    try:
        predictions = out_of_fold_ensemble(read_ensemble(run))
        return _checked_predictions("the ensemble, calibrated", predictions.truth.labels, predictions.clean)
    except _READ_ERRORS:
        # An ensemble that is missing or damaged has its note already; the best trial stands in.
        return None


def _trial_predictions(run: RunDirectory, reader: _Reader, best: TrialInfo | None) -> ValidationPredictions | None:
    if best is None:
        return None

    def read(path: Path) -> ValidationPredictions:
        arrays = read_arrays(path)
        return _checked_predictions(f"trial {best.number}, before calibration", arrays["labels"], arrays["clean"])

    return reader.part(run.trial(best.number).root / "predictions.npz", read, optional=True)


def _checked_predictions(source: str, labels: np.ndarray, probabilities: np.ndarray) -> ValidationPredictions:
    labels, probabilities = labels.astype(np.int64), probabilities.astype(np.float64)
    if labels.ndim != 1 or probabilities.shape[:1] != labels.shape or probabilities.ndim != 2 or not len(labels):
        raise ValueError(
            f"expected labels (n,) and probabilities (n, classes), got {labels.shape} and {probabilities.shape}"
        )
    if not np.isfinite(probabilities).all() or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError("labels out of range, or probabilities that are not finite")
    return ValidationPredictions(source, labels, probabilities)
