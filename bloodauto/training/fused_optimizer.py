"""Keras' optimizers as one update over all weights at once, with hyper-parameters that a traced step reads anew each time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from bloodauto.config.recipe import Optimizer

_SGD_MOMENTUM = 0.9
#: Keras' defaults.
_ADAM_BETAS = (0.9, 0.999)
_LION_BETAS = (0.9, 0.99)
_RMSPROP_RHO = 0.9
_NADAM_DECAY = 0.96
_EPSILON = 1e-7
#: Parts of the names of variables that do not decay, as is usual: biases, and scale and shift of normalisation.
_NO_WEIGHT_DECAY = ("bias", "gamma", "beta")
#: Stands for no clipping.
_NO_CLIPPING = 0.0

#: A Keras tensor; Keras has no type for the tensors of all its backends.
Tensor = Any
#: Of a rule: what is subtracted from the weights, and the new slots.
_Update = tuple[Tensor, Tensor, Tensor]


class _Inputs(NamedTuple):
    """What the rules compute an update from; flat vectors over all weights, but for the last three."""

    gradient: Tensor
    first: Tensor
    second: Tensor
    rate: Tensor
    number: Tensor
    nadam_product: Tensor
    momentum: Tensor


@keras.saving.register_keras_serializable("bloodauto")
class FusedOptimizer(keras.optimizers.Optimizer):
    """Adam, AdamW, Nadam, Lion, SGD and RMSprop over one concatenation of all weights.

    Keras' optimizers apply a dozen operations to each variable. Their cost is tracing: for MobileNetV2's 158 variables, two
    thirds of the time before the second training step. Here the gradients are concatenated, updated by one rule and split
    again; the numbers are those of Keras' optimizers up to rounding.

    What a recipe says is in variables that ``configure`` sets, the rule included, so a step that was traced once serves every
    recipe with the same trainable weights. Weight decay is decoupled for every rule and skips biases and normalisation; the
    gradient is clipped by its norm over all weights; each weight has its own multiple of the learning rate, which its decay
    follows too.

    Deviation: a variable without a gradient counts as one with a gradient of 0, so that decay and momentum still change it;
    Keras leaves it alone.

    A multiple of the gradient would not do instead: Adam and its kin divide a gradient by its own running size, Lion by its
    absolute value.

    Memory: four numbers for each trainable weight (two slots, the rate's multiple, the decay).

    Args:
        optimizer: The settings of a stage.
        rate_multipliers: Factor on the learning rate of each variable that it will be built for, in their order; None: 1 for
            all.

    Example:
        >>> optimizer = FusedOptimizer(Optimizer(name="sgd", learning_rate=0.5, momentum=0.0))
        >>> weight = keras.Variable([1.0], name="kernel")
        >>> optimizer.apply([ops.convert_to_tensor([1.0])], [weight])
        >>> float(weight.numpy()[0])
        0.5
    """

    def __init__(self, optimizer: Optimizer, rate_multipliers: Sequence[float] | None = None) -> None:
        super().__init__(learning_rate=optimizer.learning_rate, name="fused_optimizer")
        self._declared = (optimizer, None if rate_multipliers is None else tuple(rate_multipliers))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the slots and the settings.

        Args:
            variables: What is trained.
        """
        if self.built:
            return
        super().build(variables)
        self._sizes = [int(np.prod(variable.shape)) for variable in variables]
        self._borders = np.cumsum(self._sizes)[:-1].tolist()
        total = (sum(self._sizes),)
        self._decays_by_variable = [
            0.0 if any(part in variable.name for part in _NO_WEIGHT_DECAY) else 1.0 for variable in variables
        ]
        self._first = self.add_variable(total, name="first_slot")
        self._second = self.add_variable(total, name="second_slot")
        self._nadam_product = self.add_variable((), initializer="ones", name="nadam_product")
        self._rule = self.add_variable((), dtype="int32", name="rule")
        self._momentum = self.add_variable((), name="momentum")
        self._clip_norm = self.add_variable((), name="clip_norm")
        self._multipliers = self.add_variable(total, name="rate_multipliers")
        self._decays = self.add_variable(total, name="decays")
        self._assign_settings()

    def configure(self, optimizer: Optimizer, rate_multipliers: Sequence[float] | None = None) -> None:
        """Starts over with other settings, as a new optimizer would.

        Args:
            optimizer: The settings of a stage.
            rate_multipliers: As of the constructor.
        """
        self._declared = (optimizer, None if rate_multipliers is None else tuple(rate_multipliers))
        self.learning_rate.assign(optimizer.learning_rate)
        self._iterations.assign(0)
        if self.built:
            for slot in (self._first, self._second):
                slot.assign(np.zeros(slot.shape, np.float32))
            self._nadam_product.assign(1.0)
            self._assign_settings()

    def _assign_settings(self) -> None:
        optimizer, multipliers = self._declared
        factors = [1.0] * len(self._sizes) if multipliers is None else multipliers
        assert len(factors) == len(self._sizes), f"{len(factors)} multipliers for {len(self._sizes)} variables"
        momentum = optimizer.momentum
        if momentum is None:
            momentum = _SGD_MOMENTUM if optimizer.name == "sgd" else 0.0
        self._rule.assign(_RULE_NAMES.index("adam" if optimizer.name == "adamw" else optimizer.name))
        self._momentum.assign(momentum)
        self._clip_norm.assign(_NO_CLIPPING if optimizer.clip_norm is None else optimizer.clip_norm)
        self._multipliers.assign(np.repeat(np.asarray(factors, np.float32), self._sizes))
        decays = optimizer.weight_decay * np.asarray(self._decays_by_variable, np.float32)
        self._decays.assign(np.repeat(decays, self._sizes))

    @property
    def state(self) -> list[keras.Variable]:
        """What a training changes: everything but the settings."""
        return [self._iterations, self._first, self._second, self._nadam_product]

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """Updates the weights.

        Args:
            grads: One gradient for each variable; a variable without one has the gradient 0.
            trainable_variables: All variables that it was or will be built for, in their order; None: those it was built for.
        """
        if not self.built:
            assert trainable_variables is not None, "expected variables to build for"
            self.build(list(trainable_variables))
        variables = self._trainable_variables
        assert len(grads) == len(variables), f"expected {len(variables)} gradients, got {len(grads)}"
        parts = [
            ops.zeros((size,)) if gradient is None else ops.cast(ops.reshape(gradient, (size,)), "float32")
            for gradient, size in zip(grads, self._sizes, strict=True)
        ]
        gradient = self._clipped(ops.concatenate(parts))
        weights = ops.concatenate(
            [
                ops.cast(ops.reshape(variable, (size,)), "float32")
                for variable, size in zip(variables, self._sizes, strict=True)
            ]
        )
        rate = ops.cast(self.learning_rate, "float32") * self._multipliers
        step = ops.cast(self._iterations + 1, "float32")
        product = self._nadam_product * _nadam_momentum(step)
        inputs = _Inputs(gradient, self._first.value, self._second.value, rate, step, product, self._momentum.value)
        change, first, second = ops.switch(self._rule, [functools.partial(rule, inputs) for rule in _RULES])
        updated = weights - weights * (self._decays * rate) - change
        self.assign(self._first, first)
        self.assign(self._second, second)
        self.assign(self._nadam_product, product)
        split = ops.split(updated, self._borders) if self._borders else [updated]
        for variable, values in zip(variables, split, strict=True):
            self.assign(variable, ops.reshape(values, variable.shape))
        self._iterations.assign_add(1)

    def get_config(self) -> dict[str, Any]:
        """The settings as plain values: Keras copies the optimizer with a compiled network."""
        optimizer, multipliers = self._declared
        return {"optimizer": optimizer.model_dump(mode="json"), "rate_multipliers": multipliers}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FusedOptimizer:  # noqa: ARG003  # of Keras
        """The reverse of ``get_config``.

        Args:
            config: Of ``get_config``.
            custom_objects: Not used; a part of Keras' interface.
        """
        return cls(Optimizer(**config["optimizer"]), config["rate_multipliers"])

    def _clipped(self, gradient: Tensor) -> Tensor:
        norm = ops.sqrt(ops.sum(ops.square(gradient)))
        limit = ops.convert_to_tensor(self._clip_norm)
        # A gradient that is not finite stays so: the training then ends, as it does without clipping.
        scale = limit * ops.minimum(1 / norm, 1 / limit) + (norm - norm)
        return gradient * ops.where(limit > _NO_CLIPPING, scale, 1.0)


def _adam(step: _Inputs) -> _Update:
    beta_1, beta_2 = _ADAM_BETAS
    correction = ops.sqrt(1 - ops.power(beta_2, step.number)) / (1 - ops.power(beta_1, step.number))
    first = step.first + (step.gradient - step.first) * (1 - beta_1)
    second = step.second + (ops.square(step.gradient) - step.second) * (1 - beta_2)
    return first * (step.rate * correction) / (ops.sqrt(second) + _EPSILON), first, second


def _nadam_momentum(number: Tensor) -> Tensor:
    return _ADAM_BETAS[0] * (1 - 0.5 * ops.power(_NADAM_DECAY, number))


def _nadam(step: _Inputs) -> _Update:
    beta_1, beta_2 = _ADAM_BETAS
    product, now, after = step.nadam_product, _nadam_momentum(step.number), _nadam_momentum(step.number + 1)
    first = step.first + (step.gradient - step.first) * (1 - beta_1)
    second = step.second + (ops.square(step.gradient) - step.second) * (1 - beta_2)
    nesterov_momentum = after * first / (1 - product * after) + (1 - now) * step.gradient / (1 - product)
    size = ops.sqrt(second / (1 - ops.power(beta_2, step.number)))
    return nesterov_momentum * step.rate / (size + _EPSILON), first, second


def _lion(step: _Inputs) -> _Update:
    beta_1, beta_2 = _LION_BETAS
    change = step.rate * ops.sign(step.first * beta_1 + step.gradient * (1 - beta_1))
    return change, step.first * beta_2 + step.gradient * (1 - beta_2), step.second


def _sgd(step: _Inputs) -> _Update:
    """With Nesterov's momentum."""
    first = step.first * step.momentum - step.gradient * step.rate
    return step.gradient * step.rate - first * step.momentum, first, step.second


def _rmsprop(step: _Inputs) -> _Update:
    second = _RMSPROP_RHO * step.second + (1 - _RMSPROP_RHO) * ops.square(step.gradient)
    first = step.momentum * step.first + step.rate * step.gradient / ops.sqrt(second + _EPSILON)
    return first, first, second


_RULE_NAMES = ("adam", "nadam", "lion", "sgd", "rmsprop")
_RULES: tuple[Callable[[_Inputs], _Update], ...] = (_adam, _nadam, _lion, _sgd, _rmsprop)
