"""Schedules, optimizers, decoupled weight decay, and learning rates by depth."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import Optimizer, Recipe, Schedule
from bloodauto.models.backbones import block_of_layers
from bloodauto.models.network import apply_unfreeze, backbone_of, build_network
from bloodauto.training.fused_optimizer import FusedOptimizer
from bloodauto.training.optimizers import learning_rate_factor, learning_rate_multipliers

OPTIMIZERS = ["adam", "adamw", "nadam", "lion", "sgd", "rmsprop"]


def test_schedules_at_known_points():
    cosine = Schedule(name="cosine", warmup_fraction=0.2, final_factor=0.1)
    assert [learning_rate_factor(cosine, at) for at in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1.0, 0.55, 0.1])
    exponential = Schedule(name="exponential", final_factor=0.01)
    assert [learning_rate_factor(exponential, at) for at in (0, 0.5, 1)] == pytest.approx([1, 0.1, 0.01])
    constant = Schedule(name="constant", warmup_fraction=0.5)
    assert [learning_rate_factor(constant, at) for at in (0, 0.25, 0.5, 1)] == pytest.approx([0.01, 0.5, 1, 1])
    step = Schedule(name="step", steps=2, final_factor=0.01)
    at = (0, 0.33, 0.34, 0.66, 0.67, 1)
    assert [learning_rate_factor(step, progress) for progress in at] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    plateau = Schedule(name="plateau", metric="loss", factor=0.5, patience_epochs=2, warmup_fraction=0.2)
    assert [learning_rate_factor(plateau, progress) for progress in (0.1, 0.2, 1)] == pytest.approx([0.5, 1, 1])


@given(
    schedule=st.sampled_from(
        [{"name": "constant"}, {"name": "cosine"}, {"name": "exponential"}, {"name": "step", "steps": 3}]
    ),
    warmup=st.floats(0, 0.5),
    final=st.floats(0, 1),
    progress=st.floats(-0.1, 1.1),
)
def test_a_factor_is_never_0_at_the_start_nor_above_1(schedule, warmup, final, progress):
    schedule = Schedule(**schedule, warmup_fraction=warmup, final_factor=final)
    factor = learning_rate_factor(schedule, progress)
    assert 0 <= factor <= 1 + 1e-12
    assert learning_rate_factor(schedule, 0.0) > 0
    if warmup <= progress <= 1 and schedule.name != "constant":
        assert learning_rate_factor(schedule, 1.0) <= factor + 1e-12


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_downhill(name, decay):
    optimizer = FusedOptimizer(Optimizer(name=name, learning_rate=0.05, weight_decay=decay, clip_norm=1.0))
    kernel = keras.Variable(np.full((3, 2), 2.0, np.float32), name="kernel")
    for _ in range(5):
        before = kernel.numpy()
        optimizer.apply([keras.ops.convert_to_tensor(2 * before)], [kernel])
        assert (kernel.numpy() < before).all()
        assert (kernel.numpy() > 0).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_is_decoupled_and_skips_biases_and_normalisation(name):
    """Without a gradient nothing but the decay acts: the kernel shrinks by rate x decay, the others stay."""
    optimizer = FusedOptimizer(Optimizer(name=name, learning_rate=0.1, weight_decay=0.2))
    variables = [keras.Variable(np.ones(4, np.float32), name=part) for part in ("kernel", "bias", "gamma", "beta")]
    optimizer.apply([keras.ops.zeros(4)] * 4, variables)
    np.testing.assert_allclose(variables[0].numpy(), 1 - 0.1 * 0.2, rtol=1e-5)
    for no_decay in variables[1:]:
        np.testing.assert_array_equal(no_decay.numpy(), 1)


def test_gradients_are_clipped_by_their_norm():
    optimizer = FusedOptimizer(Optimizer(name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=0.5))
    kernels = [keras.Variable(np.zeros(1, np.float32), name="kernel") for _ in range(2)]
    optimizer.apply([keras.ops.convert_to_tensor(np.array([size], np.float32)) for size in (30.0, 40.0)], kernels)
    moved = -np.array([kernel.numpy()[0] for kernel in kernels])
    np.testing.assert_allclose(moved, [0.3, 0.4], rtol=1e-5, err_msg="one norm over all weights")


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_momentum_carries_on_where_the_gradient_ends(name):
    moved = {}
    for momentum in (0.0, 0.9):
        optimizer = FusedOptimizer(Optimizer(name=name, learning_rate=0.1, momentum=momentum))
        kernel = keras.Variable(np.zeros(1, np.float32), name="kernel")
        optimizer.apply([keras.ops.ones(1)], [kernel])
        after_first = kernel.numpy().copy()
        optimizer.apply([keras.ops.zeros(1)], [kernel])
        moved[momentum] = float((kernel.numpy() - after_first)[0])
    assert moved[0.0] == 0
    assert moved[0.9] < 0


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_multiplier_acts_as_a_lower_learning_rate(name, decay):
    """Step by step as an optimizer of its own for each variable, weight decay included."""
    rate_multipliers, rng = (1.0, 0.5, 0.01), np.random.default_rng(0)
    settings = {"name": name, "weight_decay": decay}
    names = ("kernel", "kernel", "bias")
    together = [keras.Variable(np.ones(3, np.float32), name=variable) for variable in names]
    alone = [keras.Variable(np.ones(3, np.float32), name=variable) for variable in names]
    joint = FusedOptimizer(Optimizer(learning_rate=0.1, **settings), rate_multipliers)
    single = [FusedOptimizer(Optimizer(learning_rate=0.1 * factor, **settings)) for factor in rate_multipliers]
    for _ in range(4):
        gradients = [keras.ops.convert_to_tensor(rng.normal(size=3).astype(np.float32)) for _ in rate_multipliers]
        joint.apply(gradients, together)
        for optimizer, gradient, variable in zip(single, gradients, alone, strict=True):
            optimizer.apply([gradient], [variable])
    for jointly, separately in zip(together, alone, strict=True):
        np.testing.assert_allclose(jointly.numpy(), separately.numpy(), rtol=1e-5)
        assert not np.allclose(jointly.numpy(), 1)


def multipliers_by_block(recipe: Recipe) -> dict[int | None, set[float]]:
    """The multipliers of each block's variables; None stands for the head."""
    network = build_network(recipe, num_classes=8, image_shape_px=(32, 32), weights_file=None)
    apply_unfreeze(network, recipe.backbone, recipe.stages[0])
    multipliers = learning_rate_multipliers(network, recipe.backbone, recipe.stages[0].layer_decay)
    assert len(multipliers) == len(network.trainable_variables)
    base = backbone_of(network)
    blocks = block_of_layers(recipe.backbone, [layer.name for layer in base.layers])
    block_of_variable = {
        id(variable): block
        for layer, block in zip(base.layers, blocks, strict=True)
        for variable in layer.trainable_variables
    }
    by_block: dict[int | None, set[float]] = {}
    for variable, multiplier in zip(network.trainable_variables, multipliers, strict=True):
        by_block.setdefault(block_of_variable.get(id(variable)), set()).add(multiplier)
    return by_block


