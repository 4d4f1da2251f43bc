"""A worker in a real local Ray: requests, reports, ends, failures, heartbeats."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bloodauto.errors import TrialRejected
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.testing.scripted_trainer import ScriptedTrainerFactory
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.training.limits import TimeLimits
from bloodauto.tuning.executors.ray.cluster import WorkerResources, ray_cluster
from bloodauto.tuning.executors.ray.worker import END, REPORT, REQUEST, Worker
from bloodauto.tuning.executors.simulated import Fault
from bloodauto.tuning.executors.trainer import Heartbeat, Training, TrialTrainer
from bloodauto.tuning.messages import Aborted, Completed, Crashed, Rejected, Stopped, TrainingEnd, TrainingRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

RECIPE = tiny_recipe(tiny_space())
SECONDS = {"own_cnn_4x16": 0.01}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    with ray_cluster(WorkerResources(1, 1.0, 0.0)):
        yield


def request(number: int, limits: TimeLimits | None = None) -> TrainingRequest:
    limits = TimeLimits() if limits is None else limits
    return TrainingRequest(f"{number:05d}", RECIPE, 7, 0, limits, folder=f"trials/{number:05d}")


def start_worker(run: RunDirectory, *faults: Fault, limits: TimeLimits | None = None) -> Worker:
    worker = Worker.__new__(Worker)
    factory = ScriptedTrainerFactory(run.root, SECONDS, faults)
    worker.setup({REQUEST: request(0, limits)}, run=run.root, factory=factory, memory_limit_bytes=10**12)
    return worker


def train_to_end(worker: Worker) -> tuple[list[EpochReport], TrainingEnd]:
    reports: list[EpochReport] = []
    while True:
        result = worker.step()
        if result["done"]:
            return reports, result[END]
        reports.append(result[REPORT])


def test_one_step_is_one_epoch_and_the_last_tells_the_end(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    reports, end = train_to_end(start_worker(run))
    assert [report.epoch for report in reports] == list(range(1, 7))
    assert end == Completed(reports[-1].objective)
    assert run.trial(0).process.read().pid > 0
    assert run.trial(0).heartbeat.exists()


def test_a_worker_takes_one_request_after_another(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    worker = start_worker(run)
    train_to_end(worker)
    assert worker.reset_config({REQUEST: request(1)})
    reports, end = train_to_end(worker)
    assert len(reports) == 6
    assert isinstance(end, Completed)
    assert run.trial(1).process.exists


def test_a_training_past_its_deadline_leaves(tmp_path: Path) -> None:
    reports, end = train_to_end(start_worker(RunDirectory(tmp_path), limits=TimeLimits(hard_deadline=0.0)))
    assert (reports, end) == ([], Stopped())


def test_a_training_that_is_asked_to_stop_leaves_and_the_next_one_there_resumes(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    worker = start_worker(run)
    worker.step()
    run.trial(0).request_stop()
    time.sleep(0.3)  # It looks four times a second.
    assert worker.step() == {END: Stopped(), "done": True}
    worker.reset_config({REQUEST: request(0)})
    reports, end = train_to_end(worker)
    assert [report.epoch for report in reports] == list(range(2, 7))
    assert isinstance(end, Completed)


def test_a_crash_is_told_with_its_traceback_and_leaves_it_in_the_directory(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    reports, end = train_to_end(start_worker(run, Fault("00000", 3, "crash")))
    assert len(reports) == 2
    assert isinstance(end, Crashed)
    assert "scripted_trainer.py" in end.traceback
    assert run.trial(0).failure.read().reason == "crash"
    assert "ValueError: scripted" in run.trial(0).traceback.read_text()


def test_an_abort_leaves_no_traceback(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    _, end = train_to_end(start_worker(run, Fault("00000", 1, "abort")))
    assert end == Aborted("scripted")
    assert run.trial(0).failure.read().message == "scripted"
    assert not run.trial(0).traceback.exists()


class FullDisk:
    """A trainer whose training is rejected while its directory takes no files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make_trainer(self) -> TrialTrainer:
        return self

    def end_on_disk(self, training: TrainingDirectory) -> Completed | None:
        return None

    def train(self, request: TrainingRequest, heartbeat: Heartbeat) -> Training:
        folder = self.root / request.folder
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("a file in the place of the directory")
        raise TrialRejected("nan", "the loss is nan")
        yield

    def close(self) -> None:
        """Nothing to free."""


def test_a_failure_is_told_although_its_file_cannot_be_written(tmp_path: Path) -> None:
    worker = Worker.__new__(Worker)
    worker.setup({REQUEST: request(0)}, run=tmp_path, factory=FullDisk(tmp_path), memory_limit_bytes=10**12)
    assert worker.step() == {END: Rejected("nan", "the loss is nan"), "done": True}
