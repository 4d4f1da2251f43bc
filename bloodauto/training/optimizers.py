"""The optimizer of a stage: learning-rate schedule, decoupled weight decay, and learning rates by depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from bloodauto.config.recipe import Backbone, Optimizer, Schedule
from bloodauto.models.backbones import block_of_layers, num_blocks
from bloodauto.models.network import backbone_of

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "lion": keras.optimizers.Lion,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
}
_SGD_MOMENTUM = 0.9
#: Parts of the names of variables that do not decay, as is usual: biases, and scale and shift of normalisation.
_NO_WEIGHT_DECAY = ("bias", "gamma", "beta")
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


def build_optimizer(
    optimizer: Optimizer, rate_multipliers: Sequence[float] | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer; its weight decay is decoupled and skips biases and normalisation.

    Args:
        optimizer: The settings of a stage.
        rate_multipliers: Factor on the learning rate of each variable that it will be built for, in their order; None: 1 for
            all.
    """
    settings: dict[str, Any] = {"learning_rate": optimizer.learning_rate, "global_clipnorm": optimizer.clip_norm}
    if optimizer.name == "sgd":
        settings |= {"momentum": _SGD_MOMENTUM if optimizer.momentum is None else optimizer.momentum, "nesterov": True}
    if optimizer.name == "rmsprop" and optimizer.momentum is not None:
        settings["momentum"] = optimizer.momentum
    # Keras' AdamW is its Adam with weight decay, and refuses to work without.
    kind = _OPTIMIZERS["adam" if optimizer.name == "adamw" else optimizer.name]
    if rate_multipliers is not None:
        return _with_rate_multipliers(kind, rate_multipliers, weight_decay=optimizer.weight_decay, **settings)
    built = kind(weight_decay=optimizer.weight_decay if optimizer.weight_decay > 0 else None, **settings)
    if optimizer.weight_decay > 0:
        built.exclude_from_weight_decay(var_names=list(_NO_WEIGHT_DECAY))
    return built


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


class _PerVariableLearningRate:
    """Mixed into a Keras optimizer: each variable is updated, and decayed, at its own multiple of the learning rate.

    A multiple of the gradient would not do: Adam and its kin divide a gradient by its own running size, Lion by its absolute
    value. All of Keras' optimizers multiply an update by the learning rate that ``update_step`` is given. Decay is done here
    as well, since Keras' own uses the optimizer's rate, not the variable's.
    """

    rate_multipliers: tuple[float, ...]
    decay: float

    def build(self, variables: Sequence[keras.Variable]) -> None:
        assert len(variables) == len(self.rate_multipliers), (
            f"{len(self.rate_multipliers)} multipliers for {len(variables)} variables"
        )
        no_decay = [any(part in variable.name for part in _NO_WEIGHT_DECAY) for variable in variables]
        self._decays = tuple(0.0 if is_excluded else self.decay for is_excluded in no_decay)
        super().build(variables)  # type: ignore[misc]  # the Keras optimizer it is mixed into

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)  # type: ignore[attr-defined]
        rate = keras.ops.cast(learning_rate, variable.dtype) * self.rate_multipliers[index]
        if self._decays[index] > 0:
            self.assign_sub(variable, variable * (self._decays[index] * rate))  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


def _with_rate_multipliers(
    kind: type[keras.optimizers.Optimizer], rate_multipliers: Sequence[float], *, weight_decay: float, **settings: Any
) -> keras.optimizers.Optimizer:
    """An optimizer of a Keras class with per-variable learning rates; its state is that of the class, so it resumes alike."""
    built = type(f"Discriminative{kind.__name__}", (_PerVariableLearningRate, kind), {})(**settings)
    built.rate_multipliers, built.decay = tuple(rate_multipliers), weight_decay
    return built
