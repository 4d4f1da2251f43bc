"""Searches that are killed at random and resumed, and what must hold of them afterwards.

    python benchmarks/chaos.py --minutes 30 --seed 1
    python benchmarks/chaos.py --rounds 1 --faults gcs --keep /tmp/chaos     # one kind of fault, the run is kept

Each round is one small search on drawn cells, with one worker. One to three sessions of it each meet a fault at a random moment
after the search has begun to spend; then it is resumed until it ends by itself:

    driver, group       kill -9 of the search's own process, or of its whole process group
    worker              kill -9 of a process that trains; the session goes on
    raylet, gcs         kill -9 of a process of Ray
    interrupt, twice    Ctrl-C to the process group, once or two times within half a second
    terminate           SIGTERM to the search's own process
    disk                its disk is full for some seconds: a tmpfs of its own, where the user may mount one

After every session ``bloodauto.testing.invariants`` reads the run. Beside that: exit codes are 0, 2, 130 or those of the
signals; no traceback is printed; ten seconds after the search's process has gone, none of the processes that it started is
alive and its temporary folder is empty; a session is charged no more than the wall time that it ran; the export predicts,
without bloodauto, what ``bloodauto.load_model`` predicts.

A seed gives the same kinds of faults at the same moments; what a search has done by then depends on the machine. The exit code
is 1 when anything was violated. ``--keep`` keeps the runs for a look.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.run.directory import RunDirectory
from bloodauto.testing.invariants import RunState, violations

SPACE = """
input: {size_px: 32}
backbone: {name: own_cnn, weights: none, width: 8, blocks: 3}
head: {dropout: {float: [0.0, 0.3]}}
augmentation: {orientation: true}
batch_size: 32
stages:
  - epochs: 6
    unfreeze: all
    optimizer: {name: adamw, learning_rate: {float: [2.0e-3, 1.0e-2], log: true}}
    schedule: {name: constant}
