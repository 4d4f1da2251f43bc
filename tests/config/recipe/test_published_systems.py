"""The shipped recipes of published systems: what they claim, and that they build the networks they name."""

from __future__ import annotations

from pathlib import Path

import pytest

import bloodauto
from bloodauto.config.objectives import parse_objectives
from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.shipped import find_space, shipped_folder
from bloodauto.config.space import parameters_of
from bloodauto.config.space.sampling import recipe_from_parameters
from bloodauto.models.backbones import check_recipe, num_parameters
from bloodauto.workflows.planning import load_checked_space, load_initial_configurations

TRIALS = shipped_folder("trials")
PUBLISHED = {
    file.stem: recipe
    for file in sorted(TRIALS.glob("*.yaml"))
    if (recipe := load_recipe(file)).source is not None and recipe.source.published
}
#: Parameters of backbone and head, counted by hand: pooled features p, then [2 or 4 p of batch normalisation,]
#: p * u + u for each dense layer, u * 8 + 8 for the classes.
HEADS = {
    "gradient_gangstars": 4 * 1536 + (1536 * 256 + 256) + (256 * 8 + 8),
    "ynwa": (1408 * 512 + 512) + (512 * 256 + 256) + (256 * 128 + 128) + (128 * 8 + 8),
    "dai_che_e_venerdi": 1024 * 8 + 8,
    "hyperbee": (1536 * 256 + 256) + (256 * 8 + 8),
    "overfitting_exorcists_a": 4 * 1280 + (1280 * 256 + 256) + (256 * 8 + 8),
    "overfitting_exorcists_b": 4 * 1280 + (1280 * 256 + 256) + (256 * 8 + 8),
}
BACKBONES = {
    "convnext_large": 196_230_336,
    "efficientnet_b2": 7_768_569,
    "densenet121": 7_037_504,
    "efficientnet_v2_s": 20_331_360,
}
HIDDEN = {
    "gradient_gangstars": 0.86,
    "ynwa": 0.90,
    "dai_che_e_venerdi": 0.92,
    "hyperbee": 0.88,
    "overfitting_exorcists_a": 0.92,
    "overfitting_exorcists_b": 0.92,
}


def test_all_six_are_there_with_their_figure_on_the_hidden_set() -> None:
    hidden = {name: recipe.source.published["hidden_accuracy"] for name, recipe in PUBLISHED.items() if recipe.source}
    assert hidden == HIDDEN


@pytest.mark.parametrize("name", HIDDEN)
def test_each_says_what_it_could_not_follow_and_how_it_is_trained(name: str) -> None:
    source = PUBLISHED[name].source
    assert source is not None
    assert source.title
    assert source.deviations_from_source
    assert source.command.startswith(f"bloodauto train trials/{name}.yaml --data ")
    figures = [
        *source.published.items(),
        *(item for table in source.published_tables.values() for item in table.items()),
    ]
    for key, value in source.published.items():
        assert 0 < value <= 1 or "millions" in key or key.startswith("images"), key
    assert all(value > 0 for _, value in figures)


