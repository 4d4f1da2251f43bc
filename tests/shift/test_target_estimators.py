"""Estimates from unlabelled images, on class probabilities whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.errors import DataError
from bloodauto.shift.target_estimators import _class_slots, estimate_by_transport, mean_agreement
from bloodauto.types import Labels, Probabilities

CLASSES = 4


def class_probabilities(rng: np.random.Generator, labels: Labels, strength: float) -> Probabilities:
    """Calibrated probabilities: the posterior of evidence of that strength for the truth, float (n, CLASSES)."""
    evidence = rng.normal(0, 1, (len(labels), CLASSES)) * np.sqrt(strength)
    evidence[np.arange(len(labels)), labels] += strength
    odds = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


EVEN = np.ones(CLASSES)


def test_a_perfect_network_is_estimated_perfect_and_a_constant_one_by_its_class() -> None:
    labels = np.arange(400) % CLASSES
    assert estimate_by_transport(np.eye(CLASSES)[labels], EVEN) == 1.0
    # Confident and wrong on three quarters: only so many images can be of the class that it predicts.
    assert estimate_by_transport(np.eye(CLASSES)[np.zeros(400, int)], EVEN) == pytest.approx(1 / CLASSES)
    assert estimate_by_transport(np.eye(CLASSES)[np.zeros(400, int)], np.array([1.0, 0, 0, 0])) == 1.0


def test_it_follows_the_accuracy_of_networks_that_are_confident_and_wrong() -> None:
    """The more images a network puts into its favourite class, the worse; confidence rises all the while."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=1000)
    truths, estimates, confidences = [], [], []
    for fraction in (0.1, 0.4, 0.8):
        target = class_probabilities(rng, labels, 4.0)
        target[rng.random(1000) < fraction] = [0.999, 0.0005, 0.0003, 0.0002]
        truths.append((target.argmax(axis=1) == labels).mean())
        estimates.append(estimate_by_transport(target, EVEN))
        confidences.append(target.max(axis=1).mean())
    assert confidences == sorted(confidences)
    assert estimates == sorted(estimates, reverse=True)
    np.testing.assert_allclose(estimates, truths, atol=0.1)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda weights: sum(weights) > 0.01), st.integers(1, 300)
)
def test_classes_get_images_in_the_requested_proportions(weights: list[float], count: int) -> None:
    fractions = np.array(weights) / sum(weights)
    counts = np.bincount(_class_slots(fractions, count), minlength=len(fractions))
    assert counts.sum() == count
    assert (np.abs(counts - fractions * count) < 1.0 + 1e-6).all()


def test_agreement_is_of_pairs() -> None:
    first, second = np.eye(2)[[0, 0, 1, 1]], np.eye(2)[[0, 1, 1, 0]]
    assert mean_agreement([first, first]) == 1.0
    assert mean_agreement([first, first, second]) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_impossible_inputs_are_refused() -> None:
    some = np.full((3, CLASSES), 1 / CLASSES)
    for target, fractions in ((some[:0], EVEN), (some, EVEN[1:]), (some[0], EVEN)):
        with pytest.raises(DataError, match="fraction for each class"):
            estimate_by_transport(target, fractions)
    for fractions in (0 * EVEN, -EVEN, np.array([np.nan, 1, 1, 1])):
        with pytest.raises(DataError, match="not all 0"):
            estimate_by_transport(some, fractions)
