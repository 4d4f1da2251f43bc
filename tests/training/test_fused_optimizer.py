"""The fused optimizer against Keras' own, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from bloodauto.config.recipe import Optimizer
from bloodauto.training.averaging import WeightAverage
from bloodauto.training.fused_optimizer import FusedOptimizer

KERAS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.Adam,
    "nadam": keras.optimizers.Nadam,
    "lion": keras.optimizers.Lion,
    "sgd": lambda **settings: keras.optimizers.SGD(nesterov=True, **{"momentum": 0.9, **settings}),
    "rmsprop": keras.optimizers.RMSprop,
}
SHAPES = {"kernel": (3, 2), "bias": (2,), "gamma": (2,), "logits_kernel": (2, 4), "beta": ()}
RATES = (0.02, 0.005, 0.01, 0.02, 0.001)

SETTINGS: list[dict[str, Any]] = [
    *({"name": name} for name in KERAS),
    *({"name": name, "weight_decay": 0.1, "clip_norm": 1.5} for name in KERAS),
    {"name": "sgd", "momentum": 0.0},
    {"name": "sgd", "momentum": 0.5, "weight_decay": 0.1},
    {"name": "rmsprop", "momentum": 0.7, "clip_norm": 100.0},
]


def variables() -> list[keras.Variable]:
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32), name=name) for name, shape in SHAPES.items()]


def gradients() -> list[list[Any]]:
    """Of several steps; the norm falls from above the clipping to below it."""
    rng = np.random.default_rng(1)
    sizes = (5.0, 1.0, 0.3, 0.0, 2.0, 0.1)
    return [
        [keras.ops.convert_to_tensor((size * rng.normal(size=shape)).astype(np.float32)) for shape in SHAPES.values()]
        for size in sizes
    ]


def keras_optimizer(settings: Optimizer, rate: float) -> keras.optimizers.Optimizer:
    arguments: dict[str, Any] = {} if settings.momentum is None else {"momentum": settings.momentum}
    optimizer = KERAS[settings.name](
        learning_rate=rate,
        weight_decay=settings.weight_decay if settings.weight_decay > 0 else None,
        global_clipnorm=settings.clip_norm,
        **arguments,
    )
    if settings.weight_decay > 0:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def assert_same(ours: list[keras.Variable], theirs: list[keras.Variable]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our.numpy(), their.numpy(), rtol=2e-5, atol=2e-6, err_msg=our.name)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_steps_are_those_of_keras(settings):
    settings = Optimizer(learning_rate=0.02, **settings)
    ours, theirs = variables(), variables()
    fused, reference = FusedOptimizer(settings), keras_optimizer(settings, 0.02)
    for step, grads in enumerate(gradients()):
        for optimizer, weights in ((fused, ours), (reference, theirs)):
            optimizer.learning_rate.assign(0.02 / (1 + step))
            optimizer.apply(grads, weights)
        assert_same(ours, theirs)
    assert not np.allclose(ours[0].numpy(), variables()[0].numpy(), atol=1e-3)


@pytest.mark.parametrize("name", KERAS)
def test_rates_by_variable_are_those_of_one_keras_optimizer_for_each(name):
    settings = Optimizer(name=name, learning_rate=0.02, weight_decay=0.1)
    ours, theirs = variables(), variables()
    fused = FusedOptimizer(settings, [rate / 0.02 for rate in RATES])
    references = [keras_optimizer(settings, rate) for rate in RATES]
    for grads in gradients():
        fused.apply(grads, ours)
        for reference, gradient, variable in zip(references, grads, theirs, strict=True):
            reference.apply([gradient], [variable])
        assert_same(ours, theirs)


def test_averages_over_steps_are_those_of_keras_weights():
    averages = []
    settings = Optimizer(name="adamw", learning_rate=0.02, weight_decay=0.1, clip_norm=1.0)
    for optimizer in (FusedOptimizer(settings), keras_optimizer(settings, 0.02)):
        network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        network.set_weights([np.ones((3, 2)), np.zeros(2)])
        average = WeightAverage(network, "ema")
        for grads in gradients():
            optimizer.apply(grads[:2], network.trainable_variables)
            average.add_step(0.5)
        averages.append(average.values)
    for ours, theirs in zip(*averages, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_traced_step_follows_every_setting_and_starts_over(jit_compile):
    """One trace serves all rules: after another recipe it gives, to the bit, what an optimizer of its own gives."""
    weights, grads = variables(), gradients()
    fused, traces = FusedOptimizer(Optimizer(name="lion", learning_rate=0.1, weight_decay=1.0)), []
    fused.build(weights)

    def step(*values: Any) -> None:
        traces.append(len(values))
        fused.apply(list(values), weights)

    traced = pytest.importorskip("tensorflow").function(step, jit_compile=jit_compile)

    def train(settings: dict, multipliers: tuple[float, ...] | None) -> list[np.ndarray]:
        for variable, initial in zip(weights, variables(), strict=True):
            variable.assign(initial)
        fused.configure(Optimizer(learning_rate=0.02, **settings), multipliers)
        for step_grads in grads:
            traced(*step_grads)
        return [variable.numpy().copy() for variable in weights]

    multipliers = (1.0, 0.5, 0.25, 0.1, 0.01)
    first = [train(settings, multipliers if "weight_decay" in settings else None) for settings in SETTINGS]
    second = [train(settings, multipliers if "weight_decay" in settings else None) for settings in reversed(SETTINGS)]
    for once, again in zip(first, reversed(second), strict=True):
        for a, b in zip(once, again, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(traces) == 1
    assert all(not np.allclose(first[0][0], other[0], atol=1e-4) for other in first[2:6]), "the rules differ"


def test_gradients_that_are_not_finite_are_seen_with_and_without_clipping():
    for clip_norm in (None, 1.0):
        weights = [keras.Variable(np.ones(2, np.float32), name="kernel")]
        fused = FusedOptimizer(Optimizer(name="sgd", learning_rate=0.1, clip_norm=clip_norm))
        fused.apply([keras.ops.convert_to_tensor(np.array([np.nan, 1.0], np.float32))], weights)
        assert np.isnan(weights[0].numpy()).any()
