"""Losses against their formulas, class weights, and class weights in mixed targets."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import Loss
from bloodauto.errors import RecipeError
from bloodauto.training.losses import AdjustableLoss, check_loss, class_weights, weight_targets

LOGITS = np.random.default_rng(0).normal(0, 2, (64, 5)).astype(np.float32)
TARGETS = np.eye(5, dtype=np.float32)[np.random.default_rng(1).integers(0, 5, 64)]


def value_of(loss: Loss, targets: np.ndarray = TARGETS, logits: np.ndarray = LOGITS) -> float:
    return float(AdjustableLoss(loss, logits.shape[1])(targets, logits))


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
def test_the_focal_gradient_stays_finite_where_the_prediction_is_certain(gamma):
    logits = tf.Variable([[60.0, 0.0], [-60.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = AdjustableLoss(Loss(name="focal", gamma=gamma), 2)(
            np.array([[1.0, 0.0], [1.0, 0.0]], np.float32), logits
        )
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


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


@given(seed=st.integers(0, 1000))
def test_weighing_mixed_targets_keeps_the_weighted_cross_entropy(seed):
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.ones(5), 7).astype(np.float32)
    weights = rng.uniform(0.1, 4, 5).astype(np.float32)
    losses = -log_softmax(LOGITS[:7])
    weighted, total = weight_targets(targets, weights)
    np.testing.assert_allclose(weighted.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        total * (weighted * losses).sum(axis=1), (targets * weights * losses).sum(axis=1), rtol=1e-5
    )


def test_weighing_leaves_one_hot_targets_as_they_are():
    weights = np.array([0.5, 1, 2, 3, 4], np.float32)
    weighted, total = weight_targets(TARGETS, weights)
    np.testing.assert_array_equal(weighted, TARGETS)
    np.testing.assert_array_equal(total, weights[TARGETS.argmax(axis=1)])
