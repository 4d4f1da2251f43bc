"""Hyper-parameters of a network that a traced training step reads anew at every call, so that one trace serves many recipes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops


class StepSetting(keras.random.SeedGenerator):
    """A number, or an array of fixed shape, that a traced step reads anew at every call.

    Keras knows one kind of state of a layer that is neither weight nor metric: that of a random generator. As such it is
    handed to the step on every backend, also on one whose steps take their state as an argument, and it is no part of a
    network's weights. It draws nothing.

    Args:
        value: The first value; its shape stays.
        name: For people.

    Attributes:
        state: The variable.

    Example:
        >>> rate = StepSetting(0.2, name="rate")
        >>> rate.assign(0.5)
        >>> float(rate.state.numpy())
        0.5
    """

    def __init__(self, value: Any, *, name: str) -> None:
        super().__init__(seed=0, name=name)
        self.state = keras.Variable(
            np.asarray(value, np.float32), trainable=False, dtype="float32", autocast=False, name=name
        )

    def assign(self, value: Any) -> None:
        """Sets the value.

        Args:
            value: Of the shape of the first.
        """
        self.state.assign(np.asarray(value, np.float32))


class AdjustableDropout(layers.Layer):
    """Keras' dropout, but for its rate, which can be changed after a step was traced; at a rate of 0 it changes nothing.

    Args:
        rate: The fraction of features that is dropped, 0 to below 1.
        **arguments: As of any layer.

    Attributes:
        rate_setting: The rate.

    Example:
        >>> dropout = AdjustableDropout(0.2)
        >>> dropout.rate_setting.assign(0.0)
        >>> float(dropout(np.ones((1, 1), np.float32), training=True)[0, 0])
        1.0
    """

    def __init__(self, rate: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._rate = rate
        self.seed_generator = keras.random.SeedGenerator()
        self.rate_setting = StepSetting(rate, name="rate")

    def call(self, inputs: Any, *, training: bool = False) -> Any:
        """Drops features in training, and scales the others by 1 / (1 - rate).

        Args:
            inputs: Any shape.
            training: Whether anything is dropped.
        """
        if not training:
            return inputs
        rate = ops.convert_to_tensor(self.rate_setting.state)
        drawn = keras.random.uniform(ops.shape(inputs), dtype="float32", seed=self.seed_generator)
        kept = ops.cast(inputs, "float32") / (1 - rate)
        return ops.cast(ops.where(drawn >= rate, kept, 0.0), inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """As of any layer."""
        return {**super().get_config(), "rate": self._rate}
