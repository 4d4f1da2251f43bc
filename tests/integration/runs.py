"""Starting the command line as a user does, and looking at what a run leaves on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna

from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import file_digest
from bloodauto.run.training_directory import TrainingDirectory

COMMAND = [sys.executable, "-c", "from bloodauto.cli.main import main; main()"]
#: What a trial leaves for good; its checkpoint and the weights of those not chosen are cleared away at the end.
KEPT = ("recipe.yaml", "history.json", "predictions.npz", "result.json")

SPACE = """
input: {{size_px: 48}}
backbone: {{name: own_cnn, weights: none}}
head: {{dropout: {{float: [0.0, 0.3]}}}}
augmentation: {{orientation: true}}
batch_size: 32
stages:
  - epochs: {epochs}
    unfreeze: all
    optimizer:
      choice:
        - {{name: adamw, learning_rate: {{float: [2.0e-3, 1.0e-2], log: true}}}}
        - {{name: nadam, learning_rate: {{float: [2.0e-3, 1.0e-2], log: true}}}}
    schedule: {{name: constant}}
"""


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


def bloodauto(*arguments: object, timeout_seconds: float = 400) -> Answer:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_seconds, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


class Started:
    """A command in a process group of its own, as a shell would start it; whatever is left of it ends with the block."""

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
        """To the whole group, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, number)

    def until(self, happened: Callable[[], bool], what: str, *, timeout_seconds: float = 150) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not happened():
            assert self.process.poll() is None, f"ended before {what}: {self.end().err[-3000:]}"
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.05)

    def end(self, *, timeout_seconds: float = 300) -> Answer:
        out, err = self.process.communicate(timeout=timeout_seconds)
        return Answer(self.process.returncode, out, err)


def study_trials(run: RunDirectory) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{run.study}")
    try:
        return optuna.load_study(study_name="bloodauto", storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def charges(run: RunDirectory) -> list[dict]:
    return [json.loads(line) for line in run.ledger.read_text().splitlines()]


def kept_files(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of what a finished training leaves for good."""
    return {name: (file_digest(folder / name), (folder / name).stat().st_mtime_ns) for name in KEPT}


def all_files(root: Path) -> dict[str, str]:
    return {str(path): file_digest(path) for path in sorted(root.rglob("*")) if path.is_file()}


def epochs_done(folder: Path) -> int:
    history = TrainingDirectory(folder).history.read_if_exists()
    return 0 if history is None else len(history.epochs)
