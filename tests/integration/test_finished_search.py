"""What a finished search leaves, and the commands that read it."""

from __future__ import annotations

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from bloodauto.data.load import load_dataset
from bloodauto.run.artifacts import WorkerProcess
from tests.command_line import all_files, bloodauto_here, charges, study_trials
from tests.search_fixtures import FinishedSearch, Inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: The files of an export in Keras' format.
EXPORTED_FILES = {"README.md", "labels.json", "model.keras", "ood.npz", "stated_accuracy.json"}


def test_the_last_line_is_json_with_the_result(finished_search: FinishedSearch) -> None:
    summary = finished_search.summary
    assert set(summary) == {
        "run", "finished", "budget_device_seconds", "spent_device_seconds", "trials", "best", "ensemble", "export",
        "front",
    }  # fmt: skip
    assert summary["front"] == []
    assert summary["finished"] is True
    assert summary["run"] == str(finished_search.run.root)
    assert summary["trials"]["complete"] >= 1
    assert summary["trials"]["running"] == 0
    for scores in (summary["best"], summary["ensemble"]):
        assert {"accuracy", "shifted_accuracy", "balanced_accuracy", "shift", "ece"} <= set(scores)
    assert summary["ensemble"]["shift"] >= summary["best"]["shift"]


def test_the_progress_is_json_lines_on_standard_error(finished_search: FinishedSearch) -> None:
    assert len(finished_search.command.out.splitlines()) == 1
    # A warning is a line of text.
    events = [json.loads(line) for line in finished_search.command.err.splitlines() if line.startswith("{")]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "planned"
    assert {"plan", "started", "ended", "progress", "phase"} <= set(kinds)
    ended = [event["name"] for event in events if event["event"] == "ended"]
    assert len(ended) == len(set(ended)) >= finished_search.summary["trials"]["complete"]
    assert next(event["name"] for event in events if event["event"] == "phase") == "choosing the ensemble"


def test_no_more_than_the_budget_is_spent(finished_search: FinishedSearch) -> None:
    lines = charges(finished_search.run)
    totals = [line.spent_device_seconds for line in lines]
    assert totals == sorted(totals)
    assert totals[-1] == pytest.approx(sum(line.device_seconds for line in lines), abs=0.01)
    assert finished_search.summary["spent_device_seconds"] == pytest.approx(totals[-1], abs=0.01)
    assert totals[-1] <= finished_search.summary["budget_device_seconds"] == finished_search.budget_device_seconds


def test_the_study_records_how_every_trial_ended(finished_search: FinishedSearch) -> None:
    trials = study_trials(finished_search.run)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == finished_search.summary["trials"]["complete"]
    for trial in complete:
        history = finished_search.run.trial(trial.number).history.read().epochs
        assert trial.intermediate_values == {report.epoch: report.objective for report in history}
        assert trial.value == pytest.approx(finished_search.run.trial(trial.number).result.read().objective)
        assert trial.user_attrs["outcome"] == "complete"
        assert trial.user_attrs["device_seconds"] > 0
    for trial in trials:
        if trial.state == TrialState.FAIL:
            assert trial.user_attrs["outcome"] == "out_of_budget", trial.user_attrs.get("message")


def test_two_workers_train_at_the_same_time(finished_search: FinishedSearch) -> None:
    intervals = [
        (line.at_unix - line.device_seconds, line.at_unix)
        for line in charges(finished_search.run)
        if line.phase.startswith(("trial", "refit"))
    ]
    overlap_seconds = max(min(a[1], b[1]) - max(a[0], b[0]) for a, b in itertools.combinations(intervals, 2))
    assert overlap_seconds > 1.0, "each worker reserves one core, so a second charged is a second reserved"
    starts = [line.at_unix for line in charges(finished_search.run) if line.phase == "start-up"]
    assert starts[1] - starts[0] < 3.0, "no worker waits for another one's start"
    pids = {WorkerProcess.read(path).pid for path in finished_search.run.root.glob("*/*/worker.json")}
    assert len(pids) == 2, "workers are kept from one training to the next"


def test_a_finished_run_is_complete(finished_search: FinishedSearch) -> None:
    root, export = finished_search.run.root, finished_search.run.export.root
    exported = {path.name for path in export.iterdir()}
    assert EXPORTED_FILES <= exported <= {*EXPORTED_FILES, "submission.zip"}
    # On a slow machine the budget may not suffice for the second file; then the search says so.
    printed = " ".join((finished_search.command.out + finished_search.command.err).split())
    assert ("submission.zip" in exported) != ("the competition's file" in printed)
    described = ("settings.yaml", "space.yaml", "fingerprint.json", "cleaning.csv", "splits.json")
    for name in (*described, "data_pictures.json", "test.json", "ood.json", "log.txt"):
        assert (root / name).stat().st_size > 0
    assert not list(root.rglob("checkpoint.npz")), "checkpoints of ended trainings fill disks"
    steps = finished_search.run.next_steps.read_text().splitlines()
    assert [step.split()[:2] for step in steps] == [
        ["bloodauto", command] for command in ("report", "dashboard", "export-best", "predict")
    ]
    assert all(str(root) in step for step in steps)


