from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import Loss, Optimizer, Schedule
from bloodauto.errors import RecipeError
from bloodauto.training.optimizers import (
    build_loss,
    build_optimizer,
    check_loss,
    class_weights,
    learning_rate_factor,
    weight_targets,
)

OPTIMIZERS = ["adam", "adamw", "nadam", "lion", "sgd", "rmsprop"]

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
    weights = class_weights(Loss(class_weights=kind), np.array(counts))
    assert weights.dtype == np.float32
    assert np.isfinite(weights).all()
    occurring = np.array(counts) > 0
    if occurring.all():
        assert weights[labels].mean() == pytest.approx(1, rel=1e-4)
    order = np.argsort(np.array(counts)[occurring], kind="stable")
    assert (np.diff(weights[occurring][order]) <= 1e-6).all(), "a rarer class never weighs less"


def test_balanced_weights_give_each_class_the_same_sum():
    counts = np.array([10, 40, 150])
    sums = class_weights(Loss(class_weights="balanced"), counts) * counts
    assert sums == pytest.approx(sums.mean(), rel=1e-5)


def test_effective_numbers_are_the_papers():
    weights = class_weights(Loss(class_weights="effective_number"), np.array([100, 1000]))
    expected = (1 - 0.999**1000) / (1 - 0.999**100)
    assert weights[0] / weights[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_downhill(name, decay):
    optimizer = build_optimizer(Optimizer(name=name, learning_rate=0.05, weight_decay=decay, clip_norm=1.0))
    kernel = keras.Variable(np.full((3, 2), 2.0, np.float32), name="kernel")
    for _ in range(5):
        before = kernel.numpy()
        optimizer.apply([keras.ops.convert_to_tensor(2 * before)], [kernel])
        assert (kernel.numpy() < before).all()
        assert (kernel.numpy() > 0).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_is_decoupled_and_spares_biases_and_normalisation(name):
    """Without a gradient nothing but the decay acts: the kernel shrinks by rate x decay, the others stay."""
    optimizer = build_optimizer(Optimizer(name=name, learning_rate=0.1, weight_decay=0.2))
    variables = [keras.Variable(np.ones(4, np.float32), name=part) for part in ("kernel", "bias", "gamma", "beta")]
    optimizer.apply([keras.ops.zeros(4)] * 4, variables)
    np.testing.assert_allclose(variables[0].numpy(), 1 - 0.1 * 0.2, rtol=1e-5)
    for no_decay in variables[1:]:
        np.testing.assert_array_equal(no_decay.numpy(), 1)


def test_gradients_are_clipped_by_their_norm():
    optimizer = build_optimizer(Optimizer(name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=0.5))
    kernels = [keras.Variable(np.zeros(1, np.float32), name="kernel") for _ in range(2)]
    optimizer.apply([keras.ops.convert_to_tensor(np.array([size], np.float32)) for size in (30.0, 40.0)], kernels)
    moved = -np.array([kernel.numpy()[0] for kernel in kernels])
    np.testing.assert_allclose(moved, [0.3, 0.4], rtol=1e-5, err_msg="one norm over all weights")


@given(
    schedule=st.sampled_from(
        [{"name": "constant"}, {"name": "cosine"}, {"name": "exponential"}, {"name": "step", "steps": 3}]
    ),
    warmup=st.floats(0, 0.5),
    final=st.floats(0, 1),
    progress=st.floats(-0.1, 1.1),
)
def test_a_factor_is_never_0_at_the_start_nor_above_1(schedule, warmup, final, progress):
    schedule = Schedule(**schedule, warmup_fraction=warmup, final_factor=final)
    factor = learning_rate_factor(schedule, progress)
    assert 0 <= factor <= 1 + 1e-12
    assert learning_rate_factor(schedule, 0.0) > 0
    if warmup <= progress <= 1 and schedule.name != "constant":
        assert learning_rate_factor(schedule, 1.0) <= factor + 1e-12


def test_schedules_at_known_points():
    cosine = Schedule(name="cosine", warmup_fraction=0.2, final_factor=0.1)
    assert [learning_rate_factor(cosine, at) for at in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1.0, 0.55, 0.1])
    exponential = Schedule(name="exponential", final_factor=0.01)
    assert [learning_rate_factor(exponential, at) for at in (0, 0.5, 1)] == pytest.approx([1, 0.1, 0.01])
    constant = Schedule(name="constant", warmup_fraction=0.5)
    assert [learning_rate_factor(constant, at) for at in (0, 0.25, 0.5, 1)] == pytest.approx([0.01, 0.5, 1, 1])
    step = Schedule(name="step", steps=2, final_factor=0.01)
    at = (0, 0.33, 0.34, 0.66, 0.67, 1)
    assert [learning_rate_factor(step, one) for one in at] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    plateau = Schedule(name="plateau", metric="loss", factor=0.5, patience_epochs=2, warmup_fraction=0.2)
    assert [learning_rate_factor(plateau, one) for one in (0.1, 0.2, 1)] == pytest.approx([0.5, 1, 1])


