from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from bloodauto.evaluation.metrics import compute_metrics, confusion_matrix, softmax


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 9), count=st.integers(1, 60))
def test_figures_are_scikit_learns(seed, classes, count):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    probabilities = rng.dirichlet(np.full(classes, 0.5), count)
    answers = probabilities.argmax(axis=1)
    found = compute_metrics(labels, probabilities)
    np.testing.assert_array_equal(
        confusion_matrix(labels, answers, classes),
        reference.confusion_matrix(labels, answers, labels=np.arange(classes)),
    )
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, answers))
    # Of the classes that occur; scikit-learn's own balanced accuracy warns of the others.
    recalls = reference.recall_score(labels, answers, labels=np.unique(labels), average="macro", zero_division=0)
    assert found.balanced_accuracy == pytest.approx(recalls)
    assert found.macro_f1 == pytest.approx(reference.f1_score(labels, answers, average="macro", zero_division=0))
    floored = np.maximum(probabilities[np.arange(count), labels], 1e-7)
    assert found.loss == pytest.approx(-np.log(floored).mean())


def test_the_loss_is_scikit_learns_away_from_zero():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 4, 50), rng.dirichlet(np.full(4, 3.0), 50)
    expected = reference.log_loss(labels, probabilities, labels=np.arange(4))
    assert compute_metrics(labels, probabilities).loss == pytest.approx(expected, rel=1e-6)


def test_softmax_of_large_logits_stays_finite_and_keeps_differences():
    logits = np.array([[1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    found = softmax(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0], rtol=1e-6)
    np.testing.assert_allclose(found[1], 1 / 3)
