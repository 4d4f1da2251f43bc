"""A run directory is read whole; what is missing or broken becomes a note."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from bloodauto.config.settings import read_settings, write_settings
from bloodauto.errors import RunError
from bloodauto.report.read import read_run
from bloodauto.report.run_info import RunInfo
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import file_digest


def sources(info: RunInfo) -> set[str]:
    return {note.source for note in info.notes}


def test_a_finished_run_is_read_whole(finished_run: RunDirectory, finished_info: RunInfo) -> None:
    assert finished_info.notes == ()
    assert Counter(trial.state for trial in finished_info.trials) == {
        "complete": 14, "pruned": 11, "failed": 2, "out_of_budget": 1, "running": 1, "waiting": 1,
    }  # fmt: skip
    assert [trial.number for trial in finished_info.trials] == list(range(30))
    assert finished_info.budget_device_seconds == 7200
    assert finished_info.spent_device_seconds == finished_info.ledger[-1].spent_device_seconds == 5210
    assert finished_info.fingerprint == finished_run.fingerprint.read()
    assert finished_info.cleaning == finished_run.cleaning.read()
    assert finished_info.splits == finished_run.splits.read()
    assert finished_info.ensemble == finished_run.ensemble.read()
    assert finished_info.held_out_test == finished_run.held_out_test.read()
    assert finished_info.next_steps.startswith("bloodauto export-best")


def test_a_trial_has_what_its_directory_and_the_study_hold(finished_run: RunDirectory, finished_info: RunInfo) -> None:
    trial = finished_info.trials[3]
    assert (trial.state, trial.attributes.reason, trial.device_seconds) == ("pruned", "rung_6", 20 + 16 * 6)
    history = finished_run.trial(3).history.read().epochs
    assert trial.history == history
    assert trial.curve == tuple((report.epoch, report.objective) for report in history)
    assert trial.objective == history[-1].objective
    assert trial.clean_accuracy == history[-1].accuracy
    assert trial.shift_score == history[-1].shift
    assert {"backbone.name", "stages.1.optimizer.learning_rate"} <= {item.name for item in trial.parameters}
    complete = finished_info.trials[0]
    assert complete.result == finished_run.trial(0).result.read()
    assert complete.result is not None
    assert complete.clean_accuracy == complete.result.metrics.accuracy
    assert complete.attributes.origin == "initial: small and strong"
    assert finished_info.trials[9].curve == ()
    assert finished_info.trials[9].objective is None


def test_the_validation_figures_are_the_ensembles(finished_info: RunInfo) -> None:
    assert finished_info.ensemble is not None
    assert finished_info.validation == (finished_info.ensemble.validation, "the ensemble, calibrated")


def test_without_an_ensemble_the_incumbent_brings_the_validation_figures(own_run: RunDirectory) -> None:
    own_run.ensemble.delete()
    info = read_run(own_run.root)
    incumbent = info.incumbent
    assert incumbent is not None
    assert incumbent.objective == max(trial.objective or 0 for trial in info.trials if trial.state == "complete")
    assert incumbent.result is not None
    assert info.validation == (incumbent.result.validation, f"trial {incumbent.number}, before calibration")


def test_reading_changes_nothing(own_run: RunDirectory) -> None:
    def state() -> dict[str, tuple[str, int]]:
        files = [path for path in own_run.root.rglob("*") if path.is_file()]
        return {str(path): (file_digest(path), path.stat().st_mtime_ns) for path in files}

    before = state()
    read_run(own_run.root)
    assert state() == before


@pytest.mark.parametrize(
    "name",
    ["settings.yaml", "fingerprint.json", "cleaning.csv", "study.db", "ledger.jsonl", "ensemble.json", "test.json"],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "binary"])
def test_any_missing_or_broken_file_is_a_note(own_run: RunDirectory, name: str, damage: str) -> None:
    path = own_run.root / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(content[: len(content) * 2 // 3])
    else:
        path.write_bytes(b"\xff\xfe\x00{" * 40)
    if (name, damage) == ("settings.yaml", "empty"):
        # Settings without a format version are those of another version.
        with pytest.raises(RunError, match="format_version"):
            read_run(own_run.root)
        return
    info = read_run(own_run.root)
    # A log that ends early, or has nothing in it, is still a log; so is one line that is torn.
    is_log = name == "ledger.jsonl" and damage != "missing"
    assert sources(info) == (set() if is_log else {name})
    if name != "study.db":
        assert len(info.trials) == 30


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("ensemble.json", {"members": "many"}, "members: expected a valid array, got 'many'"),
        ("ensemble.json", {"members": []}, "members: expected"),
        ("ensemble.json", {"images": None}, "images: expected a valid integer, got None"),
        ("ensemble.json", {"places": 3}, "places: expected no such field, got 3"),
        ("test.json", {"accuracy": "good"}, "accuracy: expected a valid number, got 'good'"),
        ("test.json", {"accuracy": 17.5}, "accuracy: expected"),
        ("test.json", {"confusion": [[1, 2]]}, "confusion: expected a square matrix, not 1 rows"),
        ("test.json", {"classes": ["a", "b"]}, "expected 8 classes, as the confusion matrix has rows, not 2"),
        ("fingerprint.json", {"format_version": 7}, "format_version: expected 1, got 7"),
        ("splits.json", {"parts": [{"part": 0, "name": "x", "images": 3}]}, "parts.0.images: expected a valid array"),
    ],
)
def test_a_wrong_value_is_named(own_run: RunDirectory, name: str, change: dict[str, Any], problem: str) -> None:
    path = own_run.root / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    notes = read_run(own_run.root).notes
    assert [note.source for note in notes] == [name]
    assert problem in notes[0].text


def test_a_torn_last_line_of_the_ledger_loses_only_itself(own_run: RunDirectory) -> None:
    charges = read_run(own_run.root).ledger
    with own_run.ledger.path.open("a") as stream:
        stream.write('{"at_unix": 17, "phase": "tri')
    info = read_run(own_run.root)
    assert info.ledger == charges
    assert not info.notes


def test_broken_files_of_one_trial_leave_the_others(own_run: RunDirectory) -> None:
    own_run.trial(0).history.path.write_text("[{]")
    own_run.trial(2).result.path.write_text('{"format_version": 1, "metrics": 3}')
    info = read_run(own_run.root)
    assert sources(info) == {"trials/00000/history.json", "trials/00002/result.json"}
    assert info.trials[0].history == ()
    assert info.trials[0].objective is not None
    assert len(info.trials[2].history) == 12


def test_a_foreign_attribute_of_a_trial_is_a_note(own_run: RunDirectory) -> None:
    study = optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{own_run.study}")
    storage = study._storage
    storage.set_trial_user_attr(study.trials[28]._trial_id, "purpose", "another program's")
    storage.remove_session()
    info = read_run(own_run.root)
    assert [note.source for note in info.notes] == ["study.db"]
    assert "trial 28: user attributes: purpose: expected no such field" in info.notes[0].text


def test_no_run_directory_is_an_error_with_a_hint(tmp_path: Path, finished_run: RunDirectory) -> None:
    with pytest.raises(RunError, match="nothing there"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="bloodauto search"):
        read_run(tmp_path)
    with pytest.raises(RunError, match=rf"Did you mean .*{finished_run.root.name}"):
        read_run(finished_run.root.parent)


def test_an_old_run_is_an_error(own_run: RunDirectory) -> None:
    text = own_run.settings.read_text()
    own_run.settings.write_text("\n".join(line for line in text.splitlines() if "format_version" not in line))
    with pytest.raises(RunError, match="made by another version of bloodauto"):
        read_run(own_run.root)


def test_a_run_that_has_just_begun(own_run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "young").mkdir()
    shutil.copy(own_run.settings, tmp_path / "young")
    info = read_run(tmp_path / "young")
    assert info.trials == ()
    assert info.incumbent is None
    assert info.spent_device_seconds is None
    assert {"study.db", "fingerprint.json", "ensemble.json", "test.json"} <= sources(info)


def test_passwords_never_reach_the_notes(own_run: RunDirectory) -> None:
    url = "postgresql://ada:s3cret@no-such-host.invalid/studies"
    write_settings(own_run, read_settings(own_run).model_copy(update={"storage": url}))
    info = read_run(own_run.root)
    assert info.trials == ()
    assert "settings.yaml" in sources(info)
    assert "s3cret" not in repr(info.notes)


def test_the_study_may_be_another_sqlite_file(own_run: RunDirectory) -> None:
    url = "sqlite:///other.db"
    shutil.move(own_run.study, own_run.root / "other.db")
    with sqlite3.connect(own_run.root / "other.db") as connection:
        connection.execute("UPDATE studies SET study_name = ?", (own_run.study_name(url),))
    connection.close()
    write_settings(own_run, read_settings(own_run).model_copy(update={"storage": url}))
    assert len(read_run(own_run.root).trials) == 30


def test_a_database_without_our_study_is_a_note(own_run: RunDirectory) -> None:
    with sqlite3.connect(own_run.study) as connection:
        connection.execute("UPDATE studies SET study_name = 'other'")
    connection.close()
    info = read_run(own_run.root)
    assert info.trials == ()
    assert "named 'bloodauto'" in info.notes[0].text


def test_values_that_are_not_finite_are_no_points_of_a_curve(own_run: RunDirectory) -> None:
    study = optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{own_run.study}")
    trial = optuna.Trial(study, study.trials[28]._trial_id)
    trial.report(float("nan"), 9)
    study._storage.remove_session()
    curve = read_run(own_run.root).trials[28].curve
    assert [epoch for epoch, _ in curve] == [1, 2]
    assert np.isfinite([value for _, value in curve]).all()