def test_a_number_as_alpha_scales_the_focal_loss_and_a_list_weighs_the_classes():
    plain = value_of(Loss(name="focal", gamma=2.0))
    assert value_of(Loss(name="focal", gamma=2.0, alpha=0.25)) == pytest.approx(0.25 * plain, rel=1e-5)
    factors = (0.1, 0.5, 1.0, 2.0, 4.0)
    logs = log_softmax(LOGITS)
    expected = -(TARGETS * np.array(factors) * (1 - np.exp(logs)) ** 2.0 * logs).sum(axis=1).mean()
    assert value_of(Loss(name="focal", gamma=2.0, alpha=factors)) == pytest.approx(expected, rel=1e-4)


def test_alpha_needs_a_factor_for_each_class():
    loss = Loss(name="focal", gamma=2.0, alpha=(0.5, 1.0))
    check_loss(loss, 2)
    with pytest.raises(RecipeError, match=r"loss\.alpha: expected 8 factors, one for each class, got 2"):
        check_loss(loss, 8)


@given(seed=st.integers(0, 1000))
def test_weighing_mixed_targets_keeps_the_weighted_cross_entropy(seed):
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.ones(5), 7).astype(np.float32)
    weights = rng.uniform(0.1, 4, 5).astype(np.float32)
    losses = -log_softmax(LOGITS[:7])
    moved, total = weight_targets(targets, weights)
    np.testing.assert_allclose(moved.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        total * (moved * losses).sum(axis=1), (targets * weights * losses).sum(axis=1), rtol=1e-5
    )


def test_weighing_leaves_one_hot_targets_as_they_are():
    weights = np.array([0.5, 1, 2, 3, 4], np.float32)
    moved, total = weight_targets(TARGETS, weights)
    np.testing.assert_array_equal(moved, TARGETS)
    np.testing.assert_array_equal(total, weights[TARGETS.argmax(axis=1)])


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_momentum_carries_on_where_the_gradient_ends(name):
    moved = {}
    for momentum in (0.0, 0.9):
        optimizer = build_optimizer(Optimizer(name=name, learning_rate=0.1, momentum=momentum))
        kernel = keras.Variable(np.zeros(1, np.float32), name="kernel")
        optimizer.apply([keras.ops.ones(1)], [kernel])
        after_one = kernel.numpy().copy()
        optimizer.apply([keras.ops.zeros(1)], [kernel])
        moved[momentum] = float((kernel.numpy() - after_one)[0])
    assert moved[0.0] == 0
    assert moved[0.9] < 0


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_share_of_the_rate_is_what_a_lower_rate_would_do(name, decay):
    """Step by step as an optimizer of its own for each variable, weight decay included."""
    rate_multipliers, rng = (1.0, 0.5, 0.01), np.random.default_rng(0)
    settings = {"name": name, "weight_decay": decay}
    names = ("kernel", "kernel", "bias")
    together = [keras.Variable(np.ones(3, np.float32), name=one) for one in names]
    alone = [keras.Variable(np.ones(3, np.float32), name=one) for one in names]
    joint = build_optimizer(Optimizer(learning_rate=0.1, **settings), rate_multipliers)
    single = [build_optimizer(Optimizer(learning_rate=0.1 * share, **settings)) for share in rate_multipliers]
    for _ in range(4):
        gradients = [keras.ops.convert_to_tensor(rng.normal(size=3).astype(np.float32)) for _ in rate_multipliers]
        joint.apply(gradients, together)
        for optimizer, gradient, variable in zip(single, gradients, alone, strict=True):
            optimizer.apply([gradient], [variable])
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5)
        assert not np.allclose(one.numpy(), 1)
