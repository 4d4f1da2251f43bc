from __future__ import annotations

import keras
import numpy as np
import pytest

from bloodauto.training.averaging import WeightAverage


@pytest.fixture
def network() -> keras.Model:
    """A weight that learns, normalisation with statistics, and a weight that does not learn."""
    inputs = keras.Input((2,))
    x = keras.layers.Dense(3, use_bias=False, name="frozen", trainable=False)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="learns")(x))


def batches():
    """Two batches of unequal size."""
    rng = np.random.default_rng(0)
    return (rng.normal(1, 2, (size, 2)).astype(np.float32) for size in (30, 20))


def follow(network: keras.Model, average: WeightAverage, count: int, *, begin: int = 1) -> None:
    """After step t the learning weight is t."""
    for step in range(begin, count + 1):
        network.get_layer("learns").kernel.assign(np.full((3, 1), step, np.float32))
        average.add_step(step / count)


def test_after_one_step_the_average_is_the_weights(network):
    average = WeightAverage(network, "ema")
    follow(network, average, 1)
    with average.applied(batches):
        np.testing.assert_allclose(network.get_layer("learns").kernel.numpy(), np.ones((3, 1)), rtol=1e-6)


@pytest.mark.parametrize("steps", [10, 300])
def test_an_ema_weighs_steps_by_a_power_however_many_there_are(network, steps):
    average = WeightAverage(network, "ema")
    follow(network, average, steps)
    at = np.arange(1, steps + 1)
    # The recursion's closed form: the product of what every later step leaves.
    left = (1 - 1 / at) ** 7.94
    weights = (1 - left) * np.append(np.cumprod(left[::-1])[::-1][1:], 1.0)
    assert weights.sum() == pytest.approx(1)
    with average.applied(batches):
        kernel = float(network.get_layer("learns").kernel.numpy()[0, 0])
    assert kernel == pytest.approx((weights * at).sum(), rel=1e-4)
    if steps >= 100:
        assert kernel / steps == pytest.approx(7.94 / 8.94, abs=0.01), "the power function's mean"
        spread = np.sqrt((weights * at**2).sum() - (weights * at).sum() ** 2) / steps
        assert spread == pytest.approx(0.10, abs=0.005)


def test_swa_is_the_mean_of_the_last_quarter(network):
    average = WeightAverage(network, "swa")
    follow(network, average, 40)
    with average.applied(batches):
        np.testing.assert_allclose(network.get_layer("learns").kernel.numpy(), np.arange(30, 41).mean(), rtol=1e-5)


def test_before_swa_begins_the_weights_are_evaluated_as_they_are(network):
    average = WeightAverage(network, "swa")
    network.get_layer("learns").kernel.assign(np.full((3, 1), 7, np.float32))
    average.add_step(0.74)
    assert average.values == []
    with average.applied(batches):
        np.testing.assert_array_equal(network.get_layer("learns").kernel.numpy(), np.full((3, 1), 7))


def test_training_continues_from_its_own_weights_even_after_a_failure(network):
    average = WeightAverage(network, "ema")
    follow(network, average, 5)
    before = network.get_weights()

    def fail_in_evaluation() -> None:
        with average.applied(batches):
            changed = [not np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True)]
            assert sum(changed) == 3, "the learning weight, and the statistics of its images"
            raise RuntimeError("judging")

    with pytest.raises(RuntimeError, match="judging"):
        fail_in_evaluation()
    for value, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_resumes_where_it_stopped(network, kind):
    straight = WeightAverage(network, kind)
    follow(network, straight, 40)
    broken = WeightAverage(network, kind)
    follow(network, broken, 40)
    first = WeightAverage(network, kind)
    for step in range(1, 34):
        network.get_layer("learns").kernel.assign(np.full((3, 1), step, np.float32))
        first.add_step(step / 40)
    second = WeightAverage(network, kind, averages=first.values, steps=first.steps)
    follow(network, second, 40, begin=34)
    for value, other in zip(straight.values, second.values, strict=True):
        np.testing.assert_array_equal(value, other)


def test_frozen_weights_are_not_followed(network):
    network.get_layer("norm").trainable = False
    average = WeightAverage(network, "ema")
    average.add_step(0.1)
    assert [value.shape for value in average.values] == [(3, 1)]
    with average.applied(lambda: pytest.fail("frozen statistics are not taken anew")):
        np.testing.assert_array_equal(network.get_layer("norm").moving_mean.numpy(), np.zeros(3))


def test_statistics_are_those_of_the_averaged_weights(network):
    """A weight before the normalisation is learned as well: its average is 2, the last value 3."""
    network.get_layer("frozen").trainable = True
    kernel = network.get_layer("frozen").kernel
    average = WeightAverage(network, "swa")
    for step in (1, 2, 3):
        kernel.assign(np.full((2, 3), step, np.float32))
        average.add_step(1.0)
    seen = np.concatenate(list(batches())).sum(axis=1)
    norm = network.get_layer("norm")
    with average.applied(batches):
        np.testing.assert_allclose(norm.moving_mean.numpy(), np.full(3, 2 * seen.mean()), rtol=1e-5)
        np.testing.assert_allclose(norm.moving_variance.numpy(), np.full(3, 4 * seen.var()), rtol=1e-4)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), np.zeros(3))
