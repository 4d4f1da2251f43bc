"""Pruned trials become candidates, evaluated on the images of all other candidates."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.config.recipe import Recipe, parse_recipe
from bloodauto.data.clean import clean
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.ensemble import pruned_trials
from bloodauto.ensemble.assemble import PrunedEvaluation
from bloodauto.ensemble.pruned_trials import StoppedTrainings, evaluate_pruned
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.run.artifacts import TrainingHistory
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.trainer import TrainOptions, train_epochs

#: Every test trains networks.
pytestmark = pytest.mark.slow

EPOCHS = 3


@dataclass(frozen=True)
class PrunedTraining:
    """A training that was pruned after its second epoch, and its images."""

    folder: Path
    fold_data: FoldData


def _recipe() -> Recipe:
    stage = {"epochs": EPOCHS, "optimizer": {"name": "adam", "learning_rate": 3e-3}, "schedule": {"name": "constant"}}
    value = {
        "input": {"size_px": 32},
        "backbone": {"name": "own_cnn", "weights": "none"},
        "augmentation": {"orientation": False},
        "batch_size": 16,
        "stages": [stage],
    }
    return parse_recipe(value, origin="test")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> PrunedTraining:
    dataset = synthesize(160, seed=3, image_size_px=32)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=0, num_images=16), target=dataset.images[:20])
    folder = tmp_path_factory.mktemp("trial")
    epochs = train_epochs(
        _recipe(), fold_data, seed=0, options=TrainOptions(), folder=folder, should_stop=lambda: False
    )
    assert len(list(itertools.islice(epochs, 2))) == 2
    epochs.close()
    return PrunedTraining(folder, fold_data)


def _trial(run: RunDirectory, pruned: PrunedTraining, number: int, objective: float) -> None:
    """A copy of the training, with another objective after its epochs."""
    shutil.copytree(pruned.folder, run.trial(number).root)
    file = run.trial(number).history
    file.write(TrainingHistory(epochs=tuple(epoch.replace(objective=objective) for epoch in file.read().epochs)))


@pytest.fixture
def run(tmp_path: Path, pruned: PrunedTraining) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    for number, objective in enumerate((0.8, 0.76, 0.79, 0.3)):
        _trial(directory, pruned, number, objective)
    return directory


def _evaluate(
    run: RunDirectory, pruned: PrunedTraining, *, seconds: float = 1e6, refits: Sequence[str] = ()
) -> PrunedEvaluation:
    return evaluate_pruned(
        run,
        StoppedTrainings(pruned=(1, 2, 3, 7), completed=(0,), refits=tuple(refits)),
        lambda: pruned.fold_data,
        objective="shift",
        seconds_left=lambda: seconds,
        start_seconds=1.0,
        clock=SYSTEM_CLOCK,
    )


def test_promising_trials_are_evaluated_on_the_images_of_all_candidates(
    run: RunDirectory, pruned: PrunedTraining
) -> None:
    assert _evaluate(run, pruned) == PrunedEvaluation(pruned=3, promising=2, trial_numbers=(2, 1))
    saved, fold_data = run.trial(2).predictions.read(), pruned.fold_data
    np.testing.assert_array_equal(saved.index, fold_data.validation_index)
    np.testing.assert_array_equal(saved.shifted_families, fold_data.plan.family_names)
    assert saved.shifted.shape == (len(fold_data.shifted_images), fold_data.num_classes)
    assert saved.target.shape == (20, fold_data.num_classes)
    np.testing.assert_allclose(saved.clean.sum(axis=1), 1, atol=1e-5)
    result = run.trial(2).result.read()
    assert not result.finished
    assert result.parameters > 0
    assert result.target_estimate is not None
    assert result.objective == pytest.approx((result.shift + result.target_estimate) / 2)
    assert not run.trial(3).predictions.exists


def test_the_predictions_are_those_of_the_weights_when_it_was_pruned(
    run: RunDirectory, pruned: PrunedTraining, tmp_path: Path
) -> None:
    """A training that is resumed and stopped before its next epoch predicts the same."""
    _evaluate(run, pruned)
    resumed = shutil.copytree(pruned.folder, tmp_path / "resumed")
    ended = train_epochs(
        _recipe(), pruned.fold_data, seed=0, options=TrainOptions(), folder=resumed, should_stop=lambda: True
    )
    with pytest.raises(StopIteration):
        next(ended)
    for name in ("clean", "shifted", "target"):
        np.testing.assert_allclose(
            getattr(run.trial(2).predictions.read(), name),
            getattr(TrainingDirectory(resumed).predictions.read(), name),
            atol=1e-5,
        )


def test_where_no_epoch_was_completed_the_training_that_came_furthest_is_evaluated(
    pruned: PrunedTraining, tmp_path: Path
) -> None:
    """Three that were killed within their first epoch, one of them before its first batch."""
    run = RunDirectory(tmp_path)
    for number, progress in enumerate((0.1, 0.3, 0.0)):
        training = run.trial(number)
        shutil.copytree(pruned.folder, training.root)
        training.weights.delete()
        training.history.delete()
        training.checkpoint.write(training.checkpoint.read().replace(progress=progress, history=()))
    stopped = StoppedTrainings(pruned=(0, 1, 2, 3), completed=())
    evaluation = evaluate_pruned(
        run,
        stopped,
        lambda: pruned.fold_data,
        objective="shift",
        seconds_left=lambda: -1.0,
        start_seconds=1.0,
        clock=SYSTEM_CLOCK,
    )
    assert evaluation == PrunedEvaluation(pruned=2, promising=1, trial_numbers=(1,))
    assert run.trial(1).has_candidate_files
    for value, other in zip(run.trial(1).weights.read().weights, run.trial(1).checkpoint.read().weights, strict=True):
        np.testing.assert_array_equal(value, other)


def test_where_nothing_was_completed_the_best_is_evaluated_however_little_time_is_left(
    run: RunDirectory, pruned: PrunedTraining
) -> None:
    evaluation = evaluate_pruned(
        run,
        StoppedTrainings(pruned=(1, 2, 3), completed=()),
        lambda: pruned.fold_data,
        objective="shift",
        seconds_left=lambda: -1.0,
        start_seconds=1.0,
        clock=SYSTEM_CLOCK,
    )
    assert evaluation.trial_numbers == (2,)


def test_without_time_nothing_is_evaluated_but_what_an_earlier_session_evaluated_counts(
    run: RunDirectory, pruned: PrunedTraining
) -> None:
    assert _evaluate(run, pruned, seconds=0.5) == PrunedEvaluation(pruned=3, promising=2)
    _evaluate(run, pruned)
    assert _evaluate(run, pruned, seconds=0.5) == PrunedEvaluation(pruned=3, promising=2, trial_numbers=(2, 1))


def test_weights_that_do_not_fit_are_skipped(run: RunDirectory, pruned: PrunedTraining) -> None:
    (run.trial(2).root / "best.npz").write_bytes(b"no archive")
    assert _evaluate(run, pruned).trial_numbers == (1,)


def test_an_evaluation_that_crashes_does_not_take_the_others_with_it(
    run: RunDirectory, pruned: PrunedTraining, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What ended a training, such as a lack of memory, may happen again."""
    evaluated = pruned_trials._evaluate_training

    def out_of_memory(training: TrainingDirectory, *arguments: Any) -> bool:
        if training.root == run.trial(2).root:
            raise MemoryError("no room")
        return evaluated(training, *arguments)

    monkeypatch.setattr(pruned_trials, "_evaluate_training", out_of_memory)
    assert _evaluate(run, pruned).trial_numbers == (1,)
    assert "no room" in caplog.text


