"""Published systems made small."""

from __future__ import annotations

import pytest

from bloodauto.config.recipe import LastBlocks, LastLayers, Recipe, load_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.models.backbones import check_recipe, num_blocks, num_layers
from bloodauto.workflows.comparison.scaled_recipes import ScaledTraining, scaled


def shipped(name: str) -> Recipe:
    return load_recipe(shipped_folder("trials") / f"{name}.yaml")


def small(name: str, *, backbone: str = "mobilenet_0.25", epochs: int | None = 10, factor: float = 10.0) -> Recipe:
    return scaled(shipped(name), ScaledTraining(backbone, epochs, factor))


@pytest.mark.parametrize(
    "name", ["gradient_gangstars", "ynwa", "hyperbee", "dai_che_e_venerdi", "overfitting_exorcists_a"]
)
def test_only_backbone_epochs_rates_and_depth_change(name: str) -> None:
    declared, scaled_recipe = shipped(name), small(name)
    check_recipe(scaled_recipe)
    assert scaled_recipe.backbone.name == "mobilenet_0.25"
    for field in ("input", "head", "loss", "imbalance", "augmentation", "batch_size", "tta_transforms"):
        assert getattr(scaled_recipe, field) == getattr(declared, field), field
    for before, after in zip(declared.stages, scaled_recipe.stages, strict=True):
        assert (after.schedule, after.augmentation) == (before.schedule, before.augmentation)
        assert after.optimizer.name == before.optimizer.name


def test_unfreezing_keeps_its_fraction() -> None:
    before, after = shipped("gradient_gangstars"), small("gradient_gangstars")
    layers = after.stages[1].unfreeze
    assert isinstance(layers, LastLayers)
    assert layers.kinds == ("conv", "dense")
    fraction = 200 / num_layers(before.backbone)
    assert layers.layers == pytest.approx(fraction * num_layers(after.backbone), abs=1)
    blocks = small("ynwa").stages[1].unfreeze
    assert isinstance(blocks, LastBlocks)
    assert blocks.blocks == 2  # two of seven are more than one of five
    assert num_blocks(small("ynwa").backbone) == 5


def test_epochs_are_shared_in_proportion_and_every_stage_has_one() -> None:
    assert [stage.epochs for stage in small("gradient_gangstars").stages] == [5, 5]
    assert [stage.epochs for stage in small("hyperbee").stages] == [8, 2]
    assert [stage.epochs for stage in small("dai_che_e_venerdi", epochs=2).stages] == [1] * 6
    assert [stage.epochs for stage in small("hyperbee", epochs=None).stages] == [10, 3]


def test_rates_rise_to_what_an_optimizer_stands_and_never_fall() -> None:
    rates = [stage.optimizer.learning_rate for stage in small("hyperbee").stages]
    assert rates == pytest.approx([3e-3, 1e-3])
    assert [stage.optimizer.learning_rate for stage in small("ynwa").stages] == pytest.approx([5e-4, 3e-4])
    unchanged = [stage.optimizer.learning_rate for stage in small("ynwa", factor=1.0).stages]
    assert unchanged == pytest.approx([3e-4, 3e-5])
