"""How the command line ends: with one clear line, or with a traceback where the user asks for one."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings

import pytest

from bloodauto.cli import main as command_line
from bloodauto.errors import UserError


def ended(
    error: Exception, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and standard error of a command that raises."""

    def app() -> None:
        raise error

    monkeypatch.setattr(command_line, "app", app)
    monkeypatch.setattr("sys.argv", ["bloodauto", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, capsys.readouterr().err


def test_a_users_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = ended(UserError("--budget: missing"), ["search"], monkeypatch, capsys)
    assert (code, err) == (2, "error: --budget: missing\n")


def test_an_unexpected_error_is_one_line_that_says_where_the_traceback_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = ended(ValueError("two\nlines"), ["spaces"], monkeypatch, capsys)
    assert (code, err) == (1, "error: unexpected ValueError: two lines (give --debug for the full traceback)\n")
    error = ValueError("two")
    error.add_note("full traceback in run/log.txt")
    code, err = ended(error, ["search"], monkeypatch, capsys)
    assert (code, err) == (1, "error: unexpected ValueError: two (full traceback in run/log.txt)\n")


@pytest.mark.parametrize("error", [UserError("--budget: missing"), ValueError("a fault of ours")])
def test_debug_shows_the_traceback_of_any_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = ended(error, ["search", "--debug"], monkeypatch, capsys)
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_a_full_disk_is_explained_also_where_a_library_wraps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = OSError(28, "No space left on device", "run/model.keras")
    code, err = ended(wrapped, ["search"], monkeypatch, capsys)
    assert code == 2
    assert "run/model.keras: expected room to write" in err


def test_python_dash_m_is_the_command_line_and_help_is_quick() -> None:
    """The best of five: other work on the machine only ever slows it down."""
    command = [sys.executable, "-m", "bloodauto", "--help"]

    def seconds() -> float:
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "search" in done.stdout
        return time.perf_counter() - started

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(13, "Permission denied", "cells/c"),
            "cells/c: expected a path that can be used, got: Permission denied",
        ),
        (
            OSError(36, "File name too long", "x" * 9),
            "xxxxxxxxx: expected a path that can be used, got: File name too long",
        ),
        (IsADirectoryError(21, "Is a directory", ".part", None, "out"), "out: expected a path that can be used"),
        (MemoryError("8 GiB"), "expected enough free memory, got: 8 GiB"),
        (UserError("a\x1b[31m"), r"a\x1b[31m"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    code, err = ended(error, ["search"], monkeypatch, capsys)
    assert code == 2
    assert err.startswith(f"error: {message}")


def test_a_warning_is_a_line_without_the_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        warnings.simplefilter("always")
        warnings.warn("1 of 2 files excluded", stacklevel=1)
        warnings.warn("for developers", DeprecationWarning, stacklevel=1)

    monkeypatch.setattr(command_line, "app", app)
    before = warnings.showwarning
    command_line.main()
    assert capsys.readouterr().err == "warning: 1 of 2 files excluded\n"
    assert warnings.showwarning is before
