from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.recipe import Loss, Optimizer, Schedule
from bloodauto.trial.optimisation import build_loss, build_optimizer, class_weights, learning_rate_factor

LOGITS = np.random.default_rng(0).normal(0, 2, (64, 5)).astype(np.float32)
TARGETS = np.eye(5, dtype=np.float32)[np.random.default_rng(1).integers(0, 5, 64)]


def value_of(loss: Loss, targets: np.ndarray = TARGETS, logits: np.ndarray = LOGITS) -> float:
    return float(build_loss(loss)(targets, logits))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_cross_entropy_and_its_smoothing_are_the_formula():
    smooth = TARGETS * 0.8 + 0.2 / 5
    assert value_of(Loss()) == pytest.approx(-(TARGETS * log_softmax(LOGITS)).sum(axis=1).mean(), rel=1e-5)
    smoothed = Loss(label_smoothing=0.2)
    assert value_of(smoothed) == pytest.approx(-(smooth * log_softmax(LOGITS)).sum(axis=1).mean(), rel=1e-5)


def test_focal_with_gamma_0_is_cross_entropy():
    assert value_of(Loss(name="focal", gamma=0.0)) == pytest.approx(value_of(Loss()), rel=1e-5)
    smoothed = value_of(Loss(name="focal", gamma=0.0, label_smoothing=0.1))
    assert smoothed == pytest.approx(value_of(Loss(label_smoothing=0.1)), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_is_the_papers_formula_without_alpha(gamma):
    logs = log_softmax(LOGITS)
    expected = -(TARGETS * (1 - np.exp(logs)) ** gamma * logs).sum(axis=1).mean()
    assert value_of(Loss(name="focal", gamma=gamma)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_gradient_stays_finite_where_the_answer_is_sure(gamma):
    import tensorflow as tf

    logits = tf.Variable([[60.0, 0.0], [-60.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = build_loss(Loss(name="focal", gamma=gamma))(np.array([[1.0, 0.0], [1.0, 0.0]], np.float32), logits)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


@given(
    counts=st.lists(st.integers(0, 500), min_size=2, max_size=9).filter(any),
    kind=st.sampled_from(["none", "balanced", "effective_number"]),
)
def test_class_weights_have_mean_1_over_the_images(counts, kind):
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = class_weights(Loss(class_weights=kind), labels, len(counts))
    assert weights.dtype == np.float32
    assert np.isfinite(weights).all()
    occurring = np.array(counts) > 0
    if occurring.all():
        assert weights[labels].mean() == pytest.approx(1, rel=1e-4)
    order = np.argsort(np.array(counts)[occurring], kind="stable")
    assert (np.diff(weights[occurring][order]) <= 1e-6).all(), "a rarer class never weighs less"


def test_balanced_weights_give_each_class_the_same_sum():
    labels = np.repeat([0, 1, 2], [10, 40, 150])
    weights = class_weights(Loss(class_weights="balanced"), labels, 3)
    sums = weights * np.bincount(labels)
    assert sums == pytest.approx(sums.mean(), rel=1e-5)


def test_effective_numbers_are_the_papers():
    labels = np.repeat([0, 1], [100, 1000])
    weights = class_weights(Loss(class_weights="effective_number"), labels, 2)
    expected = (1 - 0.999**1000) / (1 - 0.999**100)
    assert weights[0] / weights[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "lion", "sgd"])
def test_every_optimizer_steps_downhill(name, decay):
    optimizer = build_optimizer(Optimizer(name=name, learning_rate=0.05, weight_decay=decay, clip_norm=1.0))
    kernel = keras.Variable(np.full((3, 2), 2.0, np.float32), name="kernel")
    for _ in range(5):
        before = kernel.numpy()
        optimizer.apply([keras.ops.convert_to_tensor(2 * before)], [kernel])
        assert (kernel.numpy() < before).all()
        assert (kernel.numpy() > 0).all()


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "lion", "sgd"])
def test_weight_decay_is_decoupled_and_spares_biases_and_normalisation(name):
    """Without a gradient nothing but the decay acts: the kernel shrinks by rate x decay, the others stay."""
    optimizer = build_optimizer(Optimizer(name=name, learning_rate=0.1, weight_decay=0.2))
    variables = [keras.Variable(np.ones(4, np.float32), name=part) for part in ("kernel", "bias", "gamma", "beta")]
    optimizer.apply([keras.ops.zeros(4)] * 4, variables)
    np.testing.assert_allclose(variables[0].numpy(), 1 - 0.1 * 0.2, rtol=1e-5)
    for spared in variables[1:]:
        np.testing.assert_array_equal(spared.numpy(), 1)


def test_gradients_are_clipped_by_their_norm():
    optimizer = build_optimizer(Optimizer(name="sgd", learning_rate=1.0, clip_norm=0.5))
    optimizer.momentum = 0.0
    kernel = keras.Variable(np.zeros(2, np.float32), name="kernel")
    optimizer.apply([keras.ops.convert_to_tensor(np.array([30.0, 40.0], np.float32))], [kernel])
    assert np.linalg.norm(kernel.numpy()) <= 0.5 * 1.9 + 1e-6
    assert kernel.numpy()[1] / kernel.numpy()[0] == pytest.approx(4 / 3)


@given(
    name=st.sampled_from(["constant", "cosine", "exponential"]),
    warmup=st.floats(0, 0.5),
    final=st.floats(0, 1),
    progress=st.floats(-0.1, 1.1),
)
def test_a_factor_is_never_0_at_the_start_nor_above_1(name, warmup, final, progress):
    schedule = Schedule(name=name, warmup_fraction=warmup, final_factor=final)
    factor = learning_rate_factor(schedule, progress)
    assert 0 <= factor <= 1 + 1e-12
    assert learning_rate_factor(schedule, 0.0) > 0
    if warmup <= progress <= 1 and name != "constant":
        assert learning_rate_factor(schedule, 1.0) <= factor + 1e-12


def test_schedules_at_known_points():
    cosine = Schedule(name="cosine", warmup_fraction=0.2, final_factor=0.1)
    assert [learning_rate_factor(cosine, at) for at in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1.0, 0.55, 0.1])
    exponential = Schedule(name="exponential", final_factor=0.01)
    assert [learning_rate_factor(exponential, at) for at in (0, 0.5, 1)] == pytest.approx([1, 0.1, 0.01])
    constant = Schedule(name="constant", warmup_fraction=0.5)
    assert [learning_rate_factor(constant, at) for at in (0, 0.25, 0.5, 1)] == pytest.approx([0.01, 0.5, 1, 1])
