"""Kills the processes of workers, on this machine or another node, without asking them first.

A worker loses little: whatever it keeps is written atomically, after every epoch and at times within it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bloodauto.run.artifacts.training import WorkerProcess
from bloodauto.run.training_directory import TrainingDirectory

#: Titles of processes that Ray has handed out: not of those that wait, nor of its agents, without which Ray itself would end.
_WORKER_TITLE = re.compile(r"ray::(?!IDLE|\w*Agent\b)")
_KILL_TIMEOUT_SECONDS = 5.0


def record_process(directory: TrainingDirectory) -> None:
    """Records that this process trains in a directory.

    Args:
        directory: Of the training.
    """
    node = ray.get_runtime_context().get_node_id()
    directory.process.write(WorkerProcess(pid=os.getpid(), node_id=node))


def kill_recorded(directory: TrainingDirectory) -> ray.ObjectRef[None] | None:
    """Begins to kill the process that trains in a directory.

    Args:
        directory: Of the training.

    Returns:
        What ``ray.wait`` waits for; None when no process is recorded.
    """
    worker = directory.process.read_if_exists()
    if worker is None:
        return None

    def kill_process(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    strategy = NodeAffinitySchedulingStrategy(node_id=worker.node_id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(kill_process)
    reference: ray.ObjectRef[None] = task.remote(worker.pid)
    return reference


def _local_workers() -> list[psutil.Process]:
    """Ray writes into the title of a process what it does: the class of its actor, or the function of its task."""
    workers = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, IndexError):
            if _WORKER_TITLE.match(process.cmdline()[0]):
                workers.append(process)
    return workers


def has_local_workers() -> bool:
    """Whether workers of the Ray that this process has started are alive."""
    return bool(_local_workers())


def kill_local_workers() -> None:
    """Kills the workers of the Ray that this process has started, and returns when they are gone."""
    workers = _local_workers()
    for worker in workers:
        with contextlib.suppress(psutil.Error):
            worker.kill()
    psutil.wait_procs(workers, timeout=_KILL_TIMEOUT_SECONDS)


def kill_remote_workers(directories: Iterable[TrainingDirectory]) -> None:
    """Kills the processes that train in some directories, on whichever nodes they run.

    Args:
        directories: Of the trainings.
    """
    killed = [reference for directory in directories if (reference := kill_recorded(directory)) is not None]
    if killed:
        ray.wait(killed, num_returns=len(killed), timeout=_KILL_TIMEOUT_SECONDS)
