"""Workers of a real Ray are killed, and Ray lives on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray import tune

from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.tuning.executors.ray.cluster import WorkerResources, ray_cluster
from bloodauto.tuning.executors.ray.processes import kill_local_workers, kill_remote_workers, record_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def trainable() -> type[tune.Trainable]:
    """A class that Ray sends to its workers as code, for they cannot import tests."""

    class SleepingWorker(tune.Trainable):
        """As the search's own worker, but its training never ends."""

        def setup(self, config: dict[str, Any], *, folder: str) -> None:
            self.folder = Path(folder)

        def step(self) -> dict[str, Any]:
            directory = TrainingDirectory(self.folder / str(os.getpid()))
            directory.root.mkdir()
            record_process(directory)
            time.sleep(1000)
            return {}

    return SleepingWorker


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    with ray_cluster(WorkerResources(2, 1.0, 0.0)):
        yield


def start_two_workers(folder: Path) -> list[psutil.Process]:
    actors = [ray.remote(num_cpus=1)(tune.with_parameters(trainable(), folder=str(folder))).remote() for _ in range(2)]
    working = [actor.train.remote() for actor in actors]
    while len(list(folder.glob("*/worker.json"))) < 2:
        ready, _ = ray.wait(working, timeout=0.1)
        assert not ready, ray.get(ready)
    return [psutil.Process(int(directory.name)) for directory in folder.iterdir()]


def ray_lives() -> bool:
    return bool(ray.get(ray.remote(num_cpus=1)(lambda: 6 * 7).remote(), timeout=120) == 42)


@pytest.mark.parametrize("how", ["on this machine", "as recorded"])
def test_workers_are_gone_and_ray_lives_on(how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    workers = start_two_workers(tmp_path)
    if how == "on this machine":
        kill_local_workers()
    else:
        kill_remote_workers([TrainingDirectory(root) for root in tmp_path.iterdir()])
        psutil.wait_procs(workers, timeout=5)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    # Ray's agents are processes like the workers; the raylet ends some seconds after one of them.
    time.sleep(8)
    assert ray_lives()
    assert capfd.readouterr().out == "", "Ray reports lost workers on standard output unless it is told not to"


def test_without_workers_nothing_is_killed() -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    kill_local_workers()
    time.sleep(1)
    assert before <= {process.pid for process in psutil.Process().children(recursive=True)}