"""
FAULTS = ("driver", "group", "worker", "raylet", "gcs", "interrupt", "twice", "terminate", "disk")
#: The processes of a session carry this variable with a value of its own.
_MARK = "BLOODAUTO_CHAOS"
_GONE_SECONDS = 10.0
_DISK_FULL_SECONDS = 4.0
_CODES = {0, 2, 130, -signal.SIGKILL, -signal.SIGTERM}
#: Up to one heartbeat of the ledger is charged on top of what was noted before a kill.
_HEARTBEAT_SLACK_SECONDS = 3.0
_COMPARE = """
import sys, numpy as np, keras
images = np.load(sys.argv[2])["images"][:16]
np.save(sys.argv[3], np.asarray(keras.models.load_model(sys.argv[1])(images)))
"""


@dataclass
class Session:
    """One run of the command.

    Attributes:
        fault: What was done to it; empty: nothing.
        after_seconds: How long after the budget began to run.
        is_hit: Whether the fault came while its budget ran and what was to be killed was alive.
        code: Its exit code.
        problems: What was violated.
    """

    fault: str
    after_seconds: float
    is_hit: bool = False
    code: int = 0
    problems: list[str] = field(default_factory=list)


class Round:
    """One search, its faults and its resumes.

    Args:
        folder: For everything of the round.
        data: The images.
        budget_device_seconds: Of the search, which has one worker of one core.
    """

    def __init__(self, folder: Path, data: Path, budget_device_seconds: float) -> None:
        self._folder, self._data, self._budget = folder, data, budget_device_seconds
        self._temporary, self._disk = folder / "tmp", folder / "disk"
        for path in (self._temporary, self._disk):
            path.mkdir(parents=True)
        self.run = RunDirectory(self._disk / "run")
        (folder / "space.yaml").write_text(SPACE)
        self.has_own_disk = _mount(self._disk)

    def close(self) -> None:
        """Unmounts the round's disk."""
        if self.has_own_disk:
            subprocess.run(["umount", "-l", str(self._disk)], check=True)

    def session(self, fault: str, after_seconds: float, rng: random.Random) -> Session:
        """Starts or resumes the search, does something to it, waits for its end and checks everything.

        Args:
            fault: One of ``FAULTS``; empty: nothing is done.
            after_seconds: When, counted from the moment at which the budget begins to run.
            rng: Draws which of several processes is killed.
        """
        session, before, mark = Session(fault, after_seconds), RunState.read(self.run), uuid.uuid4().hex
        started = time.monotonic()
        with (self._folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                self._command(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, _MARK: mark, "TMPDIR": str(self._temporary)},
            )
            try:
                if fault and self._wait_for_spending(process, before):
                    _sleep_while_running(process, after_seconds)
                    session.is_hit = process.poll() is None and self._inflict(fault, process, mark, rng)
                session.code = process.wait(timeout=600)
            except subprocess.TimeoutExpired:
                session.problems.append("it did not end within ten minutes")
                os.killpg(process.pid, signal.SIGKILL)
                session.code = process.wait()
        seconds = time.monotonic() - started
        session.problems += self._check(session, before, seconds)
        session.problems += self._left_behind(mark)
        return session

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "bloodauto", "search", "--run", str(self.run.root)]
        if self.run.settings.is_file():
            return [*command, "--resume"]
        return [
            *command, "--data", str(self._data), "--space", str(self._folder / "space.yaml"), "--workers", "1",
            "--budget", f"{self._budget:g}cpu-s", "--pruner", "none", "--warm-start", "none", "--refit-fraction", "0.3",
        ]  # fmt: skip

    def _wait_for_spending(self, process: subprocess.Popen[bytes], before: RunState) -> bool:
        """Waits until the session charges its budget; returns False when it ends before."""
        while process.poll() is None:
            with contextlib.suppress(Exception):
                if (
                    self.run.ledger_heartbeat.exists
                    and RunState.read(self.run).spent_device_seconds > before.spent_device_seconds
                ):
                    return True
            time.sleep(0.2)
        return False

    def _inflict(self, fault: str, process: subprocess.Popen[bytes], mark: str, rng: random.Random) -> bool:
        if fault == "disk":
            with _filled(self._disk):
                _sleep_while_running(process, _DISK_FULL_SECONDS)
        elif fault in ("driver", "terminate"):
            process.send_signal(signal.SIGKILL if fault == "driver" else signal.SIGTERM)
        elif fault in ("group", "interrupt", "twice"):
            os.killpg(process.pid, signal.SIGKILL if fault == "group" else signal.SIGINT)
            if fault == "twice":
                _sleep_while_running(process, 0.5)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
        else:
            titles = {"worker": "ray::Worker", "raylet": "raylet/raylet", "gcs": "gcs_server"}
            matches = [child for child in _marked(mark) if titles[fault] in _title(child)]
            if not matches:
                return False
            rng.choice(matches).kill()
        return True

    def _check(self, session: Session, before: RunState, seconds: float) -> list[str]:
        finished, text = session.code == 0, (self._folder / "output.txt").read_text(errors="replace")
        problems = violations(self.run, before, budget_device_seconds=self._budget, finished=finished)
        charged = RunState.read(self.run).spent_device_seconds - before.spent_device_seconds
        if charged > seconds + _HEARTBEAT_SLACK_SECONDS:
            problems.append(f"{charged:.1f} s were charged in a session of {seconds:.1f} s")
        if session.code not in _CODES:
            problems.append(f"exit code {session.code}")
        if "Traceback (most recent call last)" in text:
            problems.append("a traceback was printed")
        if "exported to None" in text:
            problems.append("exported to None")
        if session.code == 2 and not session.fault:
            problems.append("exit code 2 without a fault: " + text.strip().splitlines()[-1])
        if finished:
            problems += self._compare_predictions()
        return problems

    def _compare_predictions(self) -> list[str]:
        import numpy as np

        output = self._folder / "plain.npy"
        command = [sys.executable, "-c", _COMPARE, str(self.run.export.keras_model), str(self._data), str(output)]
        plain = subprocess.run(command, capture_output=True, text=True, check=False)
        if plain.returncode != 0:
            return [f"the export cannot be loaded: {plain.stderr.strip().splitlines()[-1]}"]
        import bloodauto

        images = np.load(self._data, allow_pickle=False)["images"][:16]
        expected = bloodauto.load_model(self.run.export.root).predict(images).probabilities
        difference = float(np.abs(np.load(output) - expected).max())
        return [f"the export predicts otherwise, by {difference:.2g}"] if difference > 1e-4 else []

    def _left_behind(self, mark: str) -> list[str]:
        until = time.monotonic() + _GONE_SECONDS
        while (alive := _marked(mark)) and time.monotonic() < until:
            time.sleep(0.2)
        problems = [f"{len(alive)} processes live ten seconds later: {', '.join(map(_title, alive))}"] if alive else []
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        left = [path.name for path in self._temporary.iterdir()]
        if left:
            problems.append(f"left in the temporary folder: {', '.join(left)}")
            subprocess.run(["rm", "-rf", *(str(self._temporary / name) for name in left)], check=False)
        return problems


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:100]
    except psutil.Error:
        return "?"


