"""How busy does a search keep the cores it has reserved?

    python benchmarks/core_utilization.py                                   # three CPU-minutes on synthetic cells
    python benchmarks/core_utilization.py --data ../shared/data/pbc96 --weights-dir ../shared/weights \
        --space small --budget 30cpu-min

Runs ``bloodauto search`` as a process of its own and samples the CPU time of all its processes every two seconds. Printed for
each tenth of its duration: how many cores were at work on average, in trainings and in total, and the fraction of samples with
less than half of the cores at work. Other work on the machine takes cores that the search cannot use: measure on a quiet one.
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
_NUM_PARTS = 10
#: How the command line of a Ray worker begins.
_WORKER_PREFIX = "ray::"


@dataclass(frozen=True)
class CpuSample:
    """Cores at work since the sample before.

    Attributes:
        at_seconds: Since the start of the command.
        training_cores: In processes that train.
        total_cores: In all processes.
    """

    at_seconds: float
    training_cores: float
    total_cores: float


def monitor(command: list[str]) -> list[CpuSample]:
    """Runs a command to its end.

    Args:
        command: Program and arguments.

    Returns:
        The samples in their order.

    Raises:
        SystemExit: The command failed; it has printed why.
    """
    start = sampled_at = time.monotonic()
    known_seconds: dict[int, float] = {}
    samples = []
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(_SAMPLE_SECONDS)
            now = time.monotonic()
            training, total = _used_seconds(process.pid, known_seconds)
            samples.append(CpuSample(now - start, training / (now - sampled_at), total / (now - sampled_at)))
            sampled_at = now
    if process.returncode:
        raise SystemExit(process.returncode)
    return samples


def _used_seconds(pid: int, known_seconds: dict[int, float]) -> tuple[float, float]:
    """CPU seconds since the last call, in trainings and in total, of a process and all it started."""
    training = total = 0.0
    for process in _process_tree(pid):
        try:
            times, name = process.cpu_times(), " ".join(process.cmdline()[:1])
        except psutil.Error:
            continue
        # What a process used before its first sample belongs to its start.
        used = times.user + times.system - known_seconds.get(process.pid, 0.0)
        known_seconds[process.pid] = times.user + times.system
        total += used
        training += used if name.startswith(_WORKER_PREFIX) else 0.0
    return training, total


def _process_tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def as_markdown(samples: list[CpuSample], cores: int) -> str:
    """One row for each tenth of the time, one for all of it."""
    duration = samples[-1].at_seconds
    rows = ["| part of the time | in trainings | in total | samples below half |", "|---|---|---|---|"]
    bounds = [(part / _NUM_PARTS, (part + 1) / _NUM_PARTS) for part in range(_NUM_PARTS)]
    for start, end in [*bounds, (0.0, 1.0)]:
        part = [sample for sample in samples if start * duration < sample.at_seconds <= end * duration]
        if part:
            training = sum(sample.training_cores for sample in part) / len(part)
            total = sum(sample.total_cores for sample in part) / len(part)
            below = sum(sample.total_cores < cores / 2 for sample in part) / len(part)
            rows.append(f"| {start:.0%}-{end:.0%} | {training:.2f} | {total:.2f} | {below:.0%} |")
    return "\n".join(rows)


def main() -> None:
    """Runs a search and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--weights-dir")
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--budget", default="3cpu-min")
    parser.add_argument("--run", type=Path, help="run directory to keep; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        run = Path(folder) / "run" if arguments.run is None else arguments.run
        command = [sys.executable, "-c", "from bloodauto.cli.main import main; main()", "search"]
        command += [
            "--data",
            arguments.data,
            "--space",
            arguments.space,
            "--budget",
            arguments.budget,
            "--run",
            str(run),
        ]
        if arguments.weights_dir is not None:
            command += ["--weights-dir", arguments.weights_dir]
        samples = monitor(command)
    cores = os.cpu_count() or 1
    print(f"\n{cores} cores\n\n{as_markdown(samples, cores)}")


if __name__ == "__main__":
    main()
