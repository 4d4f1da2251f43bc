"""A search seen from another terminal: what is read of it, what the commands print, and that it is not disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from bloodauto.cli.screen import leaderboard_table, sparkline, status_screen
from bloodauto.errors import RunError
from bloodauto.monitor.decisions import TrialRecord, trial_decisions
from bloodauto.monitor.leaderboard import read_leaderboard
from bloodauto.monitor.reader import StatusReader
from bloodauto.report.formatting import training_name
from bloodauto.run.artifacts import BudgetPlanFile, BudgetPlanRow, LedgerCharge, LedgerHeartbeat
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_attributes import TrialAttributes
from bloodauto.testing.run_factory import build_run
from tests.command_line import COMMAND, all_files, bloodauto_here

REASON = "so few that there is time for about forty, drawn among all networks of the space"


@pytest.fixture(scope="module")
def open_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A search of which a process has reserved two devices and is in its trials."""
    run = build_run(tmp_path_factory.mktemp("runs") / "open", trials=8, finished=False)
    rows = tuple(
        BudgetPlanRow(what=what, count=count, seconds_each=seconds, reason=REASON)
        for what, count, seconds in (("quick", 1, 60.0), ("large", 0, None), ("suggestions", 12, 40.0))
    )
    plan = BudgetPlanFile(
        budget_device_seconds=7200.0, search_ends_device_seconds=5000.0, refits_end_device_seconds=6800.0, rows=rows
    )
    run.budget_plan.write(plan)
    spent = run.ledger.read()[-1].spent_device_seconds
    run.ledger_heartbeat.write(LedgerHeartbeat(spent_device_seconds=spent + 100, devices=2.0))
    return run


