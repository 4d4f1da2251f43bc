"""The Ray executor passes the conformance suite of executors, on a real local Ray with trainers that only sleep."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

import bloodauto
from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.errors import RunError, TrialAbort
from bloodauto.run.artifacts import LedgerFile
from bloodauto.run.directory import RunDirectory
from bloodauto.testing.conformance.executors import EXECUTOR_CHECKS, ExecutorHarness, check_abort, check_failures
from bloodauto.testing.scripted_trainer import ScriptedTrainerFactory
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.training.limits import TimeLimits
from bloodauto.tuning.budget.ledger import BudgetAccount
from bloodauto.tuning.executors import Executor
from bloodauto.tuning.executors.ray.cluster import RunningRay, WorkerResources, ray_cluster
from bloodauto.tuning.executors.ray.executor import RayExecutor, _Bridge, failure_from_ray
from bloodauto.tuning.executors.simulated import Fault
from bloodauto.tuning.messages import Aborted, Assignment, Completed, Crashed, Interrupted, TrainingEnd
from bloodauto.tuning.scheduler import Scheduler

GIGABYTE = 1_000_000_000


@dataclass
class RayHarness:
    """Two workers of one core on a local Ray."""

    clock = SYSTEM_CLOCK
    epoch_seconds: float = 0.25
    start_seconds: float = 12.0

    @contextlib.contextmanager
    def executor(self, run: RunDirectory, faults: tuple[Fault, ...], *, max_restarts: int) -> Iterator[Executor]:
        seconds = {"own_cnn_4x16": self.epoch_seconds, "own_cnn_4x32": 2 * self.epoch_seconds}
        executor = RayExecutor(
            run,
            WorkerResources(2, 1.0, 0.0),
            ScriptedTrainerFactory(run.root.resolve(), seconds, faults),
            memory_limit_bytes=4 * GIGABYTE,
            max_restarts=max_restarts,
        )
        with executor:
            yield executor

    def interrupt(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
def test_the_ray_executor_conforms(
    check: Callable[[ExecutorHarness, Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check(RayHarness(), tmp_path)
    crashes = [record for record in caplog.records if "crashed" in record.getMessage()]
    assert bool(crashes) == (check is check_failures), "the traceback of a crash is logged, and only of a crash"
    if check is check_abort:
        assert (tmp_path / "trials" / "00001" / "failure.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_surroundings_made_for_other_programs_do_not_reach_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another Ray's address, a batch system's long temporary folder, a job's settings, scripts in the working folder."""
    scratch = tmp_path / ("scratch-of-job-" * 4)
    scratch.mkdir()
    (tmp_path / "random.py").write_text("raise SystemExit('notes of mine')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for name, value in {
        "RAY_ADDRESS": "10.0.0.5:6379",
        "RAY_CHDIR_TO_TRIAL_DIR": "1",
        "RAY_RUNTIME_ENV_HOOK": "nowhere.hook",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": "{",
        "TMPDIR": str(scratch),
    }.items():
        monkeypatch.setenv(name, value)

    def surroundings() -> tuple[str, str, str]:
        import random

        import bloodauto

        return str(random.__file__), str(bloodauto.__file__), os.environ["TMPDIR"]

    with ray_cluster(WorkerResources(1, 1.0, 0.0)):
        module, package, folder = ray.get(ray.remote(surroundings).remote())
        assert Path.cwd() == tmp_path
    assert not Path(module).is_relative_to(tmp_path)
    assert package == bloodauto.__file__
    assert len(folder) < 40
    assert not Path(folder).exists(), "what Ray and the workers left there is deleted"
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_nothing_is_left_changed_in_the_process_that_starts_ray() -> None:
    environment, level = dict(os.environ), logging.getLogger("ray.tune").level
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ray_cluster(WorkerResources(1, 1.0, 0.0)):
        assert os.environ["TUNE_DISABLE_SIGINT_HANDLER"] == "1"
    assert dict(os.environ) == environment
    assert logging.getLogger("ray.tune").level == level
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_cluster_without_the_devices_is_an_error_that_names_the_options() -> None:
    with (
        pytest.raises(RunError, match=r"--workers 1: expected 1 GPU.*Lower --workers"),
        ray_cluster(WorkerResources(1, 1.0, 1.0, address="local")),
    ):
        pass


class RecordedEnds:
    """A scheduler that assigns one training after another and notes how they ended."""

    def __init__(self) -> None:
        self.ends: dict[str, TrainingEnd] = {}
        self.assigned = 0

    def next_assignment(self, slot: str) -> Assignment:
        name, self.assigned = f"{self.assigned:05d}", self.assigned + 1
        return Assignment("trial", name, slot, tiny_recipe(tiny_space()), seed=0, fold=0, limits=TimeLimits())

    def was_overdue(self, name: str) -> bool:
        return False

    def on_end(self, name: str, end: TrainingEnd) -> None:
        self.ends[name] = end


def test_a_training_that_finished_on_disk_is_completed_although_its_end_was_never_told(tmp_path: Path) -> None:
    """Its worker is lost at the very end, or Ray is, or the shutdown comes first."""
    run, recorded, finished = RunDirectory(tmp_path), RecordedEnds(), {"00000", "00002"}
    file = LedgerFile(tmp_path / "ledger.jsonl")
    with BudgetAccount.open(file, budget_device_seconds=30.0, devices_per_slot=1.0) as account:
        bridge = _Bridge(
            cast(Scheduler, recorded),
            account.reserve_workers(4),
            run,
            SYSTEM_CLOCK,
            end_on_disk=lambda training: Completed(0.8) if training.root.name in finished else None,
            on_tick=lambda scheduler: None,
            is_cluster=False,
            running=RunningRay(tmp_path, []),
        )
        for tune_id in "abcd":
            bridge.next_request(tune_id)
        bridge.end_lost_training("a")
        bridge.end_lost_training("b")
        bridge.end_finished_trainings()
    lost = Interrupted("worker_died", "the worker process died more than once", process_lost=True)
    assert recorded.ends == {"00000": Completed(0.8), "00001": lost, "00002": Completed(0.8)}


@pytest.mark.parametrize(
    ("error", "was_overdue", "reason"),
    [
        (ActorDiedError(), False, "worker_died"),
        (ActorDiedError(), True, "watchdog"),
        (OutOfMemoryError("no more"), False, "out_of_memory"),
        (None, False, "worker_died"),
    ],
)
def test_a_lost_worker_is_an_interruption(error: Exception | None, was_overdue: bool, reason: str) -> None:
    failure = failure_from_ray(error, was_overdue=was_overdue)
    assert isinstance(failure, Interrupted)
    assert failure.reason == reason
    assert failure.process_lost


def test_an_error_outside_of_a_training_keeps_its_kind_and_its_traceback() -> None:
    crash = failure_from_ray(RayTaskError("setup", "the traceback", ValueError("a fault")), was_overdue=False)
    assert isinstance(crash, Crashed)
    assert "the traceback" in crash.traceback
    assert crash.message == "ValueError: a fault"
    abort = failure_from_ray(RayTaskError("setup", "", TrialAbort("abort", "no images")), was_overdue=False)
    assert abort == Aborted("no images")
