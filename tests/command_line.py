"""Runs the command line as a user does, and reads what a run leaves on disk."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import optuna

from bloodauto.cli.main import main
from bloodauto.run.artifacts import LedgerCharge
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import file_digest
from bloodauto.run.training_directory import TrainingDirectory

COMMAND = [sys.executable, "-m", "bloodauto"]
#: What a trial leaves for good; its checkpoint and the weights of those not in the ensemble are deleted at the end.
KEPT_FILES = ("recipe.yaml", "history.json", "predictions.npz", "result.json")


@dataclass(frozen=True)
class Completed:
    """A command that has ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def bloodauto(*arguments: object, timeout_seconds: float = 400) -> Completed:
    """Runs a command in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_seconds, check=False
    )
    return Completed(done.returncode, done.stdout, done.stderr)


def bloodauto_here(*arguments: object) -> Completed:
    """Runs a command in this process, which has TensorFlow loaded already: for commands that do not train."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["bloodauto", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit_:
            code = 0 if exit_.code is None else int(exit_.code)
    return Completed(code, out.getvalue(), err.getvalue())


class Started:
    """A command in a process group of its own, as a shell would start it; the group is killed at the end of the block."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait(timeout=30)

    def signal(self, number: int) -> None:
        """Sends a signal to the whole group, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, number)

    def wait_until(self, happened: Callable[[], bool], event: str, *, timeout_seconds: float = 200) -> None:
        """Waits for an event while the command runs."""
        deadline = time.monotonic() + timeout_seconds
        while not happened():
            assert self.process.poll() is None, f"ended before {event}: {self.wait().err[-3000:]}"
            assert time.monotonic() < deadline, f"waited in vain for {event}"
            time.sleep(0.05)

    def wait(self, *, timeout_seconds: float = 400) -> Completed:
        """Waits for the end of the command."""
        out, err = self.process.communicate(timeout=timeout_seconds)
        return Completed(self.process.returncode, out, err)


def study_trials(run: RunDirectory) -> list[optuna.trial.FrozenTrial]:
    """The trials of a run's study, by number."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{run.study}")
    try:
        return optuna.load_study(study_name="bloodauto", storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def charges(run: RunDirectory) -> tuple[LedgerCharge, ...]:
    """The charges of a run's ledger."""
    return run.ledger.read()


def kept_files(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of the files that a finished training leaves for good."""
    return {name: (file_digest(folder / name), (folder / name).stat().st_mtime_ns) for name in KEPT_FILES}


def all_files(root: Path) -> dict[str, str]:
    """Digests of all files below a folder."""
    return {str(path): file_digest(path) for path in sorted(root.rglob("*")) if path.is_file()}


def epochs_done(training: TrainingDirectory) -> int:
    """How many epochs a training has ended so far."""
    history = training.history.read_if_exists()
    return 0 if history is None else len(history.epochs)