def test_rates_fall_block_by_block_from_the_head_down(recipe_of, stage_of):
    multipliers = multipliers_by_block(recipe_of([stage_of(layer_decay=0.5)], head={"dense_units": [4]}))
    assert multipliers == {None: {1.0}, 3: {0.5}, 2: {0.25}, 1: {0.125}, 0: {0.0625}}


def test_frozen_blocks_have_no_multiplier(recipe_of, stage_of):
    multipliers = multipliers_by_block(recipe_of([stage_of(layer_decay=0.5, unfreeze={"blocks": 2})]))
    assert multipliers == {None: {1.0}, 3: {0.5}, 2: {0.25}}


@pytest.mark.parametrize("name", ["mobilenet_0.25", "mobilenet_v2_0.35"])
def test_known_backbones_learn_slowest_at_the_image(recipe_of, stage_of, name):
    recipe = recipe_of([stage_of(layer_decay=0.7)], backbone={"name": name, "weights": "none"})
    multipliers = multipliers_by_block(recipe)
    by_depth = [multipliers[block] for block in sorted(block for block in multipliers if block is not None)]
    assert all(len(rates) == 1 for rates in by_depth)
    np.testing.assert_allclose([rates.pop() for rates in by_depth], 0.7 ** np.arange(len(by_depth), 0, -1))