def test_a_resume_of_a_finished_run_changes_nothing(finished_search: FinishedSearch) -> None:
    before = all_files(finished_search.run.root)
    command = bloodauto_here("search", "--resume", "--run", finished_search.run.root, "--json")
    assert command.code == 0, command.err[-3000:]
    assert json.loads(command.out.splitlines()[-1]) == finished_search.summary
    assert all_files(finished_search.run.root) == before


def test_a_new_search_never_takes_over_a_run(finished_search: FinishedSearch, inputs: Inputs) -> None:
    before = all_files(finished_search.run.root)
    command = bloodauto_here(
        "search", "--run", finished_search.run.root, "--data", inputs.dataset, "--budget", "1cpu-min"
    )
    assert command.code == 2
    assert "--resume" in command.err
    assert all_files(finished_search.run.root) == before


def test_a_finished_run_is_reported(finished_search: FinishedSearch, tmp_path: Path) -> None:
    command = bloodauto_here("report", "--run", finished_search.run.root, "--output", tmp_path / "report.html")
    assert command.code == 0, command.err
    page = (tmp_path / "report.html").read_text()
    assert "What is missing" not in page
    assert "the ensemble, calibrated" in page
    pictured = finished_search.run.result_pictures.read_if_exists()
    # On a slow machine the budget may not suffice for them; then the report says so.
    assert ("Pictures of predictions are missing" in page) == (pictured is None)
    if pictured is not None:
        assert pictured.predictions.source == "held-out test images"
        assert {family.group for family in pictured.shift} >= {"optics", "stain", "combined"}
        assert page.count("saliency map of") > 0
    command = bloodauto_here("dashboard", "--run", finished_search.run.root, "--port", 0, "--once")
    assert command.code == 0, command.err


ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bloodauto":
            raise ImportError("the exported model must not need " + name)

sys.meta_path.insert(0, Refuse())
import keras
import numpy as np

model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


def test_the_exported_model_predicts_without_bloodauto_as_predict_does(
    finished_search: FinishedSearch, inputs: Inputs, tmp_path: Path
) -> None:
    dataset = load_dataset(inputs.dataset)
    np.save(tmp_path / "images.npy", dataset.images[:24])
    model = finished_search.run.export.root / "model.keras"
    command = bloodauto_here("predict", model, tmp_path / "images.npy", "--output", tmp_path / "predictions.csv")
    assert command.code == 0, command.err
    subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(model), str(tmp_path / "images.npy"), str(tmp_path / "alone.npy")],
        check=True,
        capture_output=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    probabilities = np.array([[float(row[f"probability_{name}"]) for name in dataset.class_names] for row in rows])
    np.testing.assert_allclose(probabilities, np.load(tmp_path / "alone.npy"), atol=2e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    assert [row["label"] for row in rows] == [dataset.class_names[index] for index in probabilities.argmax(axis=1)]


def test_export_best_writes_the_same_model_again(finished_search: FinishedSearch, tmp_path: Path) -> None:
    command = bloodauto_here(
        "export-best", "--run", finished_search.run.root, "--output", tmp_path / "best", "--format", "keras"
    )
    assert command.code == 0, command.err
    assert {path.name for path in (tmp_path / "best").iterdir()} == EXPORTED_FILES


def test_export_best_with_tta_reports_its_cost_and_does_not_change_the_run(
    finished_search: FinishedSearch, tmp_path: Path
) -> None:
    before = all_files(finished_search.run.root)
    output = tmp_path / "tta"
    command = bloodauto_here(
        "export-best", "--run", finished_search.run.root, "--output", output, "--format", "keras", "--tta"
    )
    assert command.code == 0, command.err
    networks = len(finished_search.run.ensemble.read().networks)
    # The recipes of this space name no TTA transforms: identity, both flips and the half turn are the standard.
    assert f"{4 * networks} passes an image instead of {networks}" in command.err
    card = (output / "README.md").read_text()
    assert "identity 0.25, flip_left_right 0.25, flip_up_down 0.25, turn_180 0.25" in card
    assert "held-out test set, without test-time augmentation" in card
    assert all_files(finished_search.run.root) == before
