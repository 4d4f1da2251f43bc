"""Trains small recipes: learning, files, stop and resume, stages, failures, time limits, mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodauto.clock import SimulatedClock
from bloodauto.config.recipe import load_recipe
from bloodauto.errors import RecipeError, RunError, TrialRejected, WeightsError
from bloodauto.models.device import Device, DeviceSettings
from bloodauto.models.network import build_network
from bloodauto.run.artifacts import Checkpoint, NetworkWeights, TrainingHistory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.kept_networks import KeptNetworks
from bloodauto.training.limits import TimeLimits
from bloodauto.training.trainer import TrainOptions, finish_training, train_epochs

OPTIONS = TrainOptions(objective="accuracy")
#: Networks that these tests share: tracing one takes longer than most of the trainings here.
NETWORKS = KeptNetworks()


def run(recipe, fold_data, folder, *, options=OPTIONS, **arguments):
    """The result, and the reports."""
    reports: list[Any] = []
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {"seed": 0, **arguments}
    epochs = train_epochs(recipe, fold_data, folder=folder, options=options, networks=NETWORKS, **arguments)
    result = finish_training(epochs, folder, reports.append)
    return result, reports


class AfterCalls:
    """Returns True from the nth call on."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_a_training_learns_and_writes_its_files(fold_data, recipe_of, stage_of, tmp_path):
    # Many small batches: batch normalisation's statistics need a hundred steps to follow.
    recipe = recipe_of([stage_of(epochs=8, learning_rate=2e-3)], batch_size=4)
    result, reports = run(recipe, fold_data, tmp_path)
    assert result.finished
    assert result.objective == result.evaluation.clean.accuracy
    assert result.objective > 0.3, "chance is 0.125"
    assert reports[-1].train_loss < 0.6 * reports[0].train_loss
    assert [report.epoch for report in reports] == list(range(1, 9))
    assert tuple(reports) == result.history
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert len(TrainingHistory.read(tmp_path / "history.json").epochs) == 8
    written = TrainingDirectory(tmp_path).result.read()
    assert written == result.to_artifact()
    assert (written.objective, written.shift) == (result.objective, result.evaluation.score)
    assert all(0 <= report.shift <= 1 and 0 < report.evaluation_seconds < report.seconds for report in reports)

    saved = np.load(tmp_path / "predictions.npz", allow_pickle=False)
    np.testing.assert_array_equal(saved["index"], fold_data.validation_index)
    np.testing.assert_array_equal(saved["labels"], fold_data.labels[fold_data.validation_index])
    assert (saved["clean"].argmax(axis=1) == saved["labels"]).mean() == pytest.approx(result.objective)
    assert saved["clean"].dtype == np.float32
    np.testing.assert_allclose(saved["clean"].sum(axis=1), 1, atol=1e-5)
    assert saved["shifted"].shape == (len(fold_data.shifted_images), fold_data.num_classes)
    np.testing.assert_array_equal(saved["shifted_labels"], fold_data.shifted_labels)
    np.testing.assert_array_equal(saved["shifted_groups"], fold_data.shifted_groups)


@pytest.mark.slow
def test_the_kept_weights_are_the_best_epochs(fold_data, recipe_of, stage_of, tmp_path):
    """All validation images are evaluated after each epoch here, so the result must be the best epoch's score."""
    full = replace(fold_data, subset_rows=np.arange(len(fold_data.validation_index)))
    full = replace(full, plan=replace(full.plan, num_validation_images=len(full.validation_index)))
    result, reports = run(recipe_of([stage_of(epochs=4, learning_rate=0.03)]), full, tmp_path)
    assert result.objective == max(report.objective for report in reports)


@pytest.mark.slow
def test_each_stage_has_its_own_unfreezing_and_schedule(fold_data, recipe_of, stage_of, tmp_path):
    stages = [
        stage_of(epochs=1, unfreeze="none", learning_rate=1e-2),
        stage_of(epochs=2, unfreeze={"blocks": 1}, learning_rate=1e-3, schedule={"name": "cosine"}),
    ]
    weights = []
    steps = train_epochs(recipe_of(stages), fold_data, seed=0, options=OPTIONS, folder=tmp_path, networks=NETWORKS)
    reports = []
    for report in steps:
        reports.append(report)
        checkpoint = Checkpoint.read(tmp_path / "checkpoint.npz")
        weights.append(checkpoint.weights)
        assert len(checkpoint.history) == report.epoch
        assert bool(checkpoint.optimizer) == (report.epoch == 2), "a new stage starts with a new optimizer"
    assert [report.stage for report in reports] == [0, 1, 1]
    assert reports[0].learning_rate == pytest.approx(1e-2)
    assert reports[1].learning_rate == pytest.approx(0.5e-3, rel=0.2)
    assert reports[2].learning_rate < 0.1e-3
    first_kernels = [epoch[0] for epoch in weights]
    np.testing.assert_array_equal(first_kernels[0], first_kernels[2])
    changed = [not np.array_equal(a, b) for a, b in zip(weights[0], weights[2], strict=True)]
    assert changed[-1]
    assert 0 < sum(changed) < len(changed)


