"""What must hold of a search's run directory whatever was killed, and when: read from its files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState

from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import file_digest
from bloodauto.run.study_attributes import TrialAttributes
from bloodauto.run.study_reader import frozen_trials, sqlite_url
from bloodauto.run.training_directory import TrainingDirectory

_ROUNDING = 1e-3


@dataclass(frozen=True)
class CompletedRecord:
    """A completed trial, as it must stay.

    Attributes:
        values: Its objectives.
        parameters: Its parameters.
        completed_at: When the study says it completed.
        digests: SHA-256 of the files that it keeps, by name.
    """

    values: tuple[float, ...]
    parameters: Mapping[str, object]
    completed_at: str
    digests: Mapping[str, str]


@dataclass(frozen=True)
class RunState:
    """A run between two sessions.

    Attributes:
        completed: Its completed trials by number.
        spent_device_seconds: What its ledger says, the running total of a killed session included.
        ledger_text: Its ledger.
    """

    completed: Mapping[int, CompletedRecord]
    spent_device_seconds: float
    ledger_text: str

    @classmethod
    def read(cls, run: RunDirectory) -> RunState:
        """Reads a run that nobody works in; one that has not begun yet is empty.

        Args:
            run: Its directory; the study is an SQLite file in it.
        """
        completed = {
            trial.number: CompletedRecord(
                tuple(trial.values),
                dict(trial.params),
                str(trial.datetime_complete),
                {path.name: file_digest(path) for path in _kept_files(run.trial(trial.number)) if path.is_file()},
            )
            for trial in _trials(run)
            if trial.state == TrialState.COMPLETE
        }
        heartbeat = run.ledger_heartbeat.read_if_exists()
        running_total = 0.0 if heartbeat is None else heartbeat.spent_device_seconds
        charged = sum(run.ledger.device_seconds_by_phase().values())
        text = run.ledger.path.read_text(encoding="utf-8") if run.ledger.exists else ""
        return cls(completed, max(charged, running_total), text)


def _kept_files(training: TrainingDirectory) -> tuple[Path, ...]:
    """What a completed trial keeps for good; checkpoints and the weights outside the ensemble are deleted at the end."""
    return training.recipe, training.history.path, training.predictions.path, training.result.path


def _trials(run: RunDirectory) -> Sequence[optuna.trial.FrozenTrial]:
    if not run.study.is_file():
        return ()
    try:
        return frozen_trials(sqlite_url(run.study), run.study_name(None))
    except RunError:
        # Killed while the database was made; a resume makes it again.
        return ()


def violations(run: RunDirectory, before: RunState, *, budget_device_seconds: float, finished: bool) -> list[str]:
    """What a session did to a run that it must not do.

    Args:
        run: Its directory, now that the session has ended.
        before: What it was before the session.
        budget_device_seconds: Its budget.
        finished: Whether the session said that the search is finished.

    Returns:
        A sentence for each; empty when all is well.

    Example:
        >>> import tempfile
        >>> run = RunDirectory(Path(tempfile.mkdtemp()))
        >>> violations(run, RunState.read(run), budget_device_seconds=60.0, finished=False)
        []
    """
    after = RunState.read(run)
    problems = _changed_trials(before, after)
    problems += _ledger_problems(run, before, after, budget_device_seconds)
    for trial in _trials(run):
        problems += _trial_problems(trial, run.trial(trial.number), finished=finished)
    if finished:
        problems += _export_problems(run)
    elif run.export.labels.exists and not run.ensemble.exists:
        problems.append("there is an export without an ensemble")
    return problems


def _changed_trials(before: RunState, after: RunState) -> list[str]:
    problems = []
    for number, record in before.completed.items():
        if number not in after.completed:
            problems.append(f"trial {number} was complete and is no more")
        elif after.completed[number] != record:
            problems.append(f"trial {number} was complete and has changed")
    return problems


def _ledger_problems(run: RunDirectory, before: RunState, after: RunState, budget_device_seconds: float) -> list[str]:
    problems = []
    # A torn last line is mended by the next session.
    kept = before.ledger_text[: before.ledger_text.rfind("\n") + 1]
    if not after.ledger_text.startswith(kept):
        problems.append("the ledger does not continue what was charged before")
    total = 0.0
    for number, charge in enumerate(run.ledger.read(), start=1):
        total += charge.device_seconds
        if not math.isclose(total, charge.spent_device_seconds, abs_tol=_ROUNDING * number):
            problems.append(f"line {number} of the ledger says {charge.spent_device_seconds} spent, it is {total:.3f}")
            break
    if after.spent_device_seconds > budget_device_seconds + _ROUNDING:
        problems.append(f"{after.spent_device_seconds:.1f} of {budget_device_seconds:.1f} device-seconds are spent")
    return problems


def _trial_problems(trial: optuna.trial.FrozenTrial, training: TrainingDirectory, *, finished: bool) -> list[str]:
    """How a trial's record differs from its files."""
    name, problems = f"trial {trial.number}", []
    outcome = TrialAttributes.read(trial).outcome
    result, history = training.result.read_if_exists(), training.history.read_if_exists()
    has_finished = result is not None and result.finished
    if trial.state == TrialState.COMPLETE:
        assert trial.values is not None, "Optuna keeps the values of complete trials"
        if result is None or not has_finished:
            problems.append(f"{name} is complete, and its result on disk is not")
        elif result.objective != trial.values[0]:
            problems.append(f"{name} is recorded with {trial.values[0]}, its result says {result.objective}")
        if outcome != "complete":
            problems.append(f"{name} is complete, and its outcome is {outcome}")
    elif has_finished and trial.state.is_finished():
        problems.append(f"{name} finished on disk, and its outcome is {outcome}")
    if finished and not trial.state.is_finished():
        problems.append(f"{name} is open although the search is finished")
    if history is not None:
        epochs = {report.epoch: report.objective for report in history.epochs}
        if list(epochs) != list(range(1, len(history.epochs) + 1)):
            problems.append(f"{name} has the epochs {list(epochs)}")
        if any(epochs.get(epoch, value) != value for epoch, value in trial.intermediate_values.items()):
            problems.append(f"{name} has other objectives in the study than in its history")
    return problems


def _export_problems(run: RunDirectory) -> list[str]:
    required: Mapping[str, Path] = {
        "its ensemble": run.ensemble.path,
        "a model": run.export.keras_model,
        "labels": run.export.labels.path,
    }
    return [f"the search is finished without {name}" for name, path in required.items() if not path.is_file()]
