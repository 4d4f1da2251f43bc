"""Losses, class weights, optimizers and schedules of a recipe."""

from __future__ import annotations

import math

import keras
import numpy as np

from bloodauto.recipe import Loss, Optimizer, Schedule

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "lion": keras.optimizers.Lion,
    "sgd": keras.optimizers.SGD,
}


def build_loss(loss: Loss) -> keras.losses.Loss:
    """The loss of logits (n, c) against one-hot or mixed targets (n, c).

    The focal loss goes without the paper's alpha: class weights say that part, once.
    """
    if loss.name == "focal":
        assert loss.gamma is not None
        return keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0, gamma=loss.gamma, from_logits=True, label_smoothing=loss.label_smoothing
        )
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=loss.label_smoothing)


def class_weights(loss: Loss, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """One weight per class, float32 (c,), whose mean over the images is 1.

    ``effective_number`` takes beta = 0.999 (Cui et al., arXiv:1901.05555).
    """
    counts = np.maximum(np.bincount(labels, minlength=num_classes), 1).astype(np.float64)
    if loss.class_weights == "none":
        return np.ones(num_classes, dtype=np.float32)
    weights = 1 / counts if loss.class_weights == "balanced" else (1 - 0.999) / (1 - 0.999**counts)
    return (weights / np.average(weights, weights=counts)).astype(np.float32)


def build_optimizer(optimizer: Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer; its weight decay is decoupled and spares biases and normalisation, as is usual."""
    extra = {"momentum": 0.9, "nesterov": True} if optimizer.name == "sgd" else {}
    # Keras' AdamW refuses to go without weight decay; without it, it is Adam.
    name = "adam" if optimizer.name == "adamw" and optimizer.weight_decay == 0 else optimizer.name
    built = _OPTIMIZERS[name](
        learning_rate=optimizer.learning_rate,
        weight_decay=optimizer.weight_decay if optimizer.weight_decay > 0 else None,
        clipnorm=optimizer.clip_norm,
        **extra,
    )
    if optimizer.weight_decay > 0:
        built.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return built


def learning_rate_factor(schedule: Schedule, progress: float) -> float:
    """The factor on the learning rate when ``progress`` (0-1) of the stage is done."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < schedule.warmup_fraction:
        # Never zero: the first step should move.
        return max(progress / schedule.warmup_fraction, 0.01)
    if schedule.name == "constant":
        return 1.0
    after = (progress - schedule.warmup_fraction) / (1 - schedule.warmup_fraction)
    if schedule.name == "exponential":
        return max(schedule.final_factor, 1e-6) ** after
    return schedule.final_factor + (1 - schedule.final_factor) * 0.5 * (1 + math.cos(math.pi * after))
