"""The log in a run's directory."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.workflows.run_log import run_log

LOGGER = logging.getLogger("bloodauto.tuning.scheduler")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_messages_of_the_package_are_appended_and_nothing_stays_attached(run: RunDirectory) -> None:
    package = logging.getLogger("bloodauto")
    before = (package.level, list(package.handlers))
    for text in ("first", "second"):
        with run_log(run):
            LOGGER.info("the %s", text)
            logging.getLogger("elsewhere").error("not ours")
    LOGGER.error("after the block")
    lines = run.log.read_text(encoding="utf-8").splitlines()
    assert [line.partition(" INFO ")[2] for line in lines] == [
        "bloodauto.tuning.scheduler: the first",
        "bloodauto.tuning.scheduler: the second",
    ]
    assert (package.level, package.handlers) == before


def test_a_silent_workflow_leaves_no_file(run: RunDirectory) -> None:
    with run_log(run):
        pass
    assert not run.log.exists()


def test_an_unexpected_error_leaves_its_traceback_and_says_where(run: RunDirectory) -> None:
    with pytest.raises(ZeroDivisionError) as raised, run_log(run):
        _ = 1 / 0
    assert raised.value.__notes__ == [f"full traceback in {run.log}"]
    text = run.log.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in text
    assert "ZeroDivisionError" in text


def test_an_error_raised_on_purpose_is_one_line(run: RunDirectory) -> None:
    with pytest.raises(RunError), run_log(run):
        raise RunError("no training was completed")
    text = run.log.read_text(encoding="utf-8")
    assert "ERROR bloodauto: no training was completed" in text
    assert "Traceback" not in text


def test_a_log_that_cannot_be_written_does_not_end_the_workflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "absent")
    with run_log(run):
        LOGGER.info("lost")
    assert capsys.readouterr().err == ""
