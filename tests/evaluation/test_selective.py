"""How confident a prediction is, and below which confidence the model abstains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from bloodauto.evaluation.selective import (
    CONFIDENCE_SCORES,
    confidence_score,
    fit_abstention,
    is_confident,
    risk_coverage,
)
from bloodauto.run.artifacts import ConfidenceScore
from bloodauto.types import Labels, Probabilities


def _sample(rng: np.random.Generator, count: int, skill: float) -> tuple[Probabilities, Labels]:
    labels = rng.integers(0, 5, count)
    return softmax(rng.normal(0, 1.5, (count, 5)) + skill * np.eye(5)[labels], axis=1), labels


@pytest.mark.parametrize("name", CONFIDENCE_SCORES)
def test_a_single_class_is_most_confident_and_equal_probabilities_are_least(name: ConfidenceScore) -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.6, 0.3, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    values = confidence_score(rows, name)
    assert np.isfinite(values).all()
    assert values[0] > values[1] > values[2]


def test_confidence_scores_by_hand() -> None:
    row = np.array([[0.5, 0.25, 0.25]])
    assert confidence_score(row, "max_probability")[0] == 0.5
    assert confidence_score(row, "margin")[0] == 0.25
    assert confidence_score(row, "entropy")[0] == pytest.approx(-1.5 * np.log(2))


def test_risk_coverage_by_hand() -> None:
    curve = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]))
    assert curve.coverage == (0.25, 0.5, 0.75, 1.0)
    assert curve.risk == pytest.approx((0, 0, 1 / 3, 1 / 4))
    assert curve.aurc == pytest.approx((1 / 3 + 1 / 4) / 4)


def test_predictions_of_equal_confidence_have_the_mean_of_their_errors_in_any_order() -> None:
    confidence, correct = np.full(6, 0.5), np.array([True, True, True, False, False, False])
    assert risk_coverage(confidence, correct) == risk_coverage(confidence, correct[::-1])
    assert set(risk_coverage(confidence, correct).risk) == {0.5}


@given(st.integers(0, 10_000), st.integers(1, 300), st.sampled_from(CONFIDENCE_SCORES))
@settings(max_examples=40)
def test_at_least_the_requested_fraction_of_clean_images_gets_a_prediction(
    seed: int, count: int, name: ConfidenceScore
) -> None:
    rng = np.random.default_rng(seed)
    clean, labels = _sample(rng, count, 2.0)
    shifted, shifted_labels = _sample(rng, 40, 0.5)
    abstention = fit_abstention(clean, labels, shifted, shifted_labels, name=name, coverage=0.9)
    covered = is_confident(clean, abstention.rule)
    assert covered.mean() >= 0.9 - 1e-9
    assert covered.sum() <= np.ceil(0.9 * count) + 1
    assert abstention.clean.coverage == covered.mean()
    assert abstention.shifted is not None
    assert abstention.shifted.coverage == is_confident(shifted, abstention.rule).mean()


def test_confident_predictions_are_correct_more_often_and_shifted_images_get_fewer_of_them() -> None:
    rng = np.random.default_rng(0)
    clean, labels = _sample(rng, 2000, 4.0)
    shifted, shifted_labels = _sample(rng, 2000, 2.0)
    abstention = fit_abstention(clean, labels, shifted, shifted_labels)
    assert abstention.shifted is not None
    assert abstention.clean.accuracy is not None
    assert abstention.shifted.accuracy is not None
    assert abstention.clean.accuracy > (clean.argmax(axis=1) == labels).mean()
    assert abstention.shifted.accuracy > (shifted.argmax(axis=1) == shifted_labels).mean() + 0.04
    assert abstention.shifted.coverage < abstention.clean.coverage - 0.1


def test_without_shifted_images_only_clean_ones_are_described() -> None:
    clean, labels = _sample(np.random.default_rng(1), 50, 2.0)
    assert fit_abstention(clean, labels, clean[:0], labels[:0]).shifted is None
