from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import optuna
import pytest

from bloodauto.config.settings import SearchSettings, read_settings, write_settings
from bloodauto.errors import RunError
from bloodauto.monitor.annotations import Annotations
from bloodauto.monitor.dashboard import HOST, StudyCopy, serve_dashboard
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import file_digest
from bloodauto.testing.run_factory import build_run
from tests.report.browser import browser, console_errors, needs_browser

SETTINGS = SearchSettings(space="tiny", budget="1h", workers=1, gpus_per_trial=0.0)

SERVE = """
import sys
from pathlib import Path
from bloodauto.monitor.dashboard import serve_dashboard
serve_dashboard(Path(sys.argv[1]), 0, refresh_seconds=0.2, announce=lambda text: print(text, flush=True))
"""

#: A search that gives up on the database after one second of waiting, as a strict writer would.
SEARCH = """
import pathlib, sys
import optuna
optuna.logging.set_verbosity(optuna.logging.WARNING)
storage = optuna.storages.RDBStorage(f"sqlite:///{sys.argv[1]}", engine_kwargs={"connect_args": {"timeout": 1.0}})
study = optuna.load_study(study_name="bloodauto", storage=storage)
while not pathlib.Path(sys.argv[2]).exists():
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
print(len(study.get_trials()))
"""


@contextlib.contextmanager
def served(root: Path, temporary: Path) -> Iterator[str]:
    """The dashboard in a process of its own, ended by SIGTERM; yields its address."""
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(root)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert list(temporary.iterdir()) == [], "the private copy must be gone"


