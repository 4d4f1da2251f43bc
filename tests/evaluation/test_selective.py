"""How sure an answer is, and where the line between an answer and "not sure" is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.evaluation.selective import (
    CONFIDENCE_SCORES,
    confidence_score,
    fit_abstention,
    is_confident,
    risk_coverage,
)


def _answers(rng: np.random.Generator, count: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 5, count)
    logits = rng.normal(0, 1.5, (count, 5)) + skill * np.eye(5)[labels]
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("name", CONFIDENCE_SCORES)
def test_a_single_class_is_surest_and_an_even_spread_least_sure(name) -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.6, 0.3, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    values = confidence_score(rows, name)
    assert np.isfinite(values).all()
    assert values[0] > values[1] > values[2]


def test_measures_by_hand() -> None:
    row = np.array([[0.5, 0.25, 0.25]])
    assert confidence_score(row, "max_probability")[0] == 0.5
    assert confidence_score(row, "margin")[0] == 0.25
    assert confidence_score(row, "entropy")[0] == pytest.approx(-1.5 * np.log(2))


def test_risk_coverage_by_hand() -> None:
    curve = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]))
    assert curve.coverage == (0.25, 0.5, 0.75, 1.0)
    assert curve.risk == pytest.approx((0, 0, 1 / 3, 1 / 4))
    assert curve.aurc == pytest.approx((1 / 3 + 1 / 4) / 4)


def test_equally_sure_answers_share_their_errors_whatever_their_order() -> None:
    confidence, correct = np.full(6, 0.5), np.array([True, True, True, False, False, False])
    assert risk_coverage(confidence, correct) == risk_coverage(confidence, correct[::-1])
    assert set(risk_coverage(confidence, correct).risk) == {0.5}


@given(st.integers(0, 10_000), st.integers(1, 300), st.sampled_from(CONFIDENCE_SCORES))
@settings(max_examples=40)
def test_the_threshold_answers_at_least_the_asked_share_of_clean_images(seed: int, count: int, name) -> None:
    rng = np.random.default_rng(seed)
    clean, labels = _answers(rng, count, 2.0)
    shifted, shifted_labels = _answers(rng, 40, 0.5)
    found = fit_abstention(clean, labels, shifted, shifted_labels, name=name, coverage=0.9)
    stands = is_confident(clean, name, found.threshold)
    assert stands.mean() >= 0.9 - 1e-9
    assert stands.sum() <= np.ceil(0.9 * count) + 1
    assert found.clean.coverage == stands.mean()
    assert found.shifted is not None
    assert found.shifted.coverage == is_confident(shifted, name, found.threshold).mean()


def test_what_is_answered_is_right_more_often_and_shifted_images_are_marked_more_often() -> None:
    rng = np.random.default_rng(0)
    clean, labels = _answers(rng, 2000, 4.0)
    shifted, shifted_labels = _answers(rng, 2000, 2.0)
    found = fit_abstention(clean, labels, shifted, shifted_labels)
    assert found.shifted is not None
    assert found.clean.accuracy > (clean.argmax(axis=1) == labels).mean()
    assert found.shifted.accuracy > (shifted.argmax(axis=1) == shifted_labels).mean() + 0.04
    assert found.shifted.coverage < found.clean.coverage - 0.1


def test_without_views_only_clean_images_are_described() -> None:
    clean, labels = _answers(np.random.default_rng(1), 50, 2.0)
    assert fit_abstention(clean, labels, clean[:0], labels[:0]).shifted is None
