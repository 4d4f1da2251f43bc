"""What the dashboard shows beside the study: notes, pictures and tables of each trial, the plan, constraints.

Nothing of it is written to the study. It is made from the run's files when the dashboard asks, so that it costs the search
nothing, and is there for every storage and every run.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import RDBStorage
from optuna.study._frozen import FrozenStudy

from bloodauto.config.settings import SearchSettings
from bloodauto.errors import RunError
from bloodauto.monitor.decisions import TrialRecord, end_text, origin_text, trial_record
from bloodauto.monitor.pictures import confusion_png, learning_curve_png
from bloodauto.monitor.reader import StatusReader
from bloodauto.monitor.status import SearchStatus
from bloodauto.run.artifacts import EpochReport, TrainingResult
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from optuna.trial import FrozenTrial, TrialState

ArtifactKind = Literal["learning_curve.png", "confusion.png", "history.csv"]
_KINDS: tuple[ArtifactKind, ...] = ("learning_curve.png", "confusion.png", "history.csv")
_MIME_TYPES = {"png": "image/png", "csv": "text/csv"}
#: How old what is shown may be; the dashboard keeps trials as long.
_MAX_AGE_SECONDS = 2.0
#: Keys of the dashboard's own attributes, in which Optuna keeps constraints, too.
_CONSTRAINTS = "constraints"


class Annotations:
    """Notes, artifacts and constraints of a run's study.

    Args:
        run: The run.
        settings: Its settings; None where they are absent.
    """

    def __init__(self, run: RunDirectory, settings: SearchSettings | None) -> None:
        self._run, self._settings = run, settings
        self._ended: dict[int, dict[str, Any]] = {}
        self._latencies: dict[int, float] = {}

    def study_attributes(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """System attributes of the study, as the dashboard reads them: the notes, and which artifacts there are.

        Args:
            trials: All trials of the study.
        """
        attributes: dict[str, Any] = {}
        for trial in trials:
            if trial.number not in self._ended:
                of_trial = self._trial_attributes(trial)
                if not trial.state.is_finished():
                    attributes |= of_trial
                    continue
                self._ended[trial.number] = of_trial
            attributes |= self._ended[trial.number]
        note = self._study_note(trials)
        return attributes if not note else attributes | _note_attributes("dashboard", note, len(trials) + 1)

    def _trial_attributes(self, trial: FrozenTrial) -> dict[str, Any]:
        """The note of a trial and its artifacts; a damaged file is left out."""
        directory = self._run.trial(trial.number)
        try:
            record = trial_record(trial)
            history, result = directory.history.read_if_exists(), directory.result.read_if_exists()
        except RunError as error:
            return _note_attributes(f"dashboard:{trial._trial_id}", f"This trial could not be read: {error}", 1)
        epochs = () if history is None else history.epochs
        version = len(epochs) + (2 if trial.state.is_finished() else 1)
        note = self._trial_note(record, directory, epochs, result)
        attributes = _note_attributes(f"dashboard:{trial._trial_id}", note, version)
        has_confusion = result is not None and result.validation is not None and bool(self._classes())
        present = {"learning_curve.png": bool(epochs), "history.csv": bool(epochs), "confusion.png": has_confusion}
        for index, kind in enumerate(_KINDS):
            if present[kind]:
                identifier = f"{trial.number:08x}-{index:02x}"
                meta = {
                    "artifact_id": identifier,
                    "filename": kind,
                    "mimetype": _MIME_TYPES[kind.partition(".")[2]],
                    "encoding": None,
                }
                attributes[f"dashboard:artifacts:{trial._trial_id}:{identifier}"] = json.dumps(meta)
        return attributes

    def constraints(self, number: int) -> list[float] | None:
        """How far a trial is from the cap on latency, at most 0 within it; None without a cap or a measurement.

        Args:
            number: The trial's number.
        """
        cap = None if self._settings is None else self._settings.max_latency_ms
        if cap is None:
            return None
        if number not in self._latencies:
            try:
                result = self._run.trial(number).result.read_if_exists()
            except RunError:
                return None
            if result is None or result.latency_ms is None:
                return None
            self._latencies[number] = result.latency_ms
        return [self._latencies[number] - cap]

    # -- artifacts, as optuna's protocol of a store has them ---------------------------------------------------------------

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The content of an artifact, made now.

        Args:
            artifact_id: As in ``study_attributes``.

        Raises:
            ArtifactNotFound: There is none.
        """
        try:
            number, kind = artifact_id.split("-")
            return io.BytesIO(self._content(int(number, 16), _KINDS[int(kind, 16)]))
        except (ValueError, IndexError, RunError) as error:
            raise ArtifactNotFound(artifact_id) from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Refuses: the dashboard is read-only."""
        raise ArtifactNotFound(artifact_id)

    def remove(self, artifact_id: str) -> None:
        """Refuses: the dashboard is read-only."""
        raise ArtifactNotFound(artifact_id)

    def _content(self, number: int, kind: ArtifactKind) -> bytes:
        directory = self._run.trial(number)
        if kind == "confusion.png":
            validation = directory.result.read().validation
            if validation is None:
                raise RunError(f"{directory.result.path}: expected a confusion matrix, found none.")
            return confusion_png(validation.confusion, self._classes(), f"trial {number}: rows true, columns predicted")
        epochs = directory.history.read().epochs
        return _history_csv(epochs) if kind == "history.csv" else learning_curve_png(epochs, f"trial {number}")

    def _classes(self) -> tuple[str, ...]:
        fingerprint = self._run.fingerprint.read_if_exists()
        return () if fingerprint is None else tuple(fingerprint.classes)

    # -- notes ---------------------------------------------------------------------------------------------------------

    def _objective(self) -> str:
        return "objective" if self._settings is None else self._settings.objectives.primary

    def _trial_note(
        self,
        record: TrialRecord,
        directory: TrainingDirectory,
        epochs: Sequence[EpochReport],
        result: TrainingResult | None,
    ) -> str:
        is_open = record.state == "running"
        outcome = f"running, {len(epochs)} epochs so far" if is_open else end_text(record)
        rows = {
            "outcome": outcome,
            "recipe from": origin_text(record.attributes),
            "cost": f"{_seconds(record.attributes.device_seconds)}, {len(epochs)} epochs",
        }
        if result is not None:
            rows |= {
                f"score ({self._objective()})": f"{result.objective:.4f}",
                "shift": f"{result.shift:.4f}",
                "accuracy on clean images": f"{result.metrics.accuracy:.4f}",
                "milliseconds per image": "-" if result.latency_ms is None else f"{result.latency_ms:.2f}",
                "parameters": f"{result.parameters:,}",
            }
        cap = None if self._settings is None else self._settings.max_latency_ms
        if cap is not None:
            rows["cap on latency"] = f"{cap:g} ms"
        rows["files"] = f"`{directory.root}`"
        recipe = _read_text(directory.recipe)
        parts = [_markdown_table(rows)]
        if record.attributes.message:
            parts.append(_fenced(record.attributes.message))
        if recipe:
            parts += ["### Recipe", _fenced(recipe, "yaml")]
        return "\n\n".join(parts)

    def _study_note(self, trials: Sequence[FrozenTrial]) -> str:
        """What was asked, how far it is, the plan, the next commands; empty where the run tells nothing."""
        if self._settings is None:
            return ""
        try:
            status = StatusReader(self._run.root, trials=lambda: trials).read()
        except RunError as error:
            return f"The run could not be read: {error}"
        return _status_note(status, self._settings)


class AnnotatedStorage(RDBStorage):
    """A study as it is stored, with the annotations of a run in its attributes.

    Args:
        url: Of the database.
        annotations: Of the run.
        study_name: Of the run's study; others in the database stay as they are.
        skip_table_creation: As for ``RDBStorage``.
    """

    def __init__(self, url: str, *, annotations: Annotations, study_name: str, skip_table_creation: bool) -> None:
        super().__init__(url, skip_table_creation=skip_table_creation)
        self._annotations, self._study_name = annotations, study_name
        self._attributes: dict[str, Any] = {}
        self._made_at = float("-inf")

    def _added(self, study_id: int) -> Mapping[str, Any]:
        now = time.monotonic()
        if now - self._made_at >= _MAX_AGE_SECONDS:
            self._attributes = self._annotations.study_attributes(super().get_all_trials(study_id, deepcopy=False))
            self._made_at = now
        return self._attributes

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """The stored attributes and the annotations."""
        attributes = super().get_study_system_attrs(study_id)
        is_ours = self.get_study_name_from_id(study_id) == self._study_name
        return {**attributes, **self._added(study_id)} if is_ours else attributes

    def get_all_studies(self) -> list[FrozenStudy]:
        """The studies; the run's own with its annotations."""
        studies = super().get_all_studies()
        for study in studies:
            if study.study_name == self._study_name:
                study.system_attrs = {**study.system_attrs, **self._added(study._study_id)}
        return studies

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials, with their constraints."""
        trials = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        if self.get_study_name_from_id(study_id) != self._study_name:
            return trials
        for trial in trials:
            constraints = self._annotations.constraints(trial.number)
            if constraints is not None:
                trial._system_attrs = {**trial._system_attrs, _CONSTRAINTS: constraints}
        return trials


def _note_attributes(prefix: str, body: str, version: int) -> dict[str, Any]:
    """A note as the dashboard stores one; its parts may have any length here."""
    return {f"{prefix}:note_ver": version, f"{prefix}:note_str:0": body}


def _history_csv(epochs: Iterable[EpochReport]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(EpochReport.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(report.model_dump(mode="json") for report in epochs)
    return text.getvalue().encode()


def _markdown_table(rows: Mapping[str, str]) -> str:
    lines = ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _fenced(text: str, language: str = "") -> str:
    """A block of code, whatever stands in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _seconds(device_seconds: float | None) -> str:
    return "not charged yet" if device_seconds is None else f"{device_seconds:,.0f} device-seconds"


