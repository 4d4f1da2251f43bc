"""How busy a search keeps the cores it has reserved, from its first second to its last.

    python benchmarks/busy.py                                                       # three CPU-minutes on drawn cells
    python benchmarks/busy.py --data ../shared/data/pbc96 --weights-dir ../shared/weights --space small --budget 30cpu-min

Runs ``bloodauto search`` as a process of its own and looks at the CPU time of it and of all it starts every two seconds. The
time is cut into tenths; printed is for each how many cores were at work on average, in trainings and in all, and how many looks
found less than half of the cores at work. A worker that sleeps where it should train shows here, and nowhere in its own
timers. Other work on the machine disturbs: what is taken by others cannot be used.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 2.0
_PARTS = 10
#: How Ray calls the processes that a search's trainings run in.
_WORKER = "ray::"


@dataclass(frozen=True)
class CpuSample:
    """One look: seconds since the start, and the cores at work since the last one, in trainings and in all."""

    at_seconds: float
    training: float
    everything: float


def monitor(command: list[str]) -> list[CpuSample]:
    """Runs a command to its end.

    Raises:
        SystemExit: it failed; what it wrote was printed.
    """
    started = looked = time.monotonic()
    spent: dict[int, float] = {}
    samples = []
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(_SAMPLE_SECONDS)
            now = time.monotonic()
            training = everything = 0.0
            for one in _process_tree(process.pid):
                try:
                    times, name = one.cpu_times(), " ".join(one.cmdline()[:1])
                except psutil.Error:
                    continue
                total = times.user + times.system
                # What a process did before it was first seen is its own start.
                used = total - spent.get(one.pid, 0.0)
                spent[one.pid] = total
                everything += used
                training += used if name.startswith(_WORKER) else 0.0
            samples.append(CpuSample(now - started, training / (now - looked), everything / (now - looked)))
            looked = now
    if process.returncode:
        raise SystemExit(process.returncode)
    return samples


def _process_tree(pid: int) -> list[psutil.Process]:
    """A process and all it started; Ray's workers are children of its own daemons, which are."""
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.Error:
        return []


def table(samples: list[CpuSample], cores: int) -> str:
    """One line for each tenth of the time, one for the whole."""
    length = samples[-1].at_seconds
    lines = ["| part of the time | in trainings | in all | looks with less than half at work |", "|---|---|---|---|"]
    parts = [
        (f"{100 * part // _PARTS}-{100 * (part + 1) // _PARTS} %", part / _PARTS, (part + 1) / _PARTS)
        for part in range(_PARTS)
    ]
    for name, begins, ends in [*parts, ("all of it", 0.0, 1.0)]:
        some = [one for one in samples if begins * length < one.at_seconds <= ends * length]
        if not some:
            continue
        training = sum(one.training for one in some) / len(some)
        everything = sum(one.everything for one in some) / len(some)
        idle = sum(one.everything < cores / 2 for one in some) / len(some)
        lines.append(f"| {name} | {training:.2f} | {everything:.2f} | {idle:.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--weights-dir")
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--budget", default="3cpu-min")
    parser.add_argument("--run", type=Path, help="kept; none: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        command = [
            sys.executable,
            "-c",
            "from bloodauto.cli.main import main; main()",
            "search",
            "--data",
            arguments.data,
        ]
        command += [
            "--space",
            arguments.space,
            "--budget",
            arguments.budget,
            "--run",
            str(arguments.run or Path(folder) / "run"),
        ]
        if arguments.weights_dir is not None:
            command += ["--weights-dir", arguments.weights_dir]
        samples = monitor(command)
    cores = os.cpu_count() or 1
    print(f"\n{cores} cores\n\n{table(samples, cores)}")


if __name__ == "__main__":
    main()
