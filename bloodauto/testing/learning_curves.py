"""Learning curves for the simulated executor, generated from a seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.executors.simulated import CurvePoint


@dataclass(frozen=True)
class GeneratedCurves:
    """Power-law learning curves whose limit depends on the recipe (one of the forms of Domhan et al., IJCAI 2015).

    Attributes:
        seed: Seed of limits and noise.
        epoch_seconds: Seconds of an epoch's training, by the label of the backbone.
        evaluation_seconds: Seconds of an evaluation, of every backbone.
        noise: Seconds vary evenly by up to this fraction; objectives always have a standard deviation of 0.01.

    Example:
        >>> from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
        >>> curves = GeneratedCurves(seed=1, epoch_seconds={"own_cnn_4x16": 4.0})
        >>> curves(tiny_recipe(tiny_space()), seed=0, epoch=1).train_seconds
        4.0
    """

    seed: int
    epoch_seconds: Mapping[str, float]
    evaluation_seconds: float = 0.5
    noise: float = 0.0

    def __call__(self, recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        """One epoch of a training; the same arguments always give the same.

        Args:
            recipe: What is trained. Its number of epochs does not matter: a refit has more and is still the same network.
            seed: Seed of the training.
            epoch: The epoch, from 1.
        """
        settings = (recipe.backbone.label, recipe.head, recipe.loss, recipe.stages[0].optimizer)
        identity = zlib.crc32(repr(settings).encode())
        recipe_rng = np.random.default_rng([self.seed, identity])
        limit, rate = recipe_rng.uniform(0.6, 0.95), recipe_rng.uniform(0.5, 1.5)
        epoch_rng = np.random.default_rng([self.seed, identity, seed, epoch])
        objective = limit - (limit - 0.1) * (epoch + 1.0) ** -rate + epoch_rng.normal(0, 0.01)
        slowness = 1 + epoch_rng.uniform(-self.noise, self.noise)
        return CurvePoint(
            float(np.clip(objective, 0.0, 1.0)),
            self.epoch_seconds[recipe.backbone.label] * slowness,
            self.evaluation_seconds * slowness,
        )
