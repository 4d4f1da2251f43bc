"""Ending the processes of workers, on this machine or another node, without asking them first.

A worker has nothing to lose: whatever it keeps is written atomically, epoch by epoch.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bloodauto.run.artifacts import WorkerProcess
from bloodauto.run.training_directory import TrainingDirectory

#: Of processes that Ray has handed out: not of those that wait, nor of its agents, without which Ray itself would end.
_TITLE = re.compile(r"ray::(?!IDLE|\w*Agent\b)")
_KILL_TIMEOUT_SECONDS = 5.0


def record_process(folder: Path) -> None:
    """Notes in a training's folder which process trains it; called by the worker."""
    node = ray.get_runtime_context().get_node_id()
    TrainingDirectory(folder).process.write(WorkerProcess(pid=os.getpid(), node_id=node))


def kill_recorded(folder: Path) -> Any | None:
    """Kills the process that was noted in a training's folder; returns what ``ray.wait`` waits for, None without a note."""
    worker = TrainingDirectory(folder).process.read_if_exists()
    if worker is None:
        return None

    @ray.remote(num_cpus=0, max_retries=0)
    def end_process(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    strategy = NodeAffinitySchedulingStrategy(node_id=worker.node_id, soft=False)
    return end_process.options(scheduling_strategy=strategy).remote(worker.pid)


def _local_workers() -> list[psutil.Process]:
    """Ray writes into a process's title what it does, the class of its actor or the function of its task."""
    workers = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, IndexError):
            if _TITLE.match(process.cmdline()[0]):
                workers.append(process)
    return workers


def kill_local_workers() -> None:
    """Kills the workers that this process's own Ray has started, and returns when they are gone."""
    workers = _local_workers()
    for worker in workers:
        with contextlib.suppress(psutil.Error):
            worker.kill()
    psutil.wait_procs(workers, timeout=_KILL_TIMEOUT_SECONDS)


def kill_remote_workers(folders: Iterable[Path]) -> None:
    """Kills the workers that were noted in these folders, on whichever nodes they run."""
    killed = [one for one in (kill_recorded(folder) for folder in folders) if one is not None]
    if killed:
        ray.wait(killed, num_returns=len(killed), timeout=_KILL_TIMEOUT_SECONDS)