def rendered(renderable: object, width: int, height: int = 40) -> str:
    console = Console(width=width, height=height, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_running_search_is_told_from_one_that_was_stopped(open_run: RunDirectory) -> None:
    heartbeat = open_run.ledger_heartbeat.path
    os.utime(heartbeat, (time.time() - 4, time.time() - 4))
    status = StatusReader(open_run.root).read()
    assert (status.state, status.phase) == ("running", "search")
    charged = open_run.ledger.read()[-1].spent_device_seconds
    assert status.spent_device_seconds == pytest.approx(charged + 100 + 2 * 4, abs=3)
    assert status.seconds_left == pytest.approx((7200 - charged - 108) / 2, abs=3)
    (running,) = status.running
    assert (running.name, running.epoch, len(running.curve)) == ("trial 6", 2, 2)
    os.utime(heartbeat, (time.time() - 400, time.time() - 400))
    try:
        stopped = StatusReader(open_run.root).read()
    finally:
        os.utime(heartbeat)
    assert (stopped.state, stopped.seconds_left, stopped.running) == ("stopped", None, ())
    assert dict(stopped.trials)["open"] == 1


def test_finalization_is_told_from_a_search_that_was_resumed(open_run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(open_run.root, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    spent, now = run.ledger.read()[-1].spent_device_seconds + 1, time.time()
    run.ledger.append(
        LedgerCharge(at_unix=now, phase="worker shutdown", device_seconds=1.0, spent_device_seconds=spent)
    )
    run.ledger_heartbeat.write(LedgerHeartbeat(spent_device_seconds=spent, devices=0.5))
    finalizing = StatusReader(run.root).read()
    assert (finalizing.phase, finalizing.running) == ("ensemble and export", ())
    heartbeat = run.trial(6).heartbeat
    heartbeat.touch()
    os.utime(heartbeat, (now + 5, now + 5))
    resumed = StatusReader(run.root).read()
    assert (resumed.phase, [training.name for training in resumed.running]) == ("search", ["trial 6"])
    run.ledger_heartbeat.write(LedgerHeartbeat(spent_device_seconds=spent, devices=1.0))
    os.utime(heartbeat, (now - 5, now - 5))
    assert StatusReader(run.root).read().phase == "search"


def test_reading_again_sees_what_is_new_and_writes_nothing(open_run: RunDirectory) -> None:
    reader, before = StatusReader(open_run.root), all_files(open_run.root)
    first = reader.read()
    assert all_files(open_run.root) == before
    spent = open_run.ledger.read()[-1].spent_device_seconds + 5
    charge = LedgerCharge(at_unix=2e9, phase="refit 00001-fold0-seed3", device_seconds=5, spent_device_seconds=spent)
    open_run.ledger.append(charge)
    assert "trial 1, refit seed 3" not in [decision.name for decision in reader.read().decisions], (
        "it may be interrupted"
    )
    ended = open_run.refit("00001-fold0-seed3")
    ended.root.mkdir(parents=True, exist_ok=True)
    ended.failure.path.touch()
    second = reader.read()
    assert dict(second.spending)["refits"] == dict(first.spending)["refits"] + 5
    assert second.decisions[-1].text == "trial 1, refit seed 3 ended after 5 device-seconds"


def test_the_best_and_the_decisions_follow_from_the_trials(open_run: RunDirectory) -> None:
    status = StatusReader(open_run.root).read()
    assert status.best is not None
    complete = [row for row in read_leaderboard(open_run.root).rows if row.kind == "trial"]
    assert complete[0].name == f"trial {status.best.trial}"
    assert complete[0].score == pytest.approx(status.best.objective)
    texts = [decision.text for decision in status.decisions if decision.kind == "ended"]
    assert any("failed: its loss or objective was no number" in text for text in texts)
    assert any("in the lower part after epoch" in text for text in texts)
    assert sum("the best so far" in text for text in texts) >= 1


@pytest.mark.parametrize(
    ("attributes", "objective", "expected"),
    [
        (
            TrialAttributes(origin="initial: a\x1bb", started=True, backbone="own_cnn"),
            None,
            r"trial 3 starts: initial configuration a\x1bb (own_cnn)",
        ),
        (
            TrialAttributes(origin="promoted from trial 2", started=True, outcome="complete", device_seconds=9.0),
            0.5,
            "trial 3 complete: 0.5000, the best so far (, 9 s)",
        ),
        (
            TrialAttributes(outcome="failed", reason="io", message="disk\nmore", device_seconds=1.0),
            None,
            "(disk) (, 1 s)",
        ),
        (
            TrialAttributes(outcome="out_of_budget", reason="hard_deadline", device_seconds=3.0),
            None,
            "its time was over",
        ),
    ],
)
def test_a_decision_says_what_and_why(attributes: TrialAttributes, objective: float | None, expected: str) -> None:
    state = "running" if attributes.outcome is None else attributes.outcome
    ended_at = None if attributes.outcome is None else 2.0
    record = TrialRecord(3, state, objective, (), attributes, started_at=1.0, ended_at=ended_at)
    assert expected in "\n".join(decision.text for decision in trial_decisions([record]))


def test_a_trial_that_was_never_started_is_no_decision() -> None:
    attributes = TrialAttributes(outcome="out_of_budget", device_seconds=0.0)
    assert not list(trial_decisions([TrialRecord(3, "out_of_budget", None, (), attributes, 1.0, 2.0)]))


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("height", [16, 24, 50])
def test_the_screen_fits_the_terminal(open_run: RunDirectory, width: int, height: int) -> None:
    status = StatusReader(open_run.root).read()
    lines = rendered(status_screen(status, width=width, height=height), width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 24), "\n".join(lines)
    text = "\n".join(lines)
    for part in ("trial 6", "ends in", "best", "suggestions", "│"):
        assert part in text, part


@pytest.mark.parametrize("width", [80, 140])
def test_the_leaderboard_shows_every_figure_whole(finished_run: RunDirectory, width: int) -> None:
    board = read_leaderboard(finished_run.root)
    text = rendered(leaderboard_table(board, width=width, max_rows=None), width)
    for row in board.rows:
        assert row.score is not None
        assert f"{row.score:.4f}" in text
    assert f"{board.rows[0].parameters / 1e6:.2f} M" in text
    assert "accuracy" in text
    assert "not listed: 2 failed" in text


def test_the_leaderboard_has_the_ensemble_first_and_its_members_weights(finished_run: RunDirectory) -> None:
    board = read_leaderboard(finished_run.root)
    assert board.rows[0].kind == "ensemble"
    assert board.rows[0].weight == pytest.approx(1.0)
    assert sum(row.weight for row in board.rows[1:]) == pytest.approx(1.0)
    scores = [row.score for row in board.rows[1:]]
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    refits = [row for row in board.rows if row.kind == "refit"]
    assert {row.device_seconds for row in refits} == {520.0, 610.0}
    assert all(row.latency_ms == 1.25 for row in refits)


def test_the_leaderboard_does_not_list_a_damaged_result(finished_run: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory(shutil.copytree(finished_run.root, tmp_path / "run"))
    refit = next(iter(run.refits()))
    refit.result.path.write_text("{")
    board = read_leaderboard(run.root)
    assert any(f"{refit.result.path} is damaged" in note for note in board.notes)
    names = {row.name for row in board.rows}
    assert training_name(refit.root.name) not in names
    assert "ensemble" in names


def test_the_commands_print_json_for_programs(open_run: RunDirectory, finished_run: RunDirectory) -> None:
    done = bloodauto_here("status", open_run.root, "--json")
    assert (done.code, json.loads(done.out)["state"]) == (0, "running")
    done = bloodauto_here("leaderboard", finished_run.root, "--json")
    rows = json.loads(done.out)["rows"]
    assert {"score", "shift", "device_seconds", "latency_ms", "parameters"} <= set(rows[0])


def test_watching_ends_with_the_search_and_says_what_is_next(finished_run: RunDirectory) -> None:
    done = bloodauto_here("status", finished_run.root, "--watch")
    assert done.code == 0
    assert finished_run.next_steps.read_text() in done.out


def test_in_a_terminal_the_screen_is_drawn_until_the_search_ends(open_run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(open_run.root, tmp_path / "run")
    heartbeat = RunDirectory(tmp_path / "run").ledger_heartbeat.path
    os.utime(heartbeat)
    controller, terminal = pty.openpty()
    command = [*COMMAND, "status", str(tmp_path / "run"), "--watch", "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    watching = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(controller, 65536):
            shown += part
            if b"ends in" in shown:
                heartbeat.unlink(missing_ok=True)
    os.close(controller)
    assert watching.wait(timeout=30) == 0
    assert b"\x1b[" in shown
    assert "search --resume" in shown.decode()


def test_a_folder_without_a_run_is_one_clear_error(tmp_path: Path) -> None:
    for command in ("status", "leaderboard"):
        done = bloodauto_here(command, tmp_path)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
    with pytest.raises(RunError, match="expected a run directory"):
        StatusReader(tmp_path)


def test_a_sparkline_keeps_the_last_value_of_a_long_curve() -> None:
    curve = [0.0] * 99 + [1.0]
    assert sparkline(curve, width=10) == "▁" * 9 + "█"
    assert sparkline([0.5, 0.5]) == "▄▄"
    assert sparkline([]) == ""