def _status_note(status: SearchStatus, settings: SearchSettings) -> str:
    fraction = status.spent_device_seconds / max(status.budget_device_seconds, 1e-9)
    rows = {
        "data": settings.data,
        "search space": settings.space,
        "objective": settings.objective,
        "budget": f"{settings.budget}, {fraction:.0%} of it spent",
        "state": status.phase,
        "trials": ", ".join(f"{count} {name}" for name, count in status.trials),
    }
    if settings.max_latency_ms is not None:
        rows["cap on latency (constraint)"] = f"{settings.max_latency_ms:g} ms per image"
    if status.best is not None:
        rows["best"] = f"trial {status.best.trial}, {status.best.backbone}: {status.best.objective:.4f}"
    parts = [_markdown_table(rows)]
    if status.plan:
        lines = ["| training | number | seconds each | why |", "|---|---|---|---|"]
        for row in status.plan:
            seconds = "" if row.seconds_each is None else f"{row.seconds_each:.0f}"
            lines.append(f"| {_cell(row.what)} | {row.count} | {seconds} | {_cell(row.reason)} |")
        parts += ["### Plan for the rest of the budget", "\n".join(lines)]
    if status.next_steps:
        parts += ["### Next", _fenced(status.next_steps)]
    return "\n\n".join(parts)
