from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bloodauto.errors import RunError
from bloodauto.report.info import RunInfo
from bloodauto.report.read import read_run
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import file_digest
from bloodauto.run.yaml_files import dump_yaml
from bloodauto.testing.run_factory import REFITS


def sources(info: RunInfo) -> set[str]:
    return {note.source for note in info.notes}


def test_a_finished_run_is_read_whole(finished_info: RunInfo) -> None:
    assert finished_info.notes == ()
    assert Counter(trial.outcome for trial in finished_info.trials) == {
        "complete": 14, "pruned": 11, "failed": 2, "out_of_budget": 1, "running": 1, "waiting": 1,
    }  # fmt: skip
    assert [trial.number for trial in finished_info.trials] == list(range(30))
    assert finished_info.budget_device_seconds == 7200
    assert finished_info.spent_device_seconds == finished_info.ledger[-1].spent_device_seconds == 5210
    assert finished_info.fingerprint is not None
    assert finished_info.fingerprint.images == sum(count for _, count in finished_info.fingerprint.classes)
    assert finished_info.split_sizes == (("train", 83), ("validation", 15), ("held-out test", 15), ("left out", 7))
    assert "no image of ig" in finished_info.split_notes[0]
    assert finished_info.ensemble is not None
    assert [member.weight for member in finished_info.ensemble.members] == [0.5, 0.3, 0.2]
    assert finished_info.test is not None
    assert dict(finished_info.test.shift)["stain"] == 0.801
    assert finished_info.next_steps.startswith("bloodauto export-best")


def test_trials_have_what_their_folders_and_the_study_say(finished_run: RunDirectory, finished_info: RunInfo) -> None:
    trial = finished_info.trials[3]
    assert (trial.outcome, trial.reason, trial.device_seconds) == ("pruned", "rung_6", 20 + 16 * 6)
    history = json.loads((finished_run.trial(3).root / "history.json").read_text())
    assert trial.intermediate == tuple((entry["epoch"], entry["objective"]) for entry in history)
    assert trial.value == history[-1]["objective"]
    assert trial.metric("accuracy") == history[-1]["accuracy"]
    assert trial.parameters == 5_933_000
    assert {"backbone.name", "stages.1.optimizer.learning_rate"} <= {param.name for param in trial.params}
    assert finished_info.trials[9].intermediate == ()
    assert finished_info.trials[9].value is None
    assert finished_info.trials[0].origin == "initial: small and strong"


def test_without_an_ensemble_the_best_complete_trial_brings_its_predictions(own_run: RunDirectory) -> None:
    own_run.ensemble.path.unlink()
    info = read_run(own_run.root)
    best = info.best
    assert best is not None
    assert best.value == max(t.value for t in info.trials if t.outcome == "complete" and t.value is not None)
    assert info.predictions is not None
    assert info.predictions.source == f"trial {best.number}, before calibration"
    assert info.predictions.probabilities.shape == (400, 8)
    right = info.predictions.probabilities.argmax(axis=1) == info.predictions.labels
    assert right.mean() == pytest.approx(best.metric("accuracy"), abs=0.05)