def test_without_a_completed_trial_the_best_that_were_stopped_are_evaluated(
    run: RunDirectory, pruned: PrunedTraining
) -> None:
    shutil.rmtree(run.trial(0).root)
    assert _evaluate(run, pruned) == PrunedEvaluation(pruned=3, promising=2, trial_numbers=(2, 1))


def test_weights_that_predict_nothing_finite_are_skipped(run: RunDirectory, pruned: PrunedTraining) -> None:
    path = run.trial(2).root / "best.npz"
    weights = dict(np.load(path, allow_pickle=False))
    np.savez(path, **{name: np.full_like(value, np.nan) for name, value in weights.items()})
    assert _evaluate(run, replace(pruned)).trial_numbers == (1,)


def test_refits_that_ended_before_their_evaluation_come_first(run: RunDirectory, pruned: PrunedTraining) -> None:
    shutil.copytree(run.trial(1).root, run.refit("00001-fold0-seed5").root)
    (run.refit("00002-fold0-seed6").root).mkdir()  # ended before its first epoch
    evaluation = _evaluate(run, pruned, refits=["00001-fold0-seed5", "00002-fold0-seed6"])
    assert evaluation == PrunedEvaluation(pruned=3, promising=2, trial_numbers=(2, 1), refits=("00001-fold0-seed5",))
    refit = run.refit("00001-fold0-seed5")
    assert not refit.result.read().finished
    assert refit.predictions.exists
