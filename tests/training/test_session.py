"""A session: trainings one after another on one device, with memory freed and files written."""

from __future__ import annotations

from typing import Any

import pytest

from bloodauto.clock import SimulatedClock
from bloodauto.data.clean import clean
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.models.device import Device
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.limits import TimeLimits
from bloodauto.training.session import TrainingData, TrainingSession
from bloodauto.training.trainer import TrainOptions


def test_a_session_trains_recipes_one_after_another(fold_data, recipe_of, stage_of, tmp_path) -> None:
    recipe = recipe_of([stage_of(epochs=1)])
    reports: list[Any] = []
    with TrainingSession.open(fold_data, device=Device()) as session:
        assert session.fold() is fold_data
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            result = session.train(recipe, tmp_path / name, seed=0, report=reports.append)
            assert result.finished
    assert [report.epoch for report in reports] == [1, 1]
    first, second = (TrainingDirectory(tmp_path / name).result.read() for name in ("first", "second"))
    assert first.objective == pytest.approx(second.objective, abs=0.05)


def test_a_session_uses_its_own_clock_for_the_hard_deadline(fold_data, recipe_of, stage_of, tmp_path) -> None:
    clock = SimulatedClock(100.0)
    options = TrainOptions(limits=TimeLimits(hard_deadline=102.0))
    with TrainingSession.open(fold_data, device=Device(), clock=clock) as session:
        epochs = session.epochs(
            recipe_of([stage_of(epochs=5)]),
            tmp_path,
            seed=0,
            options=options,
            should_stop=lambda: bool(clock.advance(1.0)),
        )
        with pytest.raises(StopIteration) as end:
            next(epochs)
    assert not end.value.value.finished
    assert clock.now() == 103.0


def test_a_session_prepares_a_fold_at_its_first_use_and_keeps_one() -> None:
    dataset = synthesize(100, seed=0, image_size_px=32)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    with TrainingSession.open(TrainingData(dataset, splits, ShiftSuite(seed=0)), device=Device()) as session:
        first = session.fold(1)
        assert session.fold(1) is first
        assert session.fold(0) is not first
        assert session.fold(1) is not first
