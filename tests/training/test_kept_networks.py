"""Kept networks: a training that uses one again gives the numbers of one that builds its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from bloodauto.config.recipe import Recipe
from bloodauto.errors import TrialRejected
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.models.device import DeviceSettings
from bloodauto.run.artifacts import Checkpoint, NetworkWeights
from bloodauto.training.kept_networks import Architecture, KeptNetworks
from bloodauto.training.result import TrialResult
from bloodauto.training.trainer import TrainOptions, finish_training, ignore, train_epochs

OPTIONS = TrainOptions(objective="accuracy", average_last_epochs=True)
MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def recipes(recipe_of: MakeRecipe, stage_of: Callable[..., dict]) -> dict[str, Recipe]:
    """Of one architecture; they differ in everything that a kept step takes as a variable, and in what is trained."""
    backbone = {"name": "own_cnn", "weights": "none", "blocks": 2, "width": 4}

    def recipe(stages: list[dict], dropout: float = 0.0, **fields: object) -> Recipe:
        return recipe_of(stages, backbone=backbone, head={"dense_units": [4], "dropout": dropout}, **fields)

    def optimizer(name: str, **fields: object) -> dict:
        return {"name": name, "learning_rate": 0.01, **fields}

    return {
        "plain": recipe([stage_of(epochs=1)]),
        "dropout, adamw, smoothing": recipe(
            [stage_of(epochs=1, optimizer=optimizer("adamw", weight_decay=0.1), layer_decay=0.5)],
            dropout=0.5,
            loss={"label_smoothing": 0.1, "class_weights": "balanced"},
        ),
        "focal, lion, clipping": recipe(
            [stage_of(epochs=1, optimizer=optimizer("lion", clip_norm=0.1))],
            dropout=0.2,
            loss={"name": "focal", "gamma": 2.0, "alpha": 0.5},
        ),
        "two stages, ema": recipe(
            [
                stage_of(epochs=1, unfreeze="none", optimizer=optimizer("sgd", momentum=0.5)),
                stage_of(epochs=1, unfreeze={"blocks": 1}, weight_averaging="ema"),
            ],
            dropout=0.3,
        ),
    }


def train(recipe: Recipe, data: FoldData, folder: Path, networks: KeptNetworks | None, **arguments: Any) -> TrialResult:
    folder.mkdir(exist_ok=True)
    arguments = {"seed": 0, "options": OPTIONS, **arguments}
    return finish_training(train_epochs(recipe, data, folder=folder, networks=networks, **arguments), folder, ignore)


def trained(recipe: Recipe, data: FoldData, folder: Path, networks: KeptNetworks | None, seed: int = 0) -> tuple:
    """The losses of the epochs, and the weights that are kept."""
    result = train(recipe, data, folder, networks, seed=seed)
    return [report.train_loss for report in result.history], NetworkWeights.read(folder / "best.npz").weights


def assert_same(result: tuple, other: tuple) -> None:
    """To the bit."""
    assert result[0] == other[0]
    for a, b in zip(result[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def of_new_networks(recipes, fold_data, tmp_path_factory) -> dict[str, tuple]:
    folder = tmp_path_factory.mktemp("new")
    results = {}
    for name, recipe in recipes.items():
        # Keras' global generators are in another state each time, as in another process.
        keras.utils.set_random_seed(len(name))
        results[name] = trained(recipe, fold_data, folder / name, None)
    return results


@pytest.fixture(scope="module")
def networks() -> KeptNetworks:
    return KeptNetworks()


def test_whatever_was_trained_before_the_numbers_are_those_of_a_new_network(
    recipes, fold_data, of_new_networks, networks, tmp_path
):
    order = [*recipes, *reversed(recipes), "focal, lion, clipping"]
    for number, name in enumerate(order):
        assert_same(trained(recipes[name], fold_data, tmp_path / str(number), networks), of_new_networks[name])
    losses = {tuple(result[0]) for result in of_new_networks.values()}
    assert len(losses) == len(recipes), "the recipes differ"
    assert len(networks._networks) == 1


def test_another_seed_gives_other_numbers(recipes, fold_data, of_new_networks, networks, tmp_path):
    name = "dropout, adamw, smoothing"
    assert trained(recipes[name], fold_data, tmp_path / "a", networks, seed=1)[0] != of_new_networks[name][0]


def test_a_training_that_failed_leaves_nothing_behind(recipes, fold_data, of_new_networks, networks, tmp_path):
    """One whose loss was not a number, one that was stopped within an epoch, one whose generator was closed."""
    weights = [np.full_like(value, np.nan) for value in of_new_networks["plain"][1]]
    NetworkWeights(weights=tuple(weights)).write(tmp_path / "nan.npz")
    options = replace(OPTIONS, start_weights=tmp_path / "nan.npz")
    with pytest.raises(TrialRejected):
        train(recipes["plain"], fold_data, tmp_path / "nan", networks, options=options)
    stopped = train(
        recipes["focal, lion, clipping"], fold_data, tmp_path / "stopped", networks, should_stop=lambda: True
    )
    assert not stopped.finished
    (tmp_path / "closed").mkdir()
    epochs = train_epochs(
        recipes["two stages, ema"], fold_data, folder=tmp_path / "closed", seed=3, options=OPTIONS, networks=networks
    )
    next(epochs)
    epochs.close()
    for name in ("plain", "two stages, ema"):
        assert_same(trained(recipes[name], fold_data, tmp_path / name, networks), of_new_networks[name])


def test_a_training_resumes_on_a_kept_network(recipes, fold_data, networks, stage_of, tmp_path):
    plain = recipes["dropout, adamw, smoothing"]
    longer = plain.replace(stages=(plain.stages[0].replace(epochs=2, weight_averaging="ema"),))
    straight = trained(longer, fold_data, tmp_path / "straight", None)
    (tmp_path / "broken").mkdir()
    first = train_epochs(longer, fold_data, folder=tmp_path / "broken", seed=0, options=OPTIONS, networks=networks)
    next(first)
    first.close()
    trained(recipes["focal, lion, clipping"], fold_data, tmp_path / "between", networks)
    resumed = train(longer, fold_data, tmp_path / "broken", networks)
    weights = NetworkWeights.read(tmp_path / "broken" / "best.npz").weights
    assert_same(([report.train_loss for report in resumed.history], weights), straight)
    sizes = [np.size(variable) for variable in Checkpoint.read(tmp_path / "broken" / "checkpoint.npz").optimizer]
    assert sizes == [], "nothing of an optimizer is left to resume"


def test_two_trainings_at_a_time_have_networks_of_their_own(recipes, fold_data, of_new_networks, networks, tmp_path):
    (tmp_path / "first").mkdir()
    epochs = train_epochs(
        recipes["plain"], fold_data, folder=tmp_path / "first", seed=0, options=OPTIONS, networks=networks
    )
    next(epochs)
    name = "two stages, ema"
    assert_same(trained(recipes[name], fold_data, tmp_path / "two", networks), of_new_networks[name])
    with pytest.raises(StopIteration) as end:
        next(epochs)
    assert [report.train_loss for report in end.value.value.history] == of_new_networks["plain"][0]


def architecture(recipe: Recipe) -> Architecture:
    return Architecture(recipe, 8, (32, 32), None, DeviceSettings())


def test_the_network_unused_for_longest_goes_first_and_steps_are_bounded(recipe_of, stage_of):
    kept = KeptNetworks(max_steps=2)

    def use(width: int, *unfreeze: object) -> int:
        stages = [stage_of(unfreeze=each) for each in unfreeze]
        recipe = recipe_of(stages, backbone={"name": "own_cnn", "weights": "none", "blocks": 2, "width": width})
        with kept.borrow(architecture(recipe)) as trainable:
            for stage in recipe.stages:
                trainable.begin_stage(stage, recipe.loss)
            return id(trainable.network)

    narrow, wide = use(4, "all"), use(5, "all")
    assert use(4, "all", "all") == narrow
    use(6, "all")
    assert use(4, "all") == narrow, "used later than the wide one"
    assert use(6, "all", "none", {"blocks": 1}) != wide
    assert sum(trainable.num_steps for trainable in kept._networks.values()) == 2
    kept.clear()
    assert not kept._networks


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2_0.35", "efficientnet_b0", "xception"])
def test_initial_weights_and_dropout_depend_on_the_seed_alone(recipe_of, name):
    """No weight of a backbone is drawn by Keras' global generator, however it is made."""
    recipe = recipe_of(backbone={"name": name, "weights": "none"}, input={"size_px": 32}, head={"dropout": 0.1})
    states = []
    for global_seed in (1, 2):
        keras.utils.set_random_seed(global_seed)
        trainable = architecture(recipe).build()
        trainable.begin_training(recipe.head, 7, None)
        states.append([variable.numpy() for variable in trainable.network.variables])
    for value, other in zip(*states, strict=True):
        np.testing.assert_array_equal(value, other)
