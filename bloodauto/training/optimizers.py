"""Learning rates of a stage: over its time, and by depth of the network."""

from __future__ import annotations

import math

import keras

from bloodauto.config.recipe import Backbone, Schedule
from bloodauto.models.backbones import block_of_layers, num_blocks
from bloodauto.models.network import backbone_of

#: Smallest end of a geometric decay, which cannot reach 0.
_SMALLEST_FACTOR = 1e-6
#: Factor at the first step of a warm-up, which must not be 0.
_FIRST_WARMUP_FACTOR = 0.01


def learning_rate_factor(schedule: Schedule, progress: float) -> float:
    """The factor on the learning rate at a point of a stage; of a plateau, its warm-up alone.

    Args:
        schedule: The stage's schedule.
        progress: The fraction of the stage that is done; below 0 counts as 0, above 1 as 1.

    Example:
        >>> learning_rate_factor(Schedule(name="cosine", final_factor=0.0), 0.5)
        0.5
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < schedule.warmup_fraction:
        return max(progress / schedule.warmup_fraction, _FIRST_WARMUP_FACTOR)
    if schedule.name in ("constant", "plateau"):
        return 1.0
    after_warmup = (progress - schedule.warmup_fraction) / (1 - schedule.warmup_fraction)
    if schedule.name == "cosine":
        return schedule.final_factor + (1 - schedule.final_factor) * 0.5 * (1 + math.cos(math.pi * after_warmup))
    if schedule.name == "step":
        assert schedule.steps is not None
        after_warmup = min(math.floor(after_warmup * (schedule.steps + 1)), schedule.steps) / schedule.steps
    return float(max(schedule.final_factor, _SMALLEST_FACTOR) ** after_warmup)


def learning_rate_multipliers(network: keras.Model, backbone: Backbone, layer_decay: float) -> list[float]:
    """Factors on the learning rate by depth: discriminative learning rates (Howard & Ruder, arXiv:1801.06146).

    Deviation: they give each layer its rate; we give each block one, since the layers of a block differ in kind more than in
    depth. The head has the factor 1, the last block ``layer_decay``, the block before it ``layer_decay`` squared.

    Args:
        network: Made by ``build_network``; unfreeze before.
        backbone: Its backbone.
        layer_decay: Above 0 and up to 1.

    Returns:
        One factor for each of ``network.trainable_variables``, in their order.
    """
    base = backbone_of(network)
    blocks = block_of_layers(backbone, [layer.name for layer in base.layers])
    factors = {
        id(variable): layer_decay ** max(num_blocks(backbone) - block, 1)
        for layer, block in zip(base.layers, blocks, strict=True)
        for variable in layer.trainable_variables
    }
    return [factors.get(id(variable), 1.0) for variable in network.trainable_variables]