def _marked(mark: str) -> list[psutil.Process]:
    """The processes that a session has started and that are alive."""
    matches = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                matches.append(process)
    return matches


def _sleep_while_running(process: subprocess.Popen[bytes], seconds: float) -> None:
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _filled(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


def play(
    folder: Path,
    data: Path,
    rng: random.Random,
    faults: Sequence[str],
    *,
    max_faults: int,
    budget_device_seconds: float,
) -> list[Session]:
    """One search: sessions with faults, then one that is left alone.

    Args:
        folder: For everything of it.
        data: The images.
        rng: Draws the faults and their moments.
        faults: Kinds to draw from.
        max_faults: How many sessions meet one, at most.
        budget_device_seconds: Of the search.
    """
    search = Round(folder, data, budget_device_seconds)
    sessions: list[Session] = []
    try:
        kinds = [kind for kind in faults if kind != "disk" or search.has_own_disk]
        for _ in range(rng.randint(1, max_faults)):
            sessions.append(search.session(rng.choice(kinds), rng.uniform(0.0, 0.5 * budget_device_seconds), rng))
            if sessions[-1].code == 0:
                return sessions
        sessions.append(search.session("", 0.0, rng))
        if sessions[-1].code not in (0, 2):
            sessions[-1].problems.append(f"the last resume ended with {sessions[-1].code}")
        return sessions
    finally:
        search.close()


def main() -> None:
    """Plays rounds and prints a line for each session."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="no round begins after so long")
    parser.add_argument("--rounds", type=int, help="how many rounds at most")
    parser.add_argument("--sessions", type=int, default=3, help="how many sessions of a search meet a fault, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=90.0, help="device-seconds of each search")
    parser.add_argument("--faults", default=",".join(FAULTS), help="kinds to draw from, with commas")
    parser.add_argument("--keep", type=Path, help="a folder for the runs; otherwise they are deleted")
    parser.add_argument("--json", action="store_true", help="print one object at the end")
    arguments = parser.parse_args()
    faults, until = arguments.faults.split(","), time.monotonic() + 60 * arguments.minutes
    played: list[list[Session]] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = Path(temporary) if arguments.keep is None else arguments.keep
        folder.mkdir(parents=True, exist_ok=True)
        data = Path(temporary) / "cells.npz"
        write_dataset(synthesize(400, site="lab_a", seed=3, image_size_px=32), data)
        while time.monotonic() < until and (arguments.rounds is None or len(played) < arguments.rounds):
            number = len(played)
            rng = random.Random(f"{arguments.seed} {number}")
            played.append(
                play(
                    folder / f"round-{number}",
                    data,
                    rng,
                    faults,
                    max_faults=arguments.sessions,
                    budget_device_seconds=arguments.budget,
                )
            )
            for session in played[-1]:
                what = f"{session.fault} after {session.after_seconds:.1f} s" if session.fault else "left alone"
                if session.fault and not session.is_hit:
                    what += ", too late"
                print(
                    f"round {number}: {what}, exit code {session.code}: {'; '.join(session.problems) or 'all well'}",
                    flush=True,
                )
    sessions = [session for search in played for session in search]
    bad = [session for session in sessions if session.problems]
    print(f"{len(played)} searches, {len(sessions)} sessions, {len(bad)} with violations")
    if arguments.json:
        print(json.dumps({"searches": len(played), "sessions": len(sessions), "violated": len(bad)}))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