@pytest.mark.slow
def test_a_seed_gives_the_same_training_again(fold_data, recipe_of, tmp_path):
    recipe = recipe_of(head={"dropout": 0.3}, augmentation={"orientation": True, "stain_jitter": 0.3})
    losses = [
        [report.train_loss for report in run(recipe, fold_data, tmp_path / name, seed=seed, options=options)[1]]
        for name, seed, options in (
            ("a", 1, OPTIONS),
            ("b", 1, replace(OPTIONS, device=Device(cores=8))),
            ("c", 2, OPTIONS),
        )
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


EXACT_STAGES = {
    "cosine": {"schedule": {"name": "cosine"}},
    "ema, nadam": {"weight_averaging": "ema", "optimizer": {"name": "nadam", "learning_rate": 3e-3}},
}


@pytest.fixture(scope="module")
def tiny_networks() -> Callable[..., Any]:
    """As ``run``, with networks that are kept from test to test."""
    networks = KeptNetworks()

    def run_kept(recipe: Any, fold_data: Any, folder: Path, **arguments: Any) -> Any:
        reports: list[Any] = []
        folder.mkdir(parents=True, exist_ok=True)
        epochs = train_epochs(recipe, fold_data, folder=folder, seed=0, options=OPTIONS, networks=networks, **arguments)
        return finish_training(epochs, folder, reports.append), reports

    return run_kept


@pytest.mark.parametrize("change", EXACT_STAGES.values(), ids=EXACT_STAGES)
def test_a_training_stopped_within_an_epoch_resumes_there(
    fold_data, recipe_of, stage_of, tmp_path, tiny_networks, change
):
    """Twice interrupted, in its first and its last epoch, it does the very steps of a training that was not."""
    recipe = recipe_of(
        [stage_of(epochs=2, **change)],
        backbone={"name": "own_cnn", "weights": "none", "blocks": 2, "width": 4},
        head={"dropout": 0.3},
        augmentation={"orientation": True},
        imbalance={"sampling": "oversample"},
    )
    run = tiny_networks
    straight, _ = run(recipe, fold_data, tmp_path / "straight")
    steps, folder = len(fold_data.train_index) // 16, tmp_path / "stopped"
    first, reports = run(recipe, fold_data, folder, should_stop=AfterCalls(3))
    assert (first.finished, reports) == (False, [])
    assert Checkpoint.read(folder / "checkpoint.npz").epoch_steps == 3
    # 3 steps are done, and an epoch has ``steps``: the stop comes after two thirds of the second one.
    second, reports = run(recipe, fold_data, folder, should_stop=AfterCalls(steps - 3 + 2 * steps // 3))
    assert (second.finished, [report.epoch for report in reports]) == (False, [1])
    assert reports[0].epoch_fraction == pytest.approx(1 - 3 / steps)
    resumed, reports = run(recipe, fold_data, folder)
    assert (resumed.finished, [report.epoch for report in reports]) == (True, [2])

    for report, other in zip(resumed.history, straight.history, strict=True):
        assert report.train_loss == pytest.approx(other.train_loss, rel=1e-4), "of the whole epoch"
        assert report.train_accuracy == pytest.approx(other.train_accuracy, abs=1e-6)
        assert report.learning_rate == pytest.approx(other.learning_rate, rel=1e-6)
        assert report.stage_progress == pytest.approx(other.stage_progress, rel=1e-6)
    for name, schema in (("checkpoint.npz", Checkpoint), ("best.npz", NetworkWeights)):
        ends = [schema.read(tmp_path / end / name).weights for end in ("straight", "stopped")]
        for value, other in zip(*ends, strict=True):
            np.testing.assert_allclose(value, other, atol=2e-5, err_msg=name)
    assert resumed.objective == pytest.approx(straight.objective, abs=1e-6)


@pytest.mark.parametrize(("step_seconds", "saves"), [(8.0, [3, 6, 9]), (0.1, [])])
def test_the_state_is_saved_by_time(fold_data, recipe_of, stage_of, tmp_path, tiny_networks, step_seconds, saves):
    """A kill costs the steps since the last save: the checkpoint that lies there is of the middle of the first epoch."""
    recipe = recipe_of([stage_of(epochs=1)], backbone={"name": "own_cnn", "weights": "none", "blocks": 2, "width": 4})
    run = tiny_networks
    clock, checkpoint, seen = SimulatedClock(), TrainingDirectory(tmp_path).checkpoint, []

    def after_batch() -> bool:
        if checkpoint.exists:
            seen.append(checkpoint.read().epoch_steps)
        clock.advance(step_seconds)
        return False

    run(recipe, fold_data, tmp_path, should_stop=after_batch, clock=clock)
    assert sorted(set(seen))[: len(saves)] == saves
    assert checkpoint.read().epoch_steps == 0


def test_a_save_that_takes_long_is_done_seldom(fold_data, recipe_of, stage_of, tmp_path, tiny_networks, monkeypatch):
    """A thousandth of the time: at 0.05 s a save, one in 50 s."""
    recipe = recipe_of([stage_of(epochs=1)], backbone={"name": "own_cnn", "weights": "none", "blocks": 2, "width": 4})
    run = tiny_networks
    clock, saved_at, write = SimulatedClock(), [], Checkpoint.write

    def slow_write(checkpoint: Checkpoint, path: Any) -> None:
        clock.advance(0.05)
        saved_at.append(clock.now())
        write(checkpoint, path)

    monkeypatch.setattr(Checkpoint, "write", slow_write)
    run(recipe, fold_data, tmp_path, should_stop=lambda: bool(clock.advance(11.0)), clock=clock)
    within_the_epoch = saved_at[:-1]
    assert len(within_the_epoch) >= 2
    assert min(np.diff(within_the_epoch)) >= 50


@pytest.mark.slow
def test_a_training_stopped_before_its_first_epoch_still_has_predictions(fold_data, recipe_of, tmp_path):
    result, reports = run(recipe_of(), fold_data, tmp_path, should_stop=lambda: True)
    assert not result.finished
    assert reports == []
    assert result.history == ()
    assert (tmp_path / "predictions.npz").is_file()
    again, reports = run(recipe_of(), fold_data, tmp_path)
    assert again.finished
    assert len(reports) == 2


def test_a_killed_training_resumes_after_its_last_epoch(fold_data, recipe_of, stage_of, tmp_path):
    """A closed generator leaves what a kill leaves: nothing is written after the last epoch."""
    recipe = recipe_of([stage_of(epochs=2)])
    steps = train_epochs(recipe, fold_data, seed=0, options=OPTIONS, folder=tmp_path, networks=NETWORKS)
    first = next(steps)
    steps.close()
    result, reports = run(recipe, fold_data, tmp_path)
    assert [report.epoch for report in reports] == [2]
    assert result.history[0] == first
    assert result.seconds > first.seconds
    again, reports = run(recipe, fold_data, tmp_path)
    assert reports == [], "a finished training is not trained again"
    assert (again.finished, again.objective, again.history) == (True, result.objective, result.history)


@pytest.mark.slow
def test_patience_ends_a_stage_and_the_next_begins(fold_data, recipe_of, stage_of, tmp_path):
    """With a vanishing learning rate no epoch is better than the first."""
    stages = [
        stage_of(epochs=20, learning_rate=1e-12, unfreeze="none", early_stopping={"patience_epochs": 2}),
        stage_of(epochs=1),
    ]
    result, reports = run(recipe_of(stages), fold_data, tmp_path)
    assert result.finished
    assert [report.stage for report in reports] == [0, 0, 0, 1]


def test_a_loss_that_is_not_finite_rejects_the_trial(fold_data, recipe_of, stage_of, tmp_path):
    recipe = recipe_of([stage_of(epochs=3, optimizer={"name": "sgd", "learning_rate": 1.0})])
    nan_weights = tmp_path / "nan.npz"
    network = build_network(recipe, num_classes=8, image_shape_px=(32, 32), weights_file=None)
    NetworkWeights(weights=tuple([np.full_like(value, np.nan) for value in network.get_weights()])).write(nan_weights)
    with pytest.raises(TrialRejected, match="smaller learning rate") as caught:
        run(recipe, fold_data, tmp_path / "second", options=replace(OPTIONS, start_weights=nan_weights))
    assert caught.value.reason == "nan"
    assert not (tmp_path / "second" / "result.json").exists()


@pytest.mark.slow
def test_weights_ruined_by_the_last_step_reject_the_trial(fold_data, recipe_of, stage_of, tmp_path):
    """With one batch an epoch the training loss is computed before the step that ruins the weights."""
    recipe = recipe_of([stage_of(optimizer={"name": "sgd", "learning_rate": 1.0})], batch_size=4096)
    network = build_network(recipe, num_classes=8, image_shape_px=(32, 32), weights_file=None)
    weights = network.get_weights()
    NetworkWeights(weights=tuple([value * np.float32(1e18) if value.ndim == 2 else value for value in weights])).write(
        tmp_path / "huge.npz"
    )
    with pytest.raises(TrialRejected) as caught:
        run(recipe, fold_data, tmp_path / "second", options=replace(OPTIONS, start_weights=tmp_path / "huge.npz"))
    assert caught.value.reason == "nan"


@pytest.mark.slow
def test_a_time_limit_ends_the_training_with_its_learning_rate_decayed(fold_data, recipe_of, stage_of, tmp_path):
    recipe = recipe_of([stage_of(epochs=1000, schedule={"name": "cosine", "final_factor": 0.0})])
    clock, options = SimulatedClock(), replace(OPTIONS, limits=TimeLimits(training_seconds=30.0))
    result, reports = run(
        recipe, fold_data, tmp_path, options=options, should_stop=lambda: bool(clock.advance(1.0)), clock=clock
    )
    assert result.finished
    assert 30 <= result.seconds <= 31, "the batch that reaches the limit is the last"
    assert len(reports) == 3
    assert reports[-1].learning_rate < 0.1 * 5e-3
    assert Checkpoint.read(tmp_path / "checkpoint.npz").complete


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * 99])
def test_a_damaged_checkpoint_is_a_clear_error(fold_data, recipe_of, tmp_path, damage):
    (tmp_path / "checkpoint.npz").write_bytes(damage(b"PK\x03\x04" + bytes(400)))
    with pytest.raises(
        RunError, match=r"checkpoint\.npz: expected .*could not read it.*Delete it to start this training over"
    ):
        run(recipe_of(), fold_data, tmp_path)


@pytest.mark.slow
def test_a_training_starts_from_given_weights(fold_data, recipe_of, stage_of, tmp_path):
    first, _ = run(recipe_of([stage_of(epochs=6)]), fold_data, tmp_path / "a")
    options = replace(OPTIONS, start_weights=tmp_path / "a" / "best.npz")
    frozen = recipe_of([stage_of(epochs=1, learning_rate=1e-9, unfreeze="none")])
    second, _ = run(frozen, fold_data, tmp_path / "b", options=options)
    assert second.objective == pytest.approx(first.objective, abs=1e-6)


def test_too_many_blocks_are_an_error_before_anything_is_written(fold_data, recipe_of, stage_of, tmp_path):
    with pytest.raises(RecipeError, match=r"stages.0.unfreeze.blocks: expected 1 to 4 for own_cnn_4x16, got 5"):
        run(recipe_of([stage_of(unfreeze={"blocks": 5})]), fold_data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_weights_is_an_error(fold_data, recipe_of, tmp_path):
    (tmp_path / "no.weights.h5").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="expected weights of own_cnn_4x16"):
        run(recipe_of(), fold_data, tmp_path, options=replace(OPTIONS, weights_file=tmp_path / "no.weights.h5"))


@pytest.mark.slow
def test_a_batch_larger_than_the_data_still_trains(fold_data, recipe_of, tmp_path):
    result, reports = run(recipe_of(batch_size=4096), fold_data, tmp_path)
    assert result.finished
    assert len(reports) == 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_and_resumes(fold_data, recipe_of, stage_of, tmp_path, precision):
    recipe = recipe_of([stage_of(epochs=2)])
    options = replace(OPTIONS, device=Device(settings=DeviceSettings(precision=precision)))
    steps = train_epochs(recipe, fold_data, seed=0, options=options, folder=tmp_path, networks=NETWORKS)
    next(steps)
    steps.close()
    result, reports = run(recipe, fold_data, tmp_path, options=options)
    assert [report.epoch for report in reports] == [2]
    assert result.finished
    assert np.isfinite(result.evaluation.clean.loss)
    assert all(value.dtype == np.float32 for value in NetworkWeights.read(tmp_path / "best.npz").weights)