def get(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as response:
        return response.read()


def trials_seen(url: str) -> list[dict]:
    study = json.loads(get(f"{url}/api/studies"))["study_summaries"][0]["study_id"]
    return json.loads(get(f"{url}/api/studies/{study}"))["trials"]


def test_once_checks_the_page_and_the_study(finished_run: RunDirectory) -> None:
    before = file_digest(finished_run.study), finished_run.study.stat().st_mtime_ns
    output: list[str] = []
    check = serve_dashboard(finished_run.root, 0, once=True, announce=output.append)
    assert check is not None
    assert check.trials == 30
    assert check.script_bytes > 1_000_000, "the page's program comes with the package, not from the network"
    assert check.url in output[0]
    assert check.url.startswith(f"http://{HOST}:")
    assert (file_digest(finished_run.study), finished_run.study.stat().st_mtime_ns) == before
    assert sorted(path.name for path in finished_run.root.glob("study.db*")) == ["study.db"]


def test_new_trials_show_while_a_search_writes_and_the_search_never_waits(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", trials=8, finished=False)
    enough = tmp_path / "enough"
    with served(run.root, tmp_path / "private") as url:
        assert len(trials_seen(url)) == 8
        command = [sys.executable, "-c", SEARCH, str(run.study), str(enough)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 40
            while (seen := len(trials_seen(url))) < 15 and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            enough.touch()
            output, _ = writer.communicate(timeout=30)
        assert writer.returncode == 0, "the search must never be kept from writing"
        assert seen >= 15
        deadline = time.monotonic() + 20
        while len(trials_seen(url)) < int(output) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(trials_seen(url)) == int(output), "the last trials show, too"


def test_the_dashboard_cannot_write(finished_run: RunDirectory, tmp_path: Path) -> None:
    before = file_digest(finished_run.study)
    with served(finished_run.root, tmp_path / "private") as url:
        for method, path in (("DELETE", "/api/studies/1"), ("PUT", "/api/studies/1/note"), ("POST", "/api/studies")):
            request = urllib.request.Request(url + path, method=method, data=b"{}")
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)
            assert refused.value.code == 403
            assert "read-only" in json.loads(refused.value.read())["reason"]
            refused.value.close()
        assert len(trials_seen(url)) == 30
    assert file_digest(finished_run.study) == before


def test_a_copy_is_renewed_only_when_due_and_changed(own_run: RunDirectory, tmp_path: Path) -> None:
    copy = StudyCopy(own_run.study, tmp_path / "copy.db", max_age_seconds=0.0)
    first = copy.target.stat().st_mtime_ns
    copy.refresh()
    assert copy.target.stat().st_mtime_ns == first
    optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{own_run.study}").enqueue_trial({})
    copy.refresh()
    assert copy.target.stat().st_mtime_ns != first
    assert len(optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{copy.target}").trials) == 31
    patient = StudyCopy(own_run.study, tmp_path / "patient.db", max_age_seconds=60.0)
    optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{own_run.study}").enqueue_trial({})
    patient.refresh()
    assert len(optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{patient.target}").trials) == 31


def test_a_study_that_vanishes_leaves_the_last_copy(own_run: RunDirectory, tmp_path: Path) -> None:
    copy = StudyCopy(own_run.study, tmp_path / "copy.db", max_age_seconds=0.0)
    own_run.study.unlink()
    copy.refresh()
    assert len(optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{copy.target}").trials) == 30


def test_a_taken_port_is_named_with_a_free_one(finished_run: RunDirectory) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=rf"Port {port} is taken.*--port \d+") as refused:
            serve_dashboard(finished_run.root, port, once=True)
    offered = int(str(refused.value).split()[-1])
    assert serve_dashboard(finished_run.root, offered, once=True) is not None


def test_ports_that_are_none(finished_run: RunDirectory) -> None:
    with pytest.raises(RunError, match="0 to 65535"):
        serve_dashboard(finished_run.root, 70_000, once=True)


def test_runs_without_a_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run directory"):
        serve_dashboard(tmp_path, 0, once=True)
    write_settings(RunDirectory(tmp_path), SETTINGS)
    with pytest.raises(RunError, match="Has the search begun"):
        serve_dashboard(tmp_path, 0, once=True)


def test_an_unreachable_server_is_an_error_without_its_password(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"storage": "postgresql://ada:s3cret@127.0.0.1:1/db"})
    write_settings(RunDirectory(tmp_path), settings)
    with pytest.raises(RunError, match="expected an Optuna study") as refused:
        serve_dashboard(tmp_path, 0, once=True)
    assert "s3cret" not in str(refused.value)


@pytest.mark.browser
@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("kind", ["a whole study", "only a failure", "only an open trial", "no trial"])
def test_pages_are_not_blank(tmp_path: Path, finished_run: RunDirectory, kind: str) -> None:
    root = finished_run.root
    if kind != "a whole study":
        root = tmp_path / "run"
        root.mkdir()
        study = optuna.create_study(
            storage=f"sqlite:///{root / 'study.db'}", study_name="bloodauto", direction="maximize"
        )
        if kind != "no trial":
            trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        if kind == "only a failure":
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    expected_numbers = 30 if kind == "a whole study" else 0 if kind == "no trial" else 1
    with served(root, tmp_path / "private") as url, browser(1280) as driver:
        assert len(trials_seen(url)) == expected_numbers
        for page, text_on_page in (
            ("", "bloodauto"),
            ("/studies/1", "bloodauto"),
            ("/studies/1/trials", "Trial"),
            *((("/studies/1/trials?numbers=0", "learning_curve.png"),) if kind == "a whole study" else ()),
            ("/studies/1/note", "bloodauto"),
        ):
            driver.get(f"{url}/dashboard{page}")
            deadline = time.monotonic() + 20
            while text_on_page not in (text := driver.execute_script("return document.body.innerText")):
                assert time.monotonic() < deadline, f"{page}: blank, or without {text_on_page!r}: {text[:200]!r}"
                time.sleep(0.1)
        if kind == "a whole study":
            driver.get(f"{url}/dashboard/studies/1")
            deadline = time.monotonic() + 20
            while not driver.execute_script("return document.querySelectorAll('.js-plotly-plot .trace').length"):
                assert time.monotonic() < deadline, "no plot was drawn"
                time.sleep(0.1)
        assert console_errors(driver) == []


def test_serving_from_another_thread_needs_no_signals(finished_run: RunDirectory) -> None:
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(serve_dashboard(finished_run.root, 0, once=True)))
    thread.start()
    thread.join(timeout=30)
    assert len(result) == 1


def test_trials_have_notes_and_files_and_the_study_its_plan(finished_run: RunDirectory, tmp_path: Path) -> None:
    before = file_digest(finished_run.study)
    with served(finished_run.root, tmp_path / "private") as url:
        detail = json.loads(get(f"{url}/api/studies/1"))
        assert detail["objective_names"] == ["shift"]
        assert "| budget | 2gpu-h" in detail["note"]["body"]
        trials = detail["trials"]
        complete = next(trial for trial in trials if trial["state"] == "Complete")
        note = complete["note"]["body"]
        assert "| outcome | complete: " in note
        assert "| cost | 212 device-seconds, 12 epochs |" in note
        files = {artifact["filename"]: artifact["artifact_id"] for artifact in complete["artifacts"]}
        assert set(files) == {"learning_curve.png", "confusion.png", "history.csv"}
        path = f"{url}/artifacts/1/{complete['trial_id']}"
        for name in ("learning_curve.png", "confusion.png"):
            picture = cv2.imdecode(np.frombuffer(get(f"{path}/{files[name]}"), np.uint8), cv2.IMREAD_COLOR)
            assert min(picture.shape[:2]) > 300
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
        rows = list(csv.DictReader(io.StringIO(get(f"{path}/{files['history.csv']}").decode())))
        assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 13)]
        failed = next(trial for trial in trials if trial["state"] == "Fail")
        assert "failed: its loss or objective was no number" in failed["note"]["body"]
        assert not [artifact for artifact in failed["artifacts"] if artifact["filename"] == "confusion.png"]
        with pytest.raises(urllib.error.HTTPError):
            get(f"{path}/{999:08x}-00")
    assert file_digest(finished_run.study) == before


def test_a_cap_on_latency_is_a_constraint(own_run: RunDirectory, tmp_path: Path) -> None:
    settings = read_settings(own_run)
    write_settings(own_run, settings.model_copy(update={"max_latency_ms": 1.0}))
    with served(own_run.root, tmp_path / "private") as url:
        trials = trials_seen(url)
        detail = json.loads(get(f"{url}/api/studies/1"))
    constraints = [trial["constraints"] for trial in trials if trial["state"] == "Complete"]
    assert constraints
    assert all(constraint == [0.25] for constraint in constraints)
    assert not [trial for trial in trials if trial["state"] == "Fail" and trial["constraints"]]
    assert "cap on latency (constraint) | 1 ms per image" in detail["note"]["body"]


def test_a_note_shows_a_recipe_whatever_stands_in_it(own_run: RunDirectory) -> None:
    recipe = "name: a\n```\n| b |\n"
    own_run.trial(0).recipe.write_text(recipe)
    trials = optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{own_run.study}").trials
    attributes = Annotations(own_run, read_settings(own_run)).study_attributes(trials)
    note = attributes[f"dashboard:{trials[0]._trial_id}:note_str:0"]
    assert f"````yaml\n{recipe}````" in note
    own_run.trial(1).history.path.write_text("{")
    attributes = Annotations(own_run, read_settings(own_run)).study_attributes(trials)
    assert "could not be read" in attributes[f"dashboard:{trials[1]._trial_id}:note_str:0"]
