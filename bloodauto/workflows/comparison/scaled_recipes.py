"""A recipe made smaller, so that it trains anywhere: another backbone and fewer epochs; the rest stays."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Optimizer, Recipe, Stage
from bloodauto.models.backbones import num_blocks, num_layers

#: Highest scaled learning rates: a shorter training needs a larger rate, but above these an optimizer diverges.
_MAX_LEARNING_RATE = {"lion": 5e-4, "sgd": 0.1}
_DEFAULT_MAX_LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class ScaledTraining:
    """How a recipe is made smaller.

    Attributes:
        backbone: Replaces the recipe's own. Stages that unfreeze some blocks or layers unfreeze the same fraction of this one's
            blocks or layers, at least one.
        epochs: Epochs of all stages together, divided in their proportions, each at least one; None: the recipe's own.
        learning_rate_factor: Factor on the learning rate of every stage, up to 3e-3 (lion 5e-4, sgd 0.1).

    Example:
        >>> ScaledTraining("mobilenet_0.25", epochs=10)
        ScaledTraining(backbone='mobilenet_0.25', epochs=10, learning_rate_factor=10.0)
    """

    backbone: str
    epochs: int | None = None
    learning_rate_factor: float = 10.0


def scaled(recipe: Recipe, scale: ScaledTraining) -> Recipe:
    """The recipe made smaller.

    Head, loss, imbalance, augmentation, batch size, schedules and test-time augmentation stay.

    Args:
        recipe: Any recipe.
        scale: Backbone, epochs and learning rates.

    Returns:
        A new recipe.
    """
    small = Backbone(name=scale.backbone, batch_norm=recipe.backbone.batch_norm)
    total = recipe.total_epochs
    stages = []
    for stage in recipe.stages:
        epochs = stage.epochs if scale.epochs is None else max(1, round(scale.epochs * stage.epochs / total))
        stages.append(
            stage.model_copy(
                update={
                    "epochs": epochs,
                    "unfreeze": _scaled_unfreezing(stage, recipe.backbone, small),
                    "optimizer": _scaled_optimizer(stage.optimizer, scale.learning_rate_factor),
                }
            )
        )
    return recipe.model_copy(update={"backbone": small, "stages": tuple(stages)})


def _scaled_optimizer(optimizer: Optimizer, factor: float) -> Optimizer:
    highest = _MAX_LEARNING_RATE.get(optimizer.name, _DEFAULT_MAX_LEARNING_RATE)
    rate = max(min(optimizer.learning_rate * factor, highest), optimizer.learning_rate)
    return optimizer.model_copy(update={"learning_rate": rate})


def _scaled_unfreezing(stage: Stage, original: Backbone, small: Backbone) -> object:
    unfreeze = stage.unfreeze
    if isinstance(unfreeze, LastBlocks):
        return unfreeze.model_copy(
            update={"blocks": _same_fraction(unfreeze.blocks, num_blocks(original), num_blocks(small))}
        )
    if isinstance(unfreeze, LastLayers):
        return unfreeze.model_copy(
            update={"layers": _same_fraction(unfreeze.layers, num_layers(original), num_layers(small))}
        )
    return unfreeze


def _same_fraction(count: int, total: int, small_total: int) -> int:
    return min(math.ceil(small_total * count / total), small_total)
