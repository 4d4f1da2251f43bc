"""Learning curves for the simulator, generated from a seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bloodauto.config.recipe import Recipe


@dataclass(frozen=True)
class CurvePoint:
    """One epoch of a simulated training.

    Attributes:
        objective: after the epoch, 0-1.
        train_seconds: of the whole epoch's training on one worker.
        evaluation_seconds: of the evaluation after it.
    """

    objective: float
    train_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class GeneratedCurves:
    """Power-law curves (Domhan et al., IJCAI 2015, have them among others) whose limit depends on the recipe.

    Attributes:
        seed: of limits and noise.
        epoch_seconds: by the label of the backbone.
        evaluation_seconds: of every backbone.
        noise: seconds vary by up to this share, evenly; objectives by a hundredth (standard deviation).
    """

    seed: int
    epoch_seconds: Mapping[str, float]
    evaluation_seconds: float = 0.5
    noise: float = 0.0

    def __call__(self, recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        """The same arguments always give the same epoch."""
        # The number of epochs stays out: a refit has more of them and is still the same network.
        settings = (recipe.backbone.label, recipe.head, recipe.loss, recipe.stages[0].optimizer)
        identity = zlib.crc32(repr(settings).encode())
        of_recipe = np.random.default_rng([self.seed, identity])
        limit, rate = of_recipe.uniform(0.6, 0.95), of_recipe.uniform(0.5, 1.5)
        of_epoch = np.random.default_rng([self.seed, identity, seed, epoch])
        objective = limit - (limit - 0.1) * (epoch + 1.0) ** -rate + of_epoch.normal(0, 0.01)
        slowness = 1 + of_epoch.uniform(-self.noise, self.noise)
        return CurvePoint(
            float(np.clip(objective, 0.0, 1.0)),
            self.epoch_seconds[recipe.backbone.label] * slowness,
            self.evaluation_seconds * slowness,
        )