@pytest.mark.parametrize("file", sorted(TRIALS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_recipe_has_a_quick_variant_without_weights(file: Path) -> None:
    quick = load_recipe(file, smoke=True)
    check_recipe(quick)
    assert quick.backbone.weights == "none"
    assert quick.total_epochs <= 2 * len(quick.stages)
    assert num_parameters(quick.backbone) < 500_000
    declared = load_recipe(file)
    assert len(quick.stages) == len(declared.stages)
    for field in ("loss", "imbalance", "augmentation", "tta_transforms"):
        assert getattr(quick, field) == getattr(declared, field), (
            f"{field}: the quick variant must try what is declared"
        )


@pytest.mark.parametrize("name", HIDDEN)
def test_backbones_are_the_reported_ones(name: str) -> None:
    recipe = PUBLISHED[name]
    assert num_parameters(recipe.backbone) == BACKBONES[recipe.backbone.name]
    assert recipe.input.size_px == 96
    assert recipe.backbone.weights == "imagenet"


def test_what_the_reports_say_of_training_is_what_the_recipes_say() -> None:
    gangstars, ynwa, dai = (PUBLISHED[name] for name in ("gradient_gangstars", "ynwa", "dai_che_e_venerdi"))
    hyperbee, first, second = (
        PUBLISHED[name] for name in ("hyperbee", "overfitting_exorcists_a", "overfitting_exorcists_b")
    )
    assert [stage.epochs for stage in gangstars.stages] == [400, 400]
    assert {stage.early_stopping.patience_epochs for stage in gangstars.stages if stage.early_stopping} == {20}
    assert gangstars.stages[1].unfreeze.layers == 200  # type: ignore[union-attr]
    assert gangstars.stages[1].schedule.final_factor == pytest.approx(1e-5 / 1e-4)
    assert gangstars.loss.name == "focal"
    assert {stage.optimizer.name for stage in ynwa.stages} == {"lion"}
    assert ynwa.stages[1].unfreeze.blocks == 7 - 5  # type: ignore[union-attr]
    assert (ynwa.head.activation, len(ynwa.head.dense_units)) == ("leaky_relu", 3)
    assert [stage.optimizer.name for stage in dai.stages] == ["lion"] + ["nadam"] * 5
    fractions = [block.offline.fraction for stage in dai.stages if (block := stage.augmentation) and block.offline]
    assert fractions == sorted(fractions)
    assert len(set(fractions)) == 5
    assert len(dai.tta_transforms) > 1
    assert (hyperbee.augmentation.fraction, hyperbee.imbalance.sampling) == (0.8, "synthesise")
    assert [stage.epochs for stage in hyperbee.stages] == [10, 3]
    assert hyperbee.stages[1].unfreeze.layers == 30  # type: ignore[union-attr]
    for recipe in (first, second):
        assert (recipe.loss.gamma, recipe.loss.class_weights, recipe.batch_size) == (2.0, "balanced", 32)
        assert (recipe.head.normalisation, recipe.head.dense_units) == ("batch", (256,))
        assert recipe.head.l2 > 0
    assert (len(first.augmentation.steps), len(second.augmentation.steps)) == (4, 1)


def test_one_shipped_space_holds_them_all() -> None:
    space = load_checked_space(find_space("reports"))
    assert set(HIDDEN) <= {
        name for name, _ in load_initial_configurations("shipped", space, parse_objectives("shift")).in_space
    }
    for recipe in PUBLISHED.values():
        assert recipe_from_parameters(space, parameters_of(space, recipe)).id == recipe.id


def network_parameters(recipe: Recipe) -> int:
    import keras

    from bloodauto.models.network import build_network

    keras.backend.clear_session()
    network = build_network(recipe, num_classes=8, image_shape_px=(96, 96), weights_file=None)
    assert network.output_shape == (None, 8)
    return int(network.count_params())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", HIDDEN)
def test_each_builds_its_exact_network(name: str) -> None:
    recipe = PUBLISHED[name]
    assert network_parameters(recipe) == BACKBONES[recipe.backbone.name] + HEADS[name]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_exorcists_counts_are_the_published_ones_for_every_backbone_of_theirs() -> None:
    recipe = PUBLISHED["overfitting_exorcists_a"]
    assert recipe.source is not None
    published = recipe.source.published_tables["parameters_millions_by_backbone"]
    for backbone, millions in published.items():
        built = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"name": backbone})})
        decimals = 2 if millions < 10 else 1
        assert round(network_parameters(built) / 1e6, decimals) == millions, backbone


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", HIDDEN)
def test_each_quick_variant_trains_without_weights_and_without_images(name: str, tmp_path: Path) -> None:
    summary = bloodauto.train(name, run_dir=tmp_path / "run", smoke=True, seed=2)
    quick = load_recipe(TRIALS / f"{name}.yaml", smoke=True)
    assert summary.result.finished
    # Patience may end a stage early; no stage is left out.
    assert {epoch.stage for epoch in summary.result.history} == set(range(len(quick.stages)))
    assert load_recipe(tmp_path / "run" / "recipe.yaml").id == quick.id
    assert summary.forward_passes == max(len(quick.tta_transforms), 1)
    assert (summary.with_tta is not None) == bool(quick.tta_transforms)
    # Where the second stage has two epochs, it learns.
    losses = [epoch.train_loss for epoch in summary.result.history if epoch.stage == 1]
    assert len(losses) == 1 or losses[-1] < losses[0]
