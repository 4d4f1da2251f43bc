"""Discriminative learning rates: the nearer a block of the backbone is to the image, the slower it learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from bloodauto.recipe import Backbone
from bloodauto.trial.backbones import block_of_layers
from bloodauto.trial.network import backbone_of


def learning_rate_shares(network: keras.Model, backbone: Backbone, layer_decay: float) -> list[float]:
    """The share of the learning rate each of ``network.trainable_variables`` learns at, in their order.

    Howard & Ruder (arXiv:1801.06146) give each layer its rate; we give each block one, since the layers of a block differ in
    kind more than in depth. The head has 1, the last block ``layer_decay``, the block before its square.
    """
    base = backbone_of(network)
    blocks = block_of_layers(backbone.name, [layer.name for layer in base.layers])
    shares = {
        id(variable): layer_decay ** (blocks[-1] + 1 - block)
        for layer, block in zip(base.layers, blocks, strict=True)
        for variable in layer.trainable_variables
    }
    return [shares.get(id(variable), 1.0) for variable in network.trainable_variables]


class _RatePerVariable:
    """Mixed into a Keras optimizer: each variable is updated, and decayed, at its own share of the learning rate.

    A share of the gradient would not do: Adam and its kin divide a gradient by its own running size, Lion by its absolute
    value. All of Keras' optimizers multiply an update by the learning rate that ``update_step`` is given.
    """

    shares: tuple[float, ...]
    decays: tuple[float, ...]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)  # type: ignore[attr-defined]
        rate = keras.ops.cast(learning_rate, variable.dtype) * self.shares[index]
        if self.decays[index] > 0:
            # Decay is decoupled and takes the variable's own rate too, which Keras' own weight decay does not.
            self.assign_sub(variable, variable * (self.decays[index] * rate))  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


def with_rates(
    kind: type[keras.optimizers.Optimizer], shares: Sequence[float], decays: Sequence[float], **settings: Any
) -> keras.optimizers.Optimizer:
    """An optimizer of a Keras kind whose variables learn at their shares of the rate.

    Its state is that of the kind, so it is saved and resumed as any other.

    Args:
        shares, decays: one for each variable it is built for, in their order; decays as ``weight_decay``, 0 for none.
        settings: of the kind, without ``weight_decay``.
    """
    discriminative = type(f"Discriminative{kind.__name__}", (_RatePerVariable, kind), {})
    built = discriminative(weight_decay=None, **settings)
    built.shares, built.decays = tuple(shares), tuple(decays)
    return built
