"""What the stages of a training do: averages, what the next starts from, plateaus, rates by block, sampling."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.errors import RecipeError
from bloodauto.evaluation.evaluator import Evaluator
from bloodauto.models.device import DeviceSettings
from bloodauto.models.network import build_network
from bloodauto.run.artifacts import Checkpoint, NetworkWeights
from bloodauto.training.kept_networks import Architecture, KeptNetworks
from bloodauto.training.trainer import TrainOptions, finish_training, ignore, train_epochs

#: Every test trains networks.
pytestmark = pytest.mark.slow

OPTIONS = TrainOptions(objective="accuracy")
#: Networks that these tests share: tracing one takes longer than most of the trainings here.
NETWORKS = KeptNetworks()


def epochs_of(recipe, fold_data, folder, should_stop=lambda: False):
    """The training, epoch by epoch."""
    return train_epochs(
        recipe, fold_data, seed=0, options=OPTIONS, folder=folder, should_stop=should_stop, networks=NETWORKS
    )


def run(recipe, fold_data, folder, should_stop=lambda: False):
    """The result."""
    return finish_training(epochs_of(recipe, fold_data, folder, should_stop), folder, ignore)


@pytest.fixture
def tiny_of(recipe_of):
    """As ``recipe_of``, of a network of two blocks that is built in a moment."""

    def tiny(stages=None, **fields):
        return recipe_of(stages, backbone={"name": "own_cnn", "weights": "none", "blocks": 2, "width": 4}, **fields)

    return tiny


@pytest.mark.parametrize(
    "change",
    [
        {"weight_averaging": "ema"},
        {"weight_averaging": "swa"},
        {"layer_decay": 0.6, "optimizer": {"name": "nadam", "learning_rate": 3e-3, "weight_decay": 0.01}},
        {"schedule": {"name": "plateau", "metric": "loss", "factor": 0.3, "patience_epochs": 1}, "learning_rate": 0.1},
    ],
    ids=["ema", "swa", "layer-decay", "plateau"],
)
def test_whatever_a_stage_remembers_survives_a_kill(fold_data, tiny_of, stage_of, tmp_path, change):
    """What lies in the folder after an epoch is what a kill leaves; from it the training reaches the same end."""
    recipe = tiny_of([stage_of(epochs=5, **change)], imbalance={"sampling": "oversample"})
    straight = epochs_of(recipe, fold_data, tmp_path / "straight")
    reports = []
    for report in straight:
        reports.append(report)
        if report.epoch == 4:
            shutil.copytree(tmp_path / "straight", tmp_path / "broken")
    resumed = run(recipe, fold_data, tmp_path / "broken")
    value, other = reports[-1], resumed.history[-1]
    assert len(resumed.history) == 5
    assert value.learning_rate == pytest.approx(other.learning_rate, rel=1e-6)
    assert value.train_loss == pytest.approx(other.train_loss, rel=1e-3)
    ends = [Checkpoint.read(tmp_path / name / "checkpoint.npz").weights for name in ("straight", "broken")]
    for value, other in zip(*ends, strict=True):
        np.testing.assert_allclose(value, other, atol=2e-3)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_average_is_evaluated_and_kept(fold_data, tiny_of, stage_of, tmp_path, kind):
    recipe = tiny_of([stage_of(epochs=2, weight_averaging=kind, restore_best=False)])
    steps = epochs_of(recipe, fold_data, tmp_path)
    next(steps)
    middle = Checkpoint.read(tmp_path / "checkpoint.npz")
    kept = NetworkWeights.read(tmp_path / "best.npz").weights
    differ = [not np.array_equal(value, other) for value, other in zip(middle.weights, kept, strict=True)]
    assert all(differ) if kind == "ema" else not any(differ), "an swa begins in the last quarter"
    assert bool(middle.averages) is (kind == "ema")
    next(steps)
    end = Checkpoint.read(tmp_path / "checkpoint.npz")
    kept = NetworkWeights.read(tmp_path / "best.npz").weights
    for value, other in zip(end.weights, kept, strict=True):
        np.testing.assert_array_equal(value, other, err_msg="what comes after a stage starts from its average")
    with pytest.raises(StopIteration) as ended:
        next(steps)
    network = build_network(recipe, num_classes=8, image_shape_px=(32, 32), weights_file=None)
    network.set_weights(kept)
    evaluation, reported = Evaluator(fold_data, SYSTEM_CLOCK).evaluate(network), ended.value.value.evaluation
    assert (evaluation.clean, evaluation.shifted) == (reported.clean, reported.shifted)


@pytest.mark.parametrize("restore", [True, False])
def test_the_next_stage_starts_from_the_best_epoch_or_the_last(fold_data, tiny_of, stage_of, tmp_path, restore):
    """While the rate still rises the network learns; at its height it forgets."""
    first = stage_of(
        epochs=4,
        optimizer={"name": "sgd", "learning_rate": 1.0, "momentum": 0.99},
        schedule={"name": "constant", "warmup_fraction": 0.5},
        early_stopping={"metric": "loss", "patience_epochs": 9},
        restore_best=restore,
    )
    recipe = tiny_of([first, stage_of(epochs=1, learning_rate=1e-12, unfreeze="none")])
    steps = epochs_of(recipe, fold_data, tmp_path)
    saved, losses = [], []
    for report in steps:
        saved.append(Checkpoint.read(tmp_path / "checkpoint.npz"))
        losses.append(report.loss)
        if len(saved) == 4:
            break
    steps.close()
    best = int(np.argmin(losses))
    assert best < 3, f"the test needs an earlier best epoch, got losses {losses}"
    same_as_best = all(
        np.array_equal(value, other) for value, other in zip(saved[3].weights, saved[best].weights, strict=True)
    )
    assert same_as_best is restore
    assert saved[3].stage == 1
    assert saved[3].stage_best == ()
    assert bool(saved[2].stage_best) is restore


def test_a_plateau_lowers_the_rate(fold_data, tiny_of, stage_of, tmp_path):
    plateau = {"name": "plateau", "metric": "accuracy", "factor": 0.1, "patience_epochs": 1, "final_factor": 0.02}
    recipe = tiny_of([stage_of(epochs=4, learning_rate=1e-12, unfreeze="none", schedule=plateau)])
    result = run(recipe, fold_data, tmp_path)
    rates = [report.learning_rate for report in result.history]
    assert rates == pytest.approx([1e-12, 1e-12, 1e-13, 2e-14], rel=1e-4)
    assert [report.stage_progress for report in result.history] == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=1e-4)


def test_low_layers_move_less(fold_data, tiny_of, stage_of, tmp_path):
    recipe = tiny_of([stage_of(epochs=1, learning_rate=1e-3, layer_decay=0.1)])
    run(recipe, fold_data, tmp_path)
    trainable = Architecture(recipe, 8, (32, 32), None, DeviceSettings()).build()
    trainable.begin_training(recipe.head, seed=0, start_weights=None)
    start, end = trainable.network.get_weights(), NetworkWeights.read(tmp_path / "best.npz").weights
    steps = len(fold_data.train_index) // 16
    first, last = (float(np.abs(end[position] - start[position]).max()) for position in (0, -1))
    assert 0 < first <= 1.05 * steps * 1e-3 * 0.1**2
    assert last > 20 * first


@pytest.mark.parametrize("sampling", ["oversample", "undersample", "smote", "borderline_smote", "synthesise"])
def test_an_epoch_has_as_many_steps_whatever_the_sampling(fold_data, tiny_of, stage_of, tmp_path, sampling):
    calls = []
    recipe = tiny_of([stage_of(epochs=1, unfreeze="none")], imbalance={"sampling": sampling})
    result = run(recipe, fold_data, tmp_path, should_stop=lambda: bool(calls.append(1)))
    assert result.finished
    assert len(calls) == len(fold_data.train_index) // 16


def test_factors_for_other_classes_are_told_before_anything_is_written(fold_data, tiny_of, tmp_path):
    with pytest.raises(RecipeError, match=r"loss\.alpha: expected 8 factors, one for each class, got 2"):
        run(tiny_of(loss={"name": "focal", "gamma": 2.0, "alpha": [0.5, 0.5]}), fold_data, tmp_path)
    assert list(tmp_path.iterdir()) == []