def test_the_ensembles_answers_are_the_calibrated_average_of_its_members(
    finished_run: RunDirectory, finished_info: RunInfo
) -> None:
    folders = [finished_run.refit(name).root for name in REFITS] + [finished_run.trial(0).root]
    average = sum(
        weight * np.load(folder / "predictions.npz")["clean"].astype(float)
        for weight, folder in zip((0.5, 0.3, 0.2), folders, strict=True)
    )
    powers = average ** (1 / 1.31)
    found = finished_info.predictions
    assert found is not None
    assert found.source == "the ensemble, calibrated"
    np.testing.assert_allclose(found.probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("damage", ["member's answers missing", "no networks", "temperature 0"])
def test_the_best_trial_stands_in_for_an_ensemble_without_answers(own_run: RunDirectory, damage: str) -> None:
    ensemble = json.loads(own_run.ensemble.path.read_text())
    if damage == "member's answers missing":
        (own_run.refit(REFITS[0]).root / "predictions.npz").unlink()
    elif damage == "no networks":
        del ensemble["members"][1]["networks"]
    else:
        ensemble["calibration"]["temperature"] = 0
    own_run.ensemble.path.write_text(json.dumps(ensemble))
    info = read_run(own_run.root)
    assert info.predictions is not None
    assert info.best is not None
    assert info.predictions.source == f"trial {info.best.number}, before calibration"


def test_cleaning_counts_only_what_was_found(finished_info: RunInfo) -> None:
    assert finished_info.cleaning is not None
    assert finished_info.cleaning.images == 120
    expected = {("exact_duplicate", "excluded", 2), ("near_duplicate", "grouped", 2), ("blurred", "kept", 2)}
    assert set(finished_info.cleaning.counts) == expected
    assert len(finished_info.cleaning.rows) == 6


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
    else:
        path.write_bytes(
            {"empty": b"", "cut": content[: len(content) * 2 // 3], "binary": b"\xff\xfe\x00{" * 40}[damage]
        )
    info = read_run(own_run.root)
    # A table or a log that ends early, or has nothing in it, is still a table or a log.
    silent = (damage, name) in {("cut", "cleaning.csv"), ("empty", "ledger.jsonl"), ("cut", "settings.yaml")}
    assert (name in sources(info)) or silent
    assert len(info.notes) <= 45
    if name != "study.db":
        assert len(info.trials) == 30


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ensemble.json", {"members": "many"}, "members: expected a list"),
        ("ensemble.json", {"members": [{"name": "a", "weight": "heavy"}]}, "members.0.weight: expected a number"),
        ("test.json", {"accuracy": "good"}, "accuracy: expected a number"),
        ("test.json", {"confusion": [[1, 2]], "classes": ["a"]}, "confusion: expected a square"),
        ("test.json", {"confusion": [[1]], "classes": ["a", "b"]}, "expected 1 names"),
        ("fingerprint.json", [1, 2], "fingerprint: expected a mapping"),
        ("splits.json", {"parts": {}}, "parts: expected a list"),
        ("splits.json", {"parts": [{"part": 0, "images": 3}]}, "parts.0.images: expected a list"),
    ],
)
def test_values_of_the_wrong_type_are_named(own_run: RunDirectory, name: str, value: object, said: str) -> None:
    (own_run.root / name).write_text(json.dumps(value))
    notes = read_run(own_run.root).notes
    assert [note.source for note in notes] == [name]
    assert said in notes[0].text


def test_a_torn_last_line_of_the_ledger_loses_only_itself(own_run: RunDirectory) -> None:
    whole = read_run(own_run.root).ledger
    with own_run.ledger.path.open("a") as stream:
        stream.write('{"at_unix": 17, "phase": "tri')
    info = read_run(own_run.root)
    assert info.ledger == whole
    assert not info.notes


def test_broken_files_of_one_trial_leave_the_others(own_run: RunDirectory) -> None:
    (own_run.trial(0).root / "history.json").write_text("[{]")
    (own_run.trial(1).root / "result.json").write_text('{"metrics": 3}')
    info = read_run(own_run.root)
    assert sources(info) == {"trials/00000/history.json", "trials/00001/result.json"}
    assert info.trials[0].history == ()
    assert info.trials[0].value is not None
    assert len(info.trials[2].history) == 12


def test_pickled_predictions_are_refused(own_run: RunDirectory) -> None:
    best = read_run(own_run.root).best
    assert best is not None
    own_run.ensemble.path.unlink()
    path = own_run.trial(best.number).root / "predictions.npz"
    np.savez(path, labels=np.array([{"a": 1}], dtype=object), clean=np.zeros((1, 2)), allow_pickle=True)
    info = read_run(own_run.root)
    assert info.predictions is None
    assert [note.source for note in info.notes] == ["ensemble.json", f"trials/{best.number:05d}/predictions.npz"]
    assert "allow_pickle" in info.notes[1].text


def test_no_run_directory_is_an_error_with_a_hint(tmp_path: Path, finished_run: RunDirectory) -> None:
    with pytest.raises(RunError, match="nothing there"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="bloodauto search"):
        read_run(tmp_path)
    with pytest.raises(RunError, match=rf"Did you mean .*{finished_run.root.name}"):
        read_run(finished_run.root.parent)


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(dump_yaml({"data": "x.npz", "budget": "1h"}))
    info = read_run(tmp_path)
    assert info.trials == ()
    assert info.best is None
    assert info.spent_device_seconds is None
    assert {"study.db", "fingerprint.json", "ensemble.json", "test.json"} <= sources(info)


def test_passwords_never_reach_the_report(own_run: RunDirectory) -> None:
    url = "postgresql://ada:s3cret@no-such-host.invalid/studies"
    own_run.settings.write_text(dump_yaml({"storage": url, "data": "x"}))
    info = read_run(own_run.root)
    assert dict(info.settings)["storage"] == "postgresql://ada:***@no-such-host.invalid/studies"
    assert info.trials == ()
    assert "settings.yaml" in sources(info)
    assert "s3cret" not in repr(info)


def test_storage_may_be_another_sqlite_file(own_run: RunDirectory) -> None:
    url = "sqlite:///elsewhere.db"
    shutil.move(own_run.study, own_run.root / "elsewhere.db")
    with sqlite3.connect(own_run.root / "elsewhere.db") as connection:
        connection.execute("UPDATE studies SET study_name = ?", (own_run.study_name(url),))
    connection.close()
    own_run.settings.write_text(dump_yaml({"storage": url}))
    assert len(read_run(own_run.root).trials) == 30


def test_a_database_without_our_study_is_a_note(own_run: RunDirectory) -> None:
    with sqlite3.connect(own_run.study) as connection:
        connection.execute("UPDATE studies SET study_name = 'other'")
    connection.close()
    info = read_run(own_run.root)
    assert info.trials == ()
    assert "named 'bloodauto'" in info.notes[0].text
