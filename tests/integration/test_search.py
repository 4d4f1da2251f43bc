"""Whole searches, as a user runs them: Ray, SQLite, files, signals and kills are the real ones."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from bloodauto.data.load import load_dataset
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json

from .conftest import Material
from .runs import Answer, Started, all_files, bloodauto, charges, epochs_done, kept_files, study_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Searched:
    """A search with two workers that came to its end."""

    run: RunDirectory
    answer: Answer

    @property
    def summary(self) -> dict:
        return json.loads(self.answer.out.splitlines()[-1])


@pytest.fixture(scope="module")
def searched(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    run = tmp_path_factory.mktemp("searched") / "run"
    answer = bloodauto(
        "search", "--run", run, "--data", material.dataset, "--space", material.short, "--budget", "150cpu-s",
        "--workers", 2, "--refit-fraction", 0.3, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err[-3000:]
    return Searched(RunDirectory(run), answer)


def test_the_last_line_is_json_and_tells_what_came_out(searched: Searched) -> None:
    summary = searched.summary
    assert set(summary) == {
        "run", "finished", "budget_device_seconds", "spent_device_seconds", "trials", "best", "ensemble", "export",
        "front",
    }  # fmt: skip
    assert summary["front"] == []
    assert summary["finished"] is True
    assert summary["run"] == str(searched.run.root)
    assert summary["trials"]["complete"] >= 1
    assert summary["trials"]["running"] == 0
    for scores in (summary["best"], summary["ensemble"]):
        assert {"accuracy", "shifted_accuracy", "balanced_accuracy", "shift", "ece"} <= set(scores)
    assert summary["ensemble"]["shift"] >= summary["best"]["shift"]


def test_no_more_than_the_budget_is_spent(searched: Searched) -> None:
    lines = charges(searched.run)
    totals = [line["spent_device_seconds"] for line in lines]
    assert totals == sorted(totals)
    assert totals[-1] == pytest.approx(sum(line["device_seconds"] for line in lines), abs=0.01)
    assert searched.summary["spent_device_seconds"] == pytest.approx(totals[-1], abs=0.01)
    assert totals[-1] <= searched.summary["budget_device_seconds"] == 150


def test_the_study_knows_how_every_trial_ended(searched: Searched) -> None:
    trials = study_trials(searched.run)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == searched.summary["trials"]["complete"]
    for trial in complete:
        history = searched.run.trial(trial.number).history.read().epochs
        assert trial.intermediate_values == {report.epoch: report.objective for report in history}
        assert trial.value == pytest.approx(
            read_json(searched.run.trial(trial.number).root / "result.json")["objective"]
        )
        assert trial.user_attrs["outcome"] == "complete"
        assert trial.user_attrs["device_seconds"] > 0
    for trial in trials:
        if trial.state == TrialState.FAIL:
            assert trial.user_attrs["outcome"] == "out_of_budget", trial.user_attrs.get("message")


def test_two_workers_train_at_the_same_time(searched: Searched) -> None:
    spans = [
        (line["at_unix"] - line["device_seconds"], line["at_unix"])
        for line in charges(searched.run)
        if line["phase"].startswith(("trial", "refit"))
    ]
    shared = max(min(a[1], b[1]) - max(a[0], b[0]) for a, b in itertools.combinations(spans, 2))
    assert shared > 1.0, "each worker reserves one core, so a second charged is a second reserved"
    starts = [line["at_unix"] for line in charges(searched.run) if line["phase"] == "start-up"]
    assert starts[1] - starts[0] < 3.0, "no worker waits for another one's start"
    pids = {read_json(path)["pid"] for path in searched.run.root.glob("*/*/worker.json")}
    assert len(pids) == 2, "workers are kept from one training to the next"


def test_what_a_run_leaves_is_whole(searched: Searched) -> None:
    root, export = searched.run.root, searched.run.export.root
    assert sorted(path.name for path in export.iterdir()) == [
        "README.md",
        "ood.npz",
        "labels.json",
        "model.keras",
        "submission.zip",
    ]
    described = ("settings.yaml", "space.yaml", "fingerprint.json", "cleaning.csv", "splits.json")
    for name in (*described, "test.json", "ood.json"):
        assert (root / name).stat().st_size > 0
    assert not list(root.rglob("checkpoint.npz")), "states of trainings that are over fill disks"
    steps = searched.run.next_steps.read_text().splitlines()
    assert [step.split()[:2] for step in steps] == [
        ["bloodauto", command] for command in ("report", "dashboard", "export-best", "predict")
    ]
    assert all(str(root) in step for step in steps)


def test_a_resume_of_a_finished_run_changes_nothing(searched: Searched) -> None:
    before = all_files(searched.run.root)
    answer = bloodauto("search", "--resume", "--run", searched.run.root, "--json")
    assert answer.code == 0, answer.err[-3000:]
    assert json.loads(answer.out.splitlines()[-1]) == searched.summary
    assert all_files(searched.run.root) == before


def test_a_new_search_never_takes_over_a_run(searched: Searched, material: Material) -> None:
    before = all_files(searched.run.root)
    answer = bloodauto("search", "--run", searched.run.root, "--data", material.dataset, "--budget", "1cpu-min")
    assert answer.code == 2
    assert "--resume" in answer.err
    assert all_files(searched.run.root) == before


def test_a_finished_run_is_reported(searched: Searched, tmp_path: Path) -> None:
    answer = bloodauto("report", "--run", searched.run.root, "--output", tmp_path / "report.html")
    assert answer.code == 0, answer.err
    page = (tmp_path / "report.html").read_text()
    assert "What is missing" not in page
    assert "the ensemble, calibrated" in page
    answer = bloodauto("dashboard", "--run", searched.run.root, "--port", 0, "--once")
    assert answer.code == 0, answer.err


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


def test_the_exported_model_answers_alone_as_predict_does(
    searched: Searched, material: Material, tmp_path: Path
) -> None:
    dataset = load_dataset(material.dataset)
    np.save(tmp_path / "images.npy", dataset.images[:24])
    model = searched.run.export.root / "model.keras"
    answer = bloodauto("predict", model, tmp_path / "images.npy", "--output", tmp_path / "answers.csv")
    assert answer.code == 0, answer.err
    subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(model), str(tmp_path / "images.npy"), str(tmp_path / "alone.npy")],
        check=True,
        capture_output=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    with (tmp_path / "answers.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    answers = np.array([[float(row[f"probability_{name}"]) for name in dataset.class_names] for row in rows])
    np.testing.assert_allclose(answers, np.load(tmp_path / "alone.npy"), atol=2e-6)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-4)
    assert [row["label"] for row in rows] == [dataset.class_names[index] for index in answers.argmax(axis=1)]


def test_export_best_writes_the_same_model_again(searched: Searched, tmp_path: Path) -> None:
    answer = bloodauto("export-best", "--run", searched.run.root, "--output", tmp_path / "best", "--format", "keras")
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        "README.md",
        "ood.npz",
        "labels.json",
        "model.keras",
    ]


def test_export_best_with_views_says_what_they_cost_and_leaves_the_run_alone(
    searched: Searched, tmp_path: Path
) -> None:
    before = all_files(searched.run.root)
    output = tmp_path / "views"
    answer = bloodauto("export-best", "--run", searched.run.root, "--output", output, "--format", "keras", "--tta")
    assert answer.code == 0, answer.err
    networks = sum(len(member["networks"]) for member in read_json(searched.run.ensemble.path)["members"])
    # The recipes of this space name no views: identity, both flips and the half turn are the standard.
    assert f"{4 * networks} passes an image instead of {networks}" in answer.err
    card = (output / "README.md").read_text()
    assert "identity 0.25, flip_left_right 0.25, flip_up_down 0.25, turn_180 0.25" in card
    assert "held-out test images, without views" in card
    assert all_files(searched.run.root) == before


def search_arguments(run: Path, material: Material, *, budget: str) -> list[object]:
    return [
        "search", "--run", run, "--data", material.dataset, "--space", material.long, "--budget", budget,
        "--workers", 1, "--pruner", "none", "--refit-fraction", 0.2,
    ]  # fmt: skip


def test_a_killed_search_goes_on_and_repeats_nothing(material: Material, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with Started(*search_arguments(run.root, material, budget="130cpu-s")) as search:
        search.until(lambda: epochs_done(run.trial(1).root) >= 2, "the second trial's second epoch")
        search.process.kill()
        search.end()
    interrupted, ledger = study_trials(run), run.ledger.read_text()
    assert [trial.state for trial in interrupted[:2]] == [TrialState.COMPLETE, TrialState.RUNNING]
    first, before = kept_files(run.trial(0).root), epochs_done(run.trial(1).root)

    answer = bloodauto("search", "--resume", "--run", run.root, "--json")
    assert answer.code == 0, answer.err[-3000:]
    trials = study_trials(run)
    assert trials[0].value == interrupted[0].value
    assert trials[0].datetime_complete == interrupted[0].datetime_complete
    assert kept_files(run.trial(0).root) == first
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert not [trial for trial in trials if not trial.state.is_finished()]
    assert trials[1].params == interrupted[1].params
    assert epochs_done(run.trial(1).root) >= before
    assert run.ledger.read_text().startswith(ledger), "the ledger is continued"
    phases = [line["phase"] for line in charges(run)]
    assert "interrupted" in phases, "what ran when the kill came was paid for, too"
    assert charges(run)[-1]["spent_device_seconds"] <= 130
    assert json.loads(answer.out.splitlines()[-1])["finished"] is True


def test_a_lost_worker_an_interrupt_and_a_resume(material: Material, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with Started(*search_arguments(run.root, material, budget="150cpu-s")) as search:
        search.until(lambda: epochs_done(run.trial(0).root) >= 2, "the first trial's second epoch")
        pid = read_json(run.trial(0).root / "worker.json")["pid"]
        os.kill(pid, signal.SIGKILL)

        second = bloodauto("search", "--resume", "--run", run.root)
        assert second.code == 2
        assert "another search is running" in second.err

        search.until(
            lambda: (run.trial(0).root / "result.json").is_file(), "the end of the trial whose worker was killed"
        )
        assert read_json(run.trial(0).root / "worker.json")["pid"] != pid
        assert [report.epoch for report in run.trial(0).history.read().epochs] == list(range(1, 13))
        search.until(lambda: epochs_done(run.trial(1).root) >= 1, "the second trial's first epoch")
        search.signal(signal.SIGINT)
        answer = search.end()
    assert answer.code == 130
    assert f"--resume --run {run.root}" in answer.out
    assert "Traceback" not in answer.err
    assert "--resume" in run.next_steps.read_text()
    states = [trial.state for trial in study_trials(run)]
    assert states[0] == TrialState.COMPLETE
    assert states[1] == TrialState.RUNNING, "an interrupted trial stays open, to be gone on with"

    before = all_files(run.root)
    refused = bloodauto("search", "--resume", "--run", run.root, "--seed", 7, "--pruner", "median")
    assert refused.code == 2
    assert "seed: the run has 0, you gave 7" in refused.err
    assert "pruner: the run has 'none', you gave 'median'" in refused.err
    assert all_files(run.root) == before

    done = bloodauto("search", *search_arguments(run.root, material, budget="150cpu-s")[1:], "--resume", "--json")
    assert done.code == 0, done.err[-3000:]
    summary = json.loads(done.out.splitlines()[-1])
    assert summary["finished"] is True
    assert summary["spent_device_seconds"] <= 150
    assert not [trial for trial in study_trials(run) if not trial.state.is_finished()]
