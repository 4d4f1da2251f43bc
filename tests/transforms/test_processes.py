"""Processes that augment: the same batches, errors that reach the consumer, and no remains however a process ends."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import psutil
import pytest

from bloodauto.config.recipe import MixingSettings, RandAugmentSettings
from bloodauto.errors import RecipeError, RunError
from bloodauto.transforms import (
    BatchAugmenter,
    BatchMixing,
    BatchPipeline,
    BatchPolicy,
    BatchWorkers,
    PairMixing,
    RandAugment,
    Sequence,
    Symmetries,
)
from bloodauto.transforms.processes import PROCESSES_AVAILABLE
from tests.locations import ROOT

pytestmark = pytest.mark.skipif(not PROCESSES_AVAILABLE, reason="processes that inherit memory need POSIX")

SETTINGS = RandAugmentSettings(num_ops=2, magnitude=0.5, operations="cells")
POLICY = Sequence((Symmetries(), RandAugment(SETTINGS)))
CUTMIX = PairMixing(MixingSettings(name="cutmix", alpha=1.0, rate=0.5))
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 12, 14, 3), dtype=np.uint8)
TARGETS = np.eye(3, dtype=np.float32)[np.arange(30) % 3]


def pipeline_of(
    workers: BatchWorkers, policy: BatchPolicy = POLICY, mixing: BatchMixing | None = None
) -> BatchPipeline:
    return BatchPipeline(IMAGES, TARGETS, BatchAugmenter(policy, mixing, seed=1), batch_size=4, workers=workers)


NO_WORKERS = BatchWorkers(num_threads=0)


@pytest.fixture
def two_processes() -> Iterator[BatchPipeline]:
    pipeline = pipeline_of(BatchWorkers(num_processes=2))
    yield pipeline
    pipeline.close()


def assert_same(left, right) -> None:
    for first, second in zip(left, right, strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "processes.serve" in " ".join(child.cmdline())]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until_gone(pids: list[int]) -> None:
    end = time.monotonic() + 20
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < end, f"expected processes {pids} to end"
        time.sleep(0.02)


@pytest.mark.parametrize("mixing", [None, CUTMIX])
def test_the_same_batches_as_without_them(mixing: BatchMixing | None) -> None:
    pipeline = pipeline_of(BatchWorkers(num_processes=2), mixing=mixing)
    alone = pipeline_of(NO_WORKERS, mixing=mixing)
    # Held until compared: memory that is lent must not be written again.
    assert_same([batch for number in (3, 0) for batch in pipeline.epoch(number)],
                [batch for number in (3, 0) for batch in alone.epoch(number)])  # fmt: skip
    assert len(workers()) == 2
    assert pipeline.wait_seconds > 0
    pipeline.close()
    assert not workers()
    assert_same(list(pipeline.epoch(5)), list(alone.epoch(5)))  # starts them again
    del pipeline
    assert not workers()


def test_mixing_alone_and_images_of_any_layout() -> None:
    images = np.asfortranarray(IMAGES)[:, ::-1]
    augmenter = BatchAugmenter(None, PairMixing(MixingSettings(name="cutmix", alpha=1.0)), seed=2)
    workers = BatchWorkers(num_processes=1, prefetch_batches=0)
    with closing(BatchPipeline(images, TARGETS, augmenter, batch_size=7, workers=workers)) as pipeline:
        alone = BatchPipeline(images, TARGETS, augmenter, batch_size=7, workers=NO_WORKERS)
        assert_same(list(pipeline.epoch(0)), list(alone.epoch(0)))


def test_epochs_that_are_left_early_or_overlap(two_processes):
    alone = pipeline_of(NO_WORKERS)
    expected = {number: list(alone.epoch(number)) for number in range(3)}
    first = two_processes.epoch(0)
    started = [next(first)]
    assert_same(list(two_processes.epoch(1)), expected[1])  # while the first still goes on
    assert_same(started + list(first), expected[0])
    for _ in range(20):
        abandoned = two_processes.epoch(2)
        assert_same([next(abandoned)], expected[2][:1])
        abandoned.close()
    suspended_at_its_end = two_processes.epoch(0)
    for _ in expected[0]:
        next(suspended_at_its_end)
    second = two_processes.epoch(1)
    started = [next(second)]
    del suspended_at_its_end
    assert_same(started + list(second), expected[1])


def test_an_error_in_a_process_reaches_the_consumer(tmp_path, monkeypatch):
    (tmp_path / "failing_policies.py").write_text(
        "from bloodauto.transforms import RandAugment\n"
        "class Broken(RandAugment):\n"
        "    def draw(self, count, height, width, rng):\n"
        "        raise ValueError(f'no draw for {count} images')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    Broken = importlib.import_module("failing_policies").Broken
    pipeline = pipeline_of(BatchWorkers(num_processes=1), Broken(SETTINGS))
    with closing(pipeline), pytest.raises(ValueError, match="no draw for 4 images") as caught:
        list(pipeline.epoch(0))
    assert any("failing_policies.py" in note for note in caught.value.__notes__)


def test_policies_that_cannot_be_sent_are_refused(tmp_path, monkeypatch):
    (tmp_path / "policies_of_a_script.py").write_text(
        "from bloodauto.transforms import RandAugment\nclass Unsendable(RandAugment):\n    pass\n"
    )
    with monkeypatch.context() as only_here:
        only_here.syspath_prepend(tmp_path)
        Unsendable = importlib.import_module("policies_of_a_script").Unsendable
    message = r"policy whose class another process can import.*policies_of_a_script"
    pipeline = pipeline_of(BatchWorkers(num_processes=1), Unsendable(SETTINGS))
    with closing(pipeline), pytest.raises(RecipeError, match=message):
        list(pipeline.epoch(0))

    @dataclass(frozen=True)
    class Local(RandAugment):
        pass

    with pytest.raises(RecipeError, match="expected a policy that can be sent to another process"):
        list(pipeline_of(BatchWorkers(num_processes=1), Local(SETTINGS)).epoch(0))


def test_a_killed_process_is_reported_and_replaced(two_processes):
    epoch = two_processes.epoch(0)
    next(epoch)
    for worker in workers():
        worker.kill()
    with pytest.raises(RunError, match=r"one ended with code -9.*use fewer"):
        list(epoch)
    assert not workers()
    assert_same(list(two_processes.epoch(1)), list(pipeline_of(NO_WORKERS).epoch(1)))


def test_nothing_is_left_open(two_processes):
    list(two_processes.epoch(0))
    two_processes.close()
    before = psutil.Process().num_fds()
    for number in range(3):
        list(two_processes.epoch(number))
        two_processes.close()
    assert psutil.Process().num_fds() == before


def test_a_worker_imports_no_tensorflow() -> None:
    code = "import sys, bloodauto.transforms.processes; print(*{'tensorflow', 'keras', 'optuna', 'ray'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True, cwd=ROOT
    )
    assert result.stdout.split() == []


SCRIPT = """
import sys, time
import numpy as np
from bloodauto.config.recipe import RandAugmentSettings
from bloodauto.transforms import BatchAugmenter, BatchPipeline, BatchWorkers, RandAugment

