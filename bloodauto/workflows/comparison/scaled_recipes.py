"""A published system made small enough to train anywhere: another backbone, fewer epochs, the rest as it is."""

from __future__ import annotations

import math

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Optimizer, Recipe, Stage
from bloodauto.models.backbones import num_blocks, num_layers

#: A shorter training has to learn faster; but no optimizer may be driven beyond what it stands.
_MAX_LEARNING_RATE = {"lion": 5e-4, "sgd": 0.1}
_DEFAULT_MAX_LEARNING_RATE = 3e-3


def scaled(recipe: Recipe, *, backbone: str, epochs: int | None, learning_rate_factor: float) -> Recipe:
    """The recipe on another backbone.

    Args:
        backbone: takes the place of the recipe's own. Stages that unfreeze some blocks or layers unfreeze the same share of
            its blocks or layers, at least one.
        epochs: of all stages together, shared in their proportions, each at least one; None: the recipe's own.
        learning_rate_factor: of every stage, up to 3e-3 (lion 5e-4, sgd 0.1), which keeps the stages' order.

    Head, loss, imbalance, augmentation, batch size, schedules and views stay.
    """
    small = Backbone(name=backbone, batch_norm=recipe.backbone.batch_norm)
    total = recipe.total_epochs
    stages = []
    for stage in recipe.stages:
        wanted = stage.epochs if epochs is None else max(1, round(epochs * stage.epochs / total))
        stages.append(
            stage.model_copy(
                update={
                    "epochs": wanted,
                    "unfreeze": _scaled_unfreezing(stage, recipe.backbone, small),
                    "optimizer": _scaled_optimizer(stage.optimizer, learning_rate_factor),
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
