"""Discriminative learning rates: the nearer a block of the backbone is to the image, the slower it learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from bloodauto.config.recipe import Backbone
from bloodauto.models.backbones import block_of_layers, num_blocks
from bloodauto.models.network import backbone_of


def learning_rate_multipliers(network: keras.Model, backbone: Backbone, layer_decay: float) -> list[float]:
    """The share of the learning rate each of ``network.trainable_variables`` learns at, in their order.

    Howard & Ruder (arXiv:1801.06146) give each layer its rate; we give each block one, since the layers of a block differ in
    kind more than in depth. The head has 1, the last block ``layer_decay``, the block before its square.
    """
    base = backbone_of(network)
    blocks = block_of_layers(backbone, [layer.name for layer in base.layers])
    rate_multipliers = {
        id(variable): layer_decay ** max(num_blocks(backbone) - block, 1)
        for layer, block in zip(base.layers, blocks, strict=True)
        for variable in layer.trainable_variables
    }
    return [rate_multipliers.get(id(variable), 1.0) for variable in network.trainable_variables]


class _PerVariableLearningRate:
    """Mixed into a Keras optimizer: each variable is updated, and decayed, at its own share of the learning rate.

    A share of the gradient would not do: Adam and its kin divide a gradient by its own running size, Lion by its absolute
    value. All of Keras' optimizers multiply an update by the learning rate that ``update_step`` is given. Decay is done here
    as well, since Keras' own takes the optimizer's rate, not the variable's.
    """

    rate_multipliers: tuple[float, ...]
    decay: float
    no_decay: tuple[str, ...]

    def build(self, variables: Sequence[keras.Variable]) -> None:
        assert len(variables) == len(self.rate_multipliers), (
            f"{len(self.rate_multipliers)} shares for {len(variables)} variables"
        )
        no_decay = [any(part in variable.name for part in self.no_decay) for variable in variables]
        self._decays = tuple(0.0 if is_spared else self.decay for is_spared in no_decay)
        super().build(variables)  # type: ignore[misc]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)  # type: ignore[attr-defined]
        rate = keras.ops.cast(learning_rate, variable.dtype) * self.rate_multipliers[index]
        if self._decays[index] > 0:
            self.assign_sub(variable, variable * (self._decays[index] * rate))  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


def with_rate_multipliers(
    kind: type[keras.optimizers.Optimizer],
    rate_multipliers: Sequence[float],
    *,
    weight_decay: float,
    no_decay: Sequence[str],
    **settings: Any,
) -> keras.optimizers.Optimizer:
    """An optimizer of a Keras kind whose variables learn at their shares of the rate.

    Its state is that of the kind, so it is saved and resumed as any other.

    Args:
        shares: one for each variable it will be built for, in their order.
        weight_decay: decoupled; 0 for none.
        spared: parts of the names of variables that do not decay.
        settings: of the kind.
    """
    built = type(f"Discriminative{kind.__name__}", (_PerVariableLearningRate, kind), {})(**settings)
    built.rate_multipliers, built.decay, built.no_decay = tuple(rate_multipliers), weight_decay, tuple(no_decay)
    return built
