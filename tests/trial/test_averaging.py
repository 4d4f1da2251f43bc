from __future__ import annotations

import keras
import numpy as np
import pytest

from bloodauto.trial.averaging import WeightAverage


@pytest.fixture
def network() -> keras.Model:
    """A weight that learns, normalisation with statistics, and a weight that does not learn."""
    inputs = keras.Input((2,))
    x = keras.layers.Dense(3, use_bias=False, name="frozen", trainable=False)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="learns")(x))


def follow(network: keras.Model, average: WeightAverage, count: int, *, begin: int = 1) -> None:
    """After step t the learning weight and the statistics are all t."""
    for step in range(begin, count + 1):
        kernel, norm = network.get_layer("learns").kernel, network.get_layer("norm")
        for variable in (kernel, norm.moving_mean):
            variable.assign(np.full(variable.shape, step, np.float32))
        average.add_step(step / count)


def test_after_one_step_the_average_is_the_weights(network):
    average = WeightAverage(network, "ema")
    follow(network, average, 1)
    with average.applied():
        np.testing.assert_array_equal(network.get_layer("learns").kernel.numpy(), np.ones((3, 1)))


@pytest.mark.parametrize("steps", [10, 300])
def test_an_ema_weighs_steps_by_a_power_however_many_there_are(network, steps):
    average = WeightAverage(network, "ema")
    follow(network, average, steps)
    at = np.arange(1, steps + 1)
    # The recursion's closed form: the product of what every later step leaves.
    left = (1 - 1 / at) ** 7.94
    weights = (1 - left) * np.append(np.cumprod(left[::-1])[::-1][1:], 1.0)
    assert weights.sum() == pytest.approx(1)
    with average.applied():
        kernel = float(network.get_layer("learns").kernel.numpy()[0, 0])
        assert float(network.get_layer("norm").moving_mean.numpy()[0]) == pytest.approx(kernel)
    assert kernel == pytest.approx((weights * at).sum(), rel=1e-4)
    if steps >= 100:
        assert kernel / steps == pytest.approx(7.94 / 8.94, abs=0.01), "the power function's mean"
        spread = np.sqrt((weights * at**2).sum() - (weights * at).sum() ** 2) / steps
        assert spread == pytest.approx(0.10, abs=0.005)


def test_swa_is_the_mean_of_the_last_quarter(network):
    average = WeightAverage(network, "swa")
    follow(network, average, 40)
    with average.applied():
        np.testing.assert_allclose(network.get_layer("learns").kernel.numpy(), np.arange(30, 41).mean(), rtol=1e-5)


def test_before_swa_begins_the_weights_are_judged_as_they_are(network):
    average = WeightAverage(network, "swa")
    network.get_layer("learns").kernel.assign(np.full((3, 1), 7, np.float32))
    average.add_step(0.74)
    assert average.values == []
    with average.applied():
        np.testing.assert_array_equal(network.get_layer("learns").kernel.numpy(), np.full((3, 1), 7))


def test_training_goes_on_from_its_own_weights_even_after_a_failure(network):
    average = WeightAverage(network, "ema")
    follow(network, average, 5)
    before = network.get_weights()

    def judge_in_vain() -> None:
        with average.applied():
            changed = [not np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True)]
            assert sum(changed) == 2, "the learning weight and the moving mean"
            raise RuntimeError("judging")

    with pytest.raises(RuntimeError, match="judging"):
        judge_in_vain()
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_it_goes_on_where_it_left_off(network, kind):
    straight = WeightAverage(network, kind)
    follow(network, straight, 40)
    broken = WeightAverage(network, kind)
    follow(network, broken, 40)
    first = WeightAverage(network, kind)
    for step in range(1, 34):
        network.get_layer("learns").kernel.assign(np.full((3, 1), step, np.float32))
        network.get_layer("norm").moving_mean.assign(np.full(3, step, np.float32))
        first.add_step(step / 40)
    second = WeightAverage(network, kind, averages=first.values, steps=first.steps)
    follow(network, second, 40, begin=34)
    for one, other in zip(straight.values, second.values, strict=True):
        np.testing.assert_array_equal(one, other)


def test_frozen_weights_are_not_followed(network):
    network.get_layer("norm").trainable = False
    average = WeightAverage(network, "ema")
    average.add_step(0.1)
    assert [value.shape for value in average.values] == [(3, 1)]