policy = RandAugment(RandAugmentSettings(num_ops=3, magnitude=0.5))
pipeline = BatchPipeline(
    np.zeros((40, 8, 8, 3), np.uint8), np.ones((40, 1), np.float32), BatchAugmenter(policy, seed=0), batch_size=2,
    workers=BatchWorkers(num_processes=2)
)
epoch = pipeline.epoch(0)
next(epoch)
print(*(worker.process.pid for worker in pipeline._worker_pool._workers), flush=True)
time.sleep(float(sys.argv[1]))
"""


def start(seconds: float) -> tuple[subprocess.Popen, list[int]]:
    root = ROOT
    script = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)},
        start_new_session=True,
    )  # fmt: skip
    assert script.stdout is not None
    pids = [int(pid) for pid in script.stdout.readline().split()]
    assert len(pids) == 2
    return script, pids


@pytest.mark.parametrize(("end", "code"), [(None, 0), (signal.SIGKILL, -9), (signal.SIGTERM, -15)])
def test_they_end_with_who_started_them(end, code):
    script, pids = start(0.0 if end is None else 60.0)
    if end is not None:
        script.send_signal(end)
    error_output = script.communicate(timeout=30)[1]
    assert script.returncode == code
    assert error_output == ""
    wait_until_gone(pids)


def test_ctrl_c_is_for_the_process_that_trains():
    script, pids = start(60.0)
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does
    error_output = script.communicate(timeout=30)[1]
    assert error_output.count("Traceback") == 1
    assert error_output.endswith("KeyboardInterrupt\n")
    wait_until_gone(pids)
