"""What the cost of a training depends on, and estimates for networks that nobody has timed."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Recipe, Stage
from bloodauto.models.backbones import num_blocks, num_layers, num_parameters
from bloodauto.tuning.constants import BUDGET_CONSTANTS, BudgetConstants

#: What is measured together: the architecture of the backbone, and the image side in px.
CostKey = tuple[Backbone, int]


def cost_key(recipe: Recipe) -> CostKey:
    """What the seconds of a recipe's training depend on: its architecture and its image size.

    Args:
        recipe: The recipe.
    """
    return _architecture(recipe.backbone), recipe.input.size_px


@functools.lru_cache(maxsize=1024)
def _architecture(backbone: Backbone) -> Backbone:
    return backbone.model_copy(update={"weights": "none", "batch_norm": "train"})


def step_cost_fraction(backbone: Backbone, stage: Stage, constants: BudgetConstants = BUDGET_CONSTANTS) -> float:
    """The cost of a training step in a stage over one with the whole network unfrozen, 0-1.

    Args:
        backbone: The network.
        stage: The stage, of which only the unfrozen depth counts.
        constants: ``forward_fraction`` is used.
    """
    if stage.unfreeze == "all":
        return 1.0
    if stage.unfreeze == "none":
        return constants.forward_fraction
    if isinstance(stage.unfreeze, LastBlocks):
        depth = min(stage.unfreeze.blocks / num_blocks(backbone), 1.0)
    else:
        assert isinstance(stage.unfreeze, LastLayers)
        depth = min(stage.unfreeze.layers / num_layers(backbone), 1.0)
    return constants.forward_fraction + (1 - constants.forward_fraction) * depth


def estimate_seconds(
    measured: Mapping[CostKey, float], key: CostKey, constants: BudgetConstants = BUDGET_CONSTANTS
) -> float:
    """Estimates the seconds of a network that nobody has timed from those of others, at any image size.

    The logarithm of the seconds per pixel is taken to be linear in the logarithms of parameters and layers; the estimate is
    a Bayesian linear regression with the prior in ``constants``. The more networks were timed, and the nearer they are, the
    less the estimate exceeds the likeliest value.

    Args:
        measured: Seconds, above 0, by what was timed; at least one entry.
        key: What is estimated.
        constants: Prior, noise, and how far the estimate exceeds the likeliest value.

    Returns:
        Seconds, above 0.
    """
    rows = np.stack([_features(timed) for timed in measured])
    log_seconds = np.log([seconds / size_px**2 for (_, size_px), seconds in measured.items()])
    means = np.array([0.0, constants.parameter_exponent, constants.layer_exponent])
    deviations = np.array(
        [constants.machine_deviation, constants.parameter_exponent_deviation, constants.layer_exponent_deviation]
    )
    precision = np.diag(deviations**-2.0) + rows.T @ rows / constants.cost_noise**2
    covariance = np.linalg.inv(precision)
    weights = means + covariance @ rows.T @ (log_seconds - rows @ means) / constants.cost_noise**2
    features = _features(key)
    deviation = math.sqrt(float(features @ covariance @ features) + constants.cost_noise**2)
    return float(key[1] ** 2 * np.exp(features @ weights + constants.conservative_deviations * deviation))


def _features(key: CostKey) -> NDArray[np.float64]:
    backbone, _ = key
    return np.array([1.0, math.log(num_parameters(backbone)), math.log(num_layers(backbone))])
