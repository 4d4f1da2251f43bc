"""Searches that are interrupted, as a user runs them: Ray, SQLite, files, signals and kills are the real ones."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from optuna.trial import TrialState

from bloodauto.run.directory import RunDirectory
from tests.command_line import (
    Started,
    all_files,
    bloodauto,
    bloodauto_here,
    charges,
    epochs_done,
    kept_files,
    study_trials,
)
from tests.search_fixtures import Inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_search_survives_a_lost_worker_an_interrupt_and_a_kill(
    inputs: Inputs, tmp_path: Path, slowness: float
) -> None:
    """One search with one worker: its worker is killed, then Ctrl-C, a resume, ``kill -9`` of everything, and a resume."""
    run, budget = RunDirectory(tmp_path / "run"), round(140 * slowness)
    options = [
        "search", "--run", run.root, "--data", inputs.dataset, "--space", inputs.long_space, "--budget", f"{budget}cpu-s",
        "--workers", 1, "--pruner", "none", "--refit-fraction", 0.2,
    ]  # fmt: skip
    first, second = run.trial(0), run.trial(1)
    with Started(*options) as search:
        search.wait_until(lambda: epochs_done(first) >= 2, "the first trial's second epoch")
        pid = first.process.read().pid
        os.kill(pid, signal.SIGKILL)
        _check_that_another_search_is_refused(run)
        search.wait_until(lambda: first.result.exists, "the end of the trial whose worker was killed")
        assert first.process.read().pid != pid
        # How many epochs it gets depends on the time that its budget affords.
        numbers = [report.epoch for report in first.history.read().epochs]
        assert numbers == list(range(1, len(numbers) + 1)), "no epoch is repeated"
        search.wait_until(lambda: epochs_done(second) >= 1, "the second trial's first epoch")
        search.signal(signal.SIGINT)
        interrupted = search.wait()
    assert interrupted.code == 130
    assert f"--resume --run {run.root}" in interrupted.out
    assert "trial 0 complete: " in interrupted.out, "a log has a line for each training that ended"
    assert "Traceback" not in interrupted.err
    assert "--resume" in run.next_steps.read_text()
    _check_that_other_settings_are_refused(run)
    completed, parameters = study_trials(run)[0], study_trials(run)[1].params
    states = [trial.state for trial in study_trials(run)[:2]]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING], "an interrupted trial stays open for a resume"
    files, epochs = kept_files(first.root), epochs_done(second)

    with Started(*options, "--resume") as resumed:
        resumed.wait_until(lambda: epochs_done(second) > epochs, "the next epoch of the second trial")
        resumed.process.kill()
        resumed.wait()
    ledger, epochs = run.ledger.path.read_text(), epochs_done(second)

    finished = bloodauto("search", "--resume", "--run", run.root, "--json", timeout_seconds=90 + budget)
    assert finished.code == 0, finished.err[-3000:]
    summary = json.loads(finished.out.splitlines()[-1])
    assert summary["finished"] is True
    trials = study_trials(run)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert not [trial for trial in trials if not trial.state.is_finished()]
    assert (trials[0].value, trials[0].datetime_complete) == (completed.value, completed.datetime_complete)
    assert kept_files(first.root) == files
    assert trials[1].params == parameters
    assert epochs_done(second) >= epochs
    assert run.ledger.path.read_text().startswith(ledger), "the ledger is continued"
    assert "interrupted" in [charge.phase for charge in charges(run)], "what ran at the kill was charged, too"
    assert charges(run)[-1].spent_device_seconds <= budget


def _check_that_another_search_is_refused(run: RunDirectory) -> None:
    refused = bloodauto_here("search", "--resume", "--run", run.root)
    assert refused.code == 2
    assert "another search is running" in refused.err


def _check_that_other_settings_are_refused(run: RunDirectory) -> None:
    before = all_files(run.root)
    refused = bloodauto_here("search", "--resume", "--run", run.root, "--seed", 7, "--pruner", "median")
    assert refused.code == 2
    assert "seed: the run has 0, you gave 7" in refused.err
    assert "pruner: the run has 'none', you gave 'median'" in refused.err
    assert all_files(run.root) == before
