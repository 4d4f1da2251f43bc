"""The average of the last epochs' weights is kept where it is better, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.config.recipe import Stage
from bloodauto.run.artifacts import Checkpoint, NetworkWeights
from bloodauto.training.averaging import may_gain_from_averaging
from bloodauto.training.kept_networks import KeptNetworks
from bloodauto.training.trainer import TrainOptions, finish_training, ignore, train_epochs

OPTIONS = TrainOptions(objective="accuracy", average_last_epochs=True)
#: Networks that these tests share: tracing one takes longer than the trainings here.
NETWORKS = KeptNetworks()


def _train(recipe, fold_data, folder, options=OPTIONS):
    folder.mkdir(exist_ok=True)
    epochs = train_epochs(recipe, fold_data, seed=0, options=options, folder=folder, networks=NETWORKS)
    return finish_training(epochs, folder, ignore)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schedule": {"name": "constant"}}, True),
        ({"schedule": {"name": "cosine"}}, False),
        ({"schedule": {"name": "cosine", "final_factor": 0.5}}, True),
        ({"schedule": {"name": "constant"}, "weight_averaging": "ema"}, False),
        ({"schedule": {"name": "constant"}, "restore_best": False}, False),
    ],
)
def test_averaging_is_tried_where_the_rate_stays_high_and_the_recipe_leaves_it_open(fields, expected):
    stage = Stage.model_validate({"epochs": 4, "optimizer": {"name": "adam", "learning_rate": 1e-3}, **fields})
    assert may_gain_from_averaging(stage) is expected


@pytest.mark.slow
def test_what_is_better_is_kept_and_a_repeated_end_keeps_the_same(fold_data, recipe_of, stage_of, tmp_path):
    recipe = recipe_of([stage_of(epochs=4, learning_rate=1e-2)])
    result = _train(recipe, fold_data, tmp_path)
    averaged = result.averaged_epochs
    assert averaged is not None
    assert averaged.epochs == 2, "those of the last quarter"
    assert averaged.kept_objective == max(report.objective for report in result.history)
    assert averaged.adopted is (averaged.objective > averaged.kept_objective)

    # A search that is killed before it hears of the end asks again; the training is over, and is judged once more.
    kept = NetworkWeights.read(tmp_path / "best.npz").weights
    saved = Checkpoint.read(tmp_path / "checkpoint.npz")
    assert saved is not None
    assert saved.average_steps == 2
    again = _train(recipe, fold_data, tmp_path)
    assert again.averaged_epochs is not None
    assert again.averaged_epochs.objective == pytest.approx(averaged.objective, abs=0.03)
    for value, other in zip(kept, NetworkWeights.read(tmp_path / "best.npz").weights, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-4)

    plain = _train(recipe, fold_data, tmp_path / "plain", TrainOptions(objective="accuracy"))
    assert plain.averaged_epochs is None
    assert [report.objective for report in plain.history] == [report.objective for report in result.history]
    if not averaged.adopted:
        assert plain.objective == result.objective


@pytest.mark.slow
def test_the_average_has_the_mean_weights_of_the_last_epochs(fold_data, recipe_of, stage_of, tmp_path):
    """With a rate that makes the weights wander, their mean is better than any of them."""
    recipe = recipe_of([stage_of(epochs=8, learning_rate=3e-2)], batch_size=8)
    result = _train(recipe, fold_data, tmp_path)
    averaged, saved = result.averaged_epochs, Checkpoint.read(tmp_path / "checkpoint.npz")
    assert averaged is not None
    assert saved is not None
    assert averaged.epochs == 3
    kept = NetworkWeights.read(tmp_path / "best.npz").weights
    of_average = [any(np.array_equal(value, other) for other in kept) for value in saved.averages]
    assert all(of_average) is averaged.adopted
