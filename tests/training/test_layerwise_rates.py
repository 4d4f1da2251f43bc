from __future__ import annotations

import numpy as np
import pytest

from bloodauto.models.backbones import block_of_layers
from bloodauto.models.network import apply_unfreeze, backbone_of, build_network
from bloodauto.training.layerwise_rates import learning_rate_multipliers


def shares_by_block(recipe) -> dict[int | None, set[float]]:
    """The shares of each block's variables; None stands for the head."""
    network = build_network(recipe, num_classes=8, image_shape_px=(32, 32), weights_file=None)
    apply_unfreeze(network, recipe.backbone, recipe.stages[0])
    decay = recipe.stages[0].layer_decay
    rate_multipliers = learning_rate_multipliers(network, recipe.backbone, decay)
    assert len(rate_multipliers) == len(network.trainable_variables)
    base = backbone_of(network)
    blocks = block_of_layers(recipe.backbone, [layer.name for layer in base.layers])
    place = {
        id(variable): block
        for layer, block in zip(base.layers, blocks, strict=True)
        for variable in layer.trainable_variables
    }
    found: dict[int | None, set[float]] = {}
    for variable, share in zip(network.trainable_variables, rate_multipliers, strict=True):
        found.setdefault(place.get(id(variable)), set()).add(share)
    return found


def test_rates_fall_block_by_block_from_the_head_down(recipe_of, stage_of):
    found = shares_by_block(recipe_of([stage_of(layer_decay=0.5)], head={"dense_units": [4]}))
    assert found == {None: {1.0}, 3: {0.5}, 2: {0.25}, 1: {0.125}, 0: {0.0625}}


def test_frozen_blocks_have_no_share(recipe_of, stage_of):
    found = shares_by_block(recipe_of([stage_of(layer_decay=0.5, unfreeze={"blocks": 2})]))
    assert found == {None: {1.0}, 3: {0.5}, 2: {0.25}}


@pytest.mark.parametrize("name", ["mobilenet_0.25", "mobilenet_v2_0.35"])
def test_known_backbones_learn_slowest_at_the_image(recipe_of, stage_of, name):
    found = shares_by_block(recipe_of([stage_of(layer_decay=0.7)], backbone={"name": name, "weights": "none"}))
    in_order = [found[block] for block in sorted(block for block in found if block is not None)]
    assert all(len(one) == 1 for one in in_order)
    rates = [one.pop() for one in in_order]
    np.testing.assert_allclose(rates, 0.7 ** np.arange(len(rates), 0, -1))
