"""The trainer of a real search: what a request becomes, and how its training ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bloodauto.config.objectives import parse_objectives
from bloodauto.data.clean import clean
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.errors import DataError, TrialAbort
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.models.device import Device
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.limits import TimeLimits
from bloodauto.training.session import TrainingData
from bloodauto.tuning.executors.keras_trainer import KerasTrainer, KerasTrainerFactory
from bloodauto.tuning.executors.trainer import Heartbeat
from bloodauto.tuning.messages import Completed, Stopped, TrainingEnd, TrainingRequest

#: What the machine's wall time is ahead of the trainer's clock.
WALL_OFFSET = 1e9


class _WorkerClock:
    """A clock whose two times differ, as on a real machine."""

    seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.seconds + WALL_OFFSET


@pytest.fixture(scope="module")
def data() -> TrainingData:
    dataset = synthesize(120, seed=0, image_size_px=32)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    return TrainingData(dataset, splits, ShiftSuite(seed=0, num_images=8))


@pytest.fixture
def setup(tmp_path: Path, data: TrainingData) -> KerasTrainerFactory:
    weights_files = {("own_cnn", "none"): None}
    return KerasTrainerFactory(tmp_path, data, parse_objectives("accuracy,parameters"), Device(), weights_files)


@pytest.fixture
def clock() -> _WorkerClock:
    return _WorkerClock()


@pytest.fixture
def trainer(setup: KerasTrainerFactory, clock: _WorkerClock) -> Iterator[KerasTrainer]:
    trainer = KerasTrainer(setup, dedicated_process=False, clock=clock)
    yield trainer
    trainer.close()


@pytest.fixture
def request_of(recipe_of: Any, stage_of: Any, tmp_path: Path) -> Callable[..., TrainingRequest]:
    def make(name: str, *, epochs: int = 1, **fields: Any) -> TrainingRequest:
        (tmp_path / name).mkdir()
        recipe = recipe_of([stage_of(epochs=epochs, unfreeze="all")])
        return TrainingRequest(name, recipe, seed=0, fold=0, folder=name, **{"limits": TimeLimits(), **fields})

    return make


def train(
    trainer: KerasTrainer, request: TrainingRequest, heartbeat: Heartbeat
) -> tuple[list[EpochReport], TrainingEnd]:
    """The reports and the end of a training."""
    reports: list[EpochReport] = []
    training = trainer.train(request, heartbeat)
    while True:
        try:
            reports.append(next(training))
        except StopIteration as end:
            return reports, end.value


def test_a_completed_training_tells_what_its_result_file_says(
    trainer: KerasTrainer, request_of: Callable[..., TrainingRequest], tmp_path: Path
) -> None:
    heartbeats: list[int] = []
    reports, end = train(trainer, request_of("first", epochs=2), lambda: bool(heartbeats.append(1)))
    assert [report.epoch for report in reports] == [1, 2]
    assert len(heartbeats) > 2, "a heartbeat follows every batch"
    result = TrainingDirectory(tmp_path / "first").result.read()
    assert end == Completed(result.objective, (float(result.parameters),))

    start = TrainingDirectory(tmp_path / "first").weights.path.relative_to(tmp_path).as_posix()
    continued, _ = train(trainer, request_of("continued", start_weights=start), lambda: False)
    assert continued[0].train_loss < reports[0].train_loss, "it starts from the weights of the first"


def test_limits_are_unix_times_and_the_trainer_converts_them_to_its_clock(
    trainer: KerasTrainer, clock: _WorkerClock, request_of: Callable[..., TrainingRequest]
) -> None:
    def pass_a_second() -> bool:
        clock.seconds += 1.0
        return False

    limits = TimeLimits(hard_deadline=WALL_OFFSET + 3.0)
    reports, end = train(trainer, request_of("late", epochs=50, limits=limits), pass_a_second)
    assert end == Stopped()
    assert reports == []
    assert clock.now() == 4.0, "the batch that passes the deadline is the last"


def test_a_training_that_is_told_to_leave_saves_the_middle_of_its_epoch(
    trainer: KerasTrainer, request_of: Callable[..., TrainingRequest], tmp_path: Path
) -> None:
    heartbeats: list[int] = []
    request, directory = request_of("told"), TrainingDirectory(tmp_path / "told")
    reports, end = train(trainer, request, lambda: bool(heartbeats.append(1)) or len(heartbeats) == 2)
    assert (reports, end) == ([], Stopped())
    assert directory.checkpoint.read().epoch_steps == 2
    assert directory.has_candidate_files, "what it has learnt can be exported"
    reports, end = train(trainer, request, lambda: False)
    assert len(reports) == 1
    assert isinstance(end, Completed)


class _BrokenData(TrainingData):
    def prepare(self, fold: int) -> FoldData:
        raise DataError(f"fold {fold}: no images")


def test_images_that_no_training_can_use_abort_the_search(
    setup: KerasTrainerFactory, data: TrainingData, request_of: Callable[..., TrainingRequest]
) -> None:
    broken = replace(setup, data=_BrokenData(data.dataset, data.splits, data.suite))
    trainer = KerasTrainer(broken, dedicated_process=False)
    with pytest.raises(TrialAbort, match="fold 0: no images"):
        train(trainer, request_of("any"), lambda: False)
    trainer.close()
