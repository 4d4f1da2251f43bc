"""Random initial weights of a network that exists already, and the seeds of its dropout: from the training's seed alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

#: The initializer of a layer's variable, by the variable's name; a depthwise convolution calls its only kernel "kernel".
_INITIALIZERS = {
    "kernel": ("kernel_initializer", "depthwise_initializer"),
    "depthwise_kernel": ("depthwise_initializer",),
    "pointwise_kernel": ("pointwise_initializer",),
}
#: The name of the state of Keras' ``SeedGenerator``.
SEED_STATE = "seed_generator_state"
_MAX_SEED = 2**31 - 1


def draw_initial_weights(layers: Iterable[keras.layers.Layer], rng: np.random.Generator) -> None:
    """Draws the random ones among the weights of layers by the layers' own initializers; the others stay.

    Keras draws weights when it builds a network, from its global generator. Here they depend on ``rng`` and the order of the
    layers alone, so a network that is used again starts as one that was built anew.

    Args:
        layers: Built layers, without those inside them.
        rng: Draws the initializers' seeds.
    """
    for layer in layers:
        for variable in layer.variables:
            for attribute in _INITIALIZERS.get(variable.name, ()):
                initializer: Any = getattr(layer, attribute, None)
                config = {} if initializer is None else initializer.get_config()
                # Initializers that draw have a seed.
                if "seed" in config:
                    config = {**config, "seed": int(rng.integers(_MAX_SEED))}
                    variable.assign(type(initializer).from_config(config)(variable.shape, dtype=variable.dtype))
                    break


def seed_dropout(network: keras.Model, rng: np.random.Generator) -> None:
    """Gives each random generator of a network a key of its own.

    Args:
        network: Any network.
        rng: Draws the keys.
    """
    for variable in dropout_state(network):
        variable.assign(np.array([int(rng.integers(_MAX_SEED)), 0], dtype=variable.dtype))


def dropout_state(network: keras.Model) -> list[keras.Variable]:
    """The states of a network's random generators, in an order that depends on the network alone.

    Args:
        network: Any network.
    """
    return [variable for variable in network.variables if variable.name == SEED_STATE]


def reseed_dropout(network: keras.Model, epoch: int) -> None:
    """Makes dropout depend on its keys and the epoch alone, so that a resumed training continues as an uninterrupted one.

    Args:
        network: Any network.
        epoch: 1-based.
    """
    for variable in dropout_state(network):
        # The first number distinguishes the layers; the second counts calls, far fewer than this in one epoch.
        key, _ = np.asarray(variable)
        variable.assign(np.array([key, epoch * 2**20], dtype=variable.dtype))
