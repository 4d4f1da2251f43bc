"""Losses, class weights, optimizers and schedules of a recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bloodauto.config.recipe import Loss, Optimizer, Schedule
from bloodauto.errors import RecipeError
from bloodauto.training.layerwise_rates import with_rate_multipliers

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "lion": keras.optimizers.Lion,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
}
_SGD_MOMENTUM = 0.9
#: Names of variables that weight decay spares, as is usual: biases, and scale and shift of normalisation.
_NO_WEIGHT_DECAY = ("bias", "gamma", "beta")
#: A geometric fall needs an end above zero.
_SMALLEST_FACTOR = 1e-6


def check_loss(loss: Loss, num_classes: int) -> None:
    """Checks what the grammar cannot.

    Raises:
        RecipeError: the focal loss' alpha is not for as many classes as there are.
    """
    if isinstance(loss.alpha, tuple) and len(loss.alpha) != num_classes:
        raise RecipeError(
            f"loss.alpha: expected {num_classes} factors, one for each class, got {len(loss.alpha)}; "
            "class_weights: balanced finds factors itself."
        )


def build_loss(loss: Loss) -> keras.losses.Loss:
    """The loss of logits (n, c) against one-hot or mixed targets (n, c)."""
    if loss.name == "focal":
        assert loss.gamma is not None
        return keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0 if loss.alpha is None else loss.alpha,
            gamma=loss.gamma,
            from_logits=True,
            label_smoothing=loss.label_smoothing,
        )
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=loss.label_smoothing)


def class_weights(loss: Loss, counts: np.ndarray) -> np.ndarray:
    """One weight per class, float32 (c,), whose mean over the images is 1.

    ``effective_number`` takes beta = 0.999 (Cui et al., arXiv:1901.05555).

    Args:
        counts: (c,), images of each class.
    """
    counts = np.maximum(counts, 1).astype(np.float64)
    if loss.class_weights == "none":
        return np.ones(len(counts), dtype=np.float32)
    weights = 1 / counts if loss.class_weights == "balanced" else (1 - 0.999) / (1 - 0.999**counts)
    return (weights / np.average(weights, weights=counts)).astype(np.float32)


def weight_targets(targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class weights as sample weights: float32 targets (n, c) and weights (n,) with the same cross-entropy.

    A target that mixes classes of different weights moves towards the heavier one; a one-hot target stays.
    """
    weighted = targets * weights
    total = weighted.sum(axis=1)
    return weighted / total[:, None], total


def build_optimizer(
    optimizer: Optimizer, rate_multipliers: Sequence[float] | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer; its weight decay is decoupled and spares biases and normalisation.

    Args:
        shares: of the learning rate, one for each variable it will be built for; None: the whole for all.
    """
    settings: dict[str, Any] = {"learning_rate": optimizer.learning_rate, "global_clipnorm": optimizer.clip_norm}
    if optimizer.name == "sgd":
        settings |= {"momentum": _SGD_MOMENTUM if optimizer.momentum is None else optimizer.momentum, "nesterov": True}
    if optimizer.name == "rmsprop" and optimizer.momentum is not None:
        settings["momentum"] = optimizer.momentum
    # Keras' AdamW is its Adam with weight decay, and refuses to go without.
    kind = _OPTIMIZERS["adam" if optimizer.name == "adamw" else optimizer.name]
    if rate_multipliers is not None:
        return with_rate_multipliers(
            kind, rate_multipliers, weight_decay=optimizer.weight_decay, no_decay=_NO_WEIGHT_DECAY, **settings
        )
    built = kind(weight_decay=optimizer.weight_decay if optimizer.weight_decay > 0 else None, **settings)
    if optimizer.weight_decay > 0:
        built.exclude_from_weight_decay(var_names=list(_NO_WEIGHT_DECAY))
    return built


def learning_rate_factor(schedule: Schedule, progress: float) -> float:
    """The factor on the learning rate when ``progress`` (0-1) of the stage is done; of a plateau, its warm-up alone."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < schedule.warmup_fraction:
        # Never zero: the first step should move.
        return max(progress / schedule.warmup_fraction, 0.01)
    if schedule.name in ("constant", "plateau"):
        return 1.0
    after = (progress - schedule.warmup_fraction) / (1 - schedule.warmup_fraction)
    if schedule.name == "cosine":
        return schedule.final_factor + (1 - schedule.final_factor) * 0.5 * (1 + math.cos(math.pi * after))
    if schedule.name == "step":
        assert schedule.steps is not None
        after = min(math.floor(after * (schedule.steps + 1)), schedule.steps) / schedule.steps
    return max(schedule.final_factor, _SMALLEST_FACTOR) ** after
