"""Every metric equals scikit-learn's, scipy's or a value worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from bloodauto.evaluation.metrics import (
    NLL_FLOOR,
    NUM_ECE_BINS,
    auroc,
    balanced_accuracy,
    compute_metrics,
    confusion_matrix,
    expected_calibration_error,
    mean_recall,
    negative_log_likelihood,
    per_class_recall,
    rank_correlation,
    reliability_bins,
    softmax,
    validation_figures,
    weighted_balanced_accuracy,
    wilson_interval,
)


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 9), count=st.integers(1, 60))
def test_metrics_are_scikit_learns(seed: int, classes: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    probabilities = rng.dirichlet(np.full(classes, 0.5), count)
    predictions = probabilities.argmax(axis=1)
    metrics = compute_metrics(labels, probabilities)
    np.testing.assert_array_equal(
        confusion_matrix(labels, predictions, classes),
        reference.confusion_matrix(labels, predictions, labels=np.arange(classes)),
    )
    assert metrics.accuracy == pytest.approx(reference.accuracy_score(labels, predictions))
    # Of the classes that occur; scikit-learn's own balanced accuracy warns of the others.
    recalls = reference.recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0)
    assert metrics.balanced_accuracy == pytest.approx(recalls)
    assert metrics.macro_f1 == pytest.approx(reference.f1_score(labels, predictions, average="macro", zero_division=0))
    floored = np.maximum(probabilities[np.arange(count), labels], NLL_FLOOR)
    assert metrics.loss == pytest.approx(-np.log(floored).mean())


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 5), count=st.integers(1, 40))
def test_weighted_metrics_are_scikit_learns(seed: int, classes: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, classes, (2, count))
    weights = rng.uniform(0.1, 2.0, count)
    weighted = confusion_matrix(labels, predictions, classes, weights=weights)
    expected = reference.confusion_matrix(labels, predictions, labels=np.arange(classes), sample_weight=weights)
    np.testing.assert_allclose(weighted, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = reference.balanced_accuracy_score(labels, predictions, sample_weight=weights)
    assert weighted_balanced_accuracy(labels, predictions == labels, weights=weights) == pytest.approx(balanced)
    assert balanced_accuracy(weighted) == pytest.approx(balanced)


def test_the_loss_is_scikit_learns_away_from_zero() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 4, 50), rng.dirichlet(np.full(4, 3.0), 50)
    expected = reference.log_loss(labels, probabilities, labels=np.arange(4))
    assert compute_metrics(labels, probabilities).loss == pytest.approx(expected, rel=1e-6)


def test_one_confident_mistake_costs_at_most_the_floor() -> None:
    labels = np.array([0, 1])
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert negative_log_likelihood(labels, probabilities) == pytest.approx(-np.log(NLL_FLOOR) / 2)
    weights = np.array([0.75, 0.25])
    assert negative_log_likelihood(labels, probabilities, weights=weights) == pytest.approx(-np.log(NLL_FLOOR) / 4)


def test_recall_by_hand_leaves_absent_classes_out() -> None:
    correct, total = np.array([[3, 0, 1], [0, 0, 2]]), np.array([[4, 0, 2], [2, 0, 2]])
    np.testing.assert_array_equal(per_class_recall(correct, total), [[0.75, np.nan, 0.5], [0.0, np.nan, 1.0]])
    np.testing.assert_array_equal(mean_recall(correct, total), [0.625, 0.5])


def test_balanced_accuracy_of_stacked_confusions_is_that_of_each() -> None:
    confusions = np.random.default_rng(1).integers(0, 9, (5, 3, 3)) + np.eye(3, dtype=int)
    np.testing.assert_allclose(
        balanced_accuracy(confusions), [balanced_accuracy(confusion) for confusion in confusions]
    )


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    labels = np.array([0, 1, 1])
    assert expected_calibration_error(labels, probabilities) == pytest.approx((2 * 0.4 + 1 * 0.4) / 3)
    first, second = reliability_bins(labels, probabilities)
    assert (first.images, first.confidence, first.accuracy) == (1, pytest.approx(0.6), 1.0)
    assert (second.images, second.confidence, second.accuracy) == (2, pytest.approx(0.9), 0.5)
    assert second.high - second.low == pytest.approx(1 / NUM_ECE_BINS)


def test_the_figures_of_the_report_have_the_calibration_error_of_the_run() -> None:
    rng = np.random.default_rng(3)
    probabilities, labels = rng.dirichlet(np.full(4, 0.5), 80), rng.integers(0, 4, 80)
    figures = validation_figures(labels, probabilities)
    assert figures.ece == expected_calibration_error(labels, probabilities)
    assert figures.reliability == reliability_bins(labels, probabilities)
    np.testing.assert_array_equal(figures.confusion, confusion_matrix(labels, probabilities.argmax(axis=1), 4))


@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 60), classes=st.integers(2, 9))
def test_laws_of_the_reliability_bins(seed: int, images: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.full(classes, 0.5), images), rng.integers(0, classes, images)
    bins = reliability_bins(labels, probabilities)
    assert sum(part.images for part in bins) == images
    assert len(bins) <= NUM_ECE_BINS
    assert all(part.low <= part.confidence <= part.high + 1e-9 for part in bins)
    assert 0 <= expected_calibration_error(labels, probabilities) <= 1


def test_auroc_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(2)
    positive, negative = rng.normal(1, 1, 80).round(1), rng.normal(0, 1, 50).round(1)
    expected = reference.roc_auc_score([1] * 80 + [0] * 50, np.concatenate([positive, negative]))
    assert auroc(positive, negative) == pytest.approx(expected)
    assert auroc(np.array([1.0]), np.array([1.0])) == 0.5
    assert auroc(np.array([2.0, 3.0]), np.array([1.0])) == 1.0


def test_rank_correlation_by_hand() -> None:
    # Spearman 1 - 6 * (sum of squared rank differences, 2) / (3 * 8); Kendall (2 concordant - 1 discordant pairs) / 3.
    assert vars(rank_correlation([1, 2, 3], [10, 30, 20])) == pytest.approx({"spearman": 0.5, "kendall": 1 / 3})
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None


def test_wilson_interval() -> None:
    # The reference is statsmodels' proportion_confint(method="wilson").
    assert wilson_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0
    assert wilson_interval(980, 1000)[0] > wilson_interval(98, 100)[0]


def test_softmax_of_large_logits_stays_finite_and_keeps_differences() -> None:
    logits = np.array([[1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities[0], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0], rtol=1e-6)
    np.testing.assert_allclose(probabilities[1], 1 / 3)
