"""The interval for another laboratory holds as often as it says, also for causes it was not made with."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.shift.external_estimate import (
    MIN_SIMULATED_SITES,
    ExternalEstimate,
    SiteOutcome,
    _fit,
    _Sample,
    _widening,
    estimate_external_performance,
)

SHIFT_FACTORS = ("optics", "sensor", "light", "stain", "artefacts", "geometry")


def _outcomes(rng: np.random.Generator, count: int, effects: np.ndarray, *, images: int = 32) -> list[SiteOutcome]:
    """Laboratories of two to six causes, each costing its effect times a severity in log-odds."""
    found = []
    for number in range(count):
        chosen = rng.permutation(len(SHIFT_FACTORS))[: 2 + number % (len(SHIFT_FACTORS) - 1)]
        log_odds = 3.5 - (effects[chosen] * rng.uniform(0.5, 2.0)).sum()
        correct = int(rng.binomial(images, 1 / (1 + np.exp(-log_odds))))
        found.append(SiteOutcome(tuple(SHIFT_FACTORS[index] for index in chosen), correct, images))
    return found


def _expected(outcomes: list[SiteOutcome], **given: float) -> ExternalEstimate:
    expectation = estimate_external_performance(outcomes, **given)
    assert expectation is not None
    return expectation


def _inside(expectation: ExternalEstimate, outcomes: list[SiteOutcome]) -> float:
    return float(np.mean([expectation.low <= one.correct / one.images <= expectation.high for one in outcomes]))


def test_new_laboratories_of_the_same_kind_lie_inside_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(8):
        effects = rng.gamma(2.0, 0.3, len(SHIFT_FACTORS))
        covered.append(_inside(_expected(_outcomes(rng, 40, effects)), _outcomes(rng, 200, effects, images=1000)))
    assert np.mean(covered) >= 0.9


def test_what_few_images_miss_by_chance_is_no_difference_between_laboratories() -> None:
    """Laboratories that are all alike: the interval is narrower than the scatter of what was measured in them."""
    rng = np.random.default_rng(5)
    outcomes = [SiteOutcome(("stain",), int(rng.binomial(16, 0.8)), 16) for _ in range(64)]
    found = _expected(outcomes)
    low, high = np.quantile([one.correct / one.images for one in outcomes], [0.05, 0.95])
    assert found.low <= 0.8 <= found.high
    assert found.high - found.low < 0.7 * (high - low)


def test_a_nominal_nine_tenths_covers_at_least_85_percent_of_left_out_causes() -> None:
    rng = np.random.default_rng(1)
    measured = []
    for _ in range(8):
        found = _expected(_outcomes(rng, 96, rng.gamma(2.0, 0.3, len(SHIFT_FACTORS)), images=12)).measured_coverage
        assert found is not None
        measured.append(found)
    assert np.mean(measured) >= 0.85


def test_a_cause_unlike_all_others_widens_the_interval() -> None:
    alike = np.full(len(SHIFT_FACTORS), 0.4)
    unlike = np.array([0.4, 0.4, 0.4, 5.0, 0.4, 0.4])
    widths = []
    for effects in (alike, unlike):
        found = _expected(_outcomes(np.random.default_rng(2), 40, effects))
        widths.append(found.high - found.low)
    assert widths[1] > widths[0]


@given(st.integers(0, 10_000), st.integers(MIN_SIMULATED_SITES, 60), st.floats(0.5, 0.95))
@settings(max_examples=10)
def test_bounds_are_shares_around_the_middle(seed: int, count: int, nominal: float) -> None:
    outcomes = _outcomes(np.random.default_rng(seed), count, np.full(len(SHIFT_FACTORS), 0.6))
    found = _expected(outcomes, nominal_coverage=nominal)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_whichever_cause_is_left_out_no_more_lie_beyond_a_bound_than_allowed() -> None:
    rng = np.random.default_rng(7)
    outcomes = _outcomes(rng, 200, np.array([0.2, 1.2, 0.3, 0.4, 0.1, 0.2]), images=12)
    sample = _Sample(
        np.array([one.correct for one in outcomes], dtype=float),
        np.array([one.images for one in outcomes], dtype=float),
        np.array([[name in one.shift_factors for name in SHIFT_FACTORS] for one in outcomes]),
    )
    widening, population = _widening(sample, 0.9), _fit(sample)
    parts = sample.leave_one_factor_out()
    assert len(parts) == len(SHIFT_FACTORS)
    for rest, affected in parts:
        below, above = population.outside(affected, *_fit(rest).bounds(0.9, *widening))
        assert float(below) <= 0.05
        assert float(above) <= 0.05


def test_the_expected_accuracy_is_the_mean_over_the_laboratories() -> None:
    outcomes = [SiteOutcome(("stain", "light", "optics"), correct, 32) for correct in range(8, 28)]
    found = _expected(outcomes)
    assert found.mean == pytest.approx(np.mean([one.correct / one.images for one in outcomes]), abs=0.02)
    assert found.low < found.mean < found.high


def test_causes_that_only_harm_lower_the_low_bound_and_leave_the_high_one() -> None:
    without = [SiteOutcome(("light",), correct, 32) for correct in (27, 28, 29, 30, 31) * 4]
    harmed = [SiteOutcome(("light", "stain"), correct, 32) for correct in (9, 12, 15, 18, 21) * 4]
    both, mild = _expected(without + harmed), _expected(without)
    assert both.low < mild.low - 0.2
    assert both.high == pytest.approx(mild.high, abs=0.06)


def test_the_order_of_the_laboratories_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    outcomes = _outcomes(rng, 30, np.full(len(SHIFT_FACTORS), 0.6))
    one, other = _expected([outcomes[index] for index in rng.permutation(30)]), _expected(outcomes)
    assert astuple(one) == pytest.approx(astuple(other), abs=0.01)


def test_too_few_laboratories_give_no_interval() -> None:
    assert (
        estimate_external_performance(_outcomes(np.random.default_rng(4), MIN_SIMULATED_SITES - 1, np.full(6, 0.5)))
        is None
    )


def test_without_a_cause_to_leave_out_no_coverage_is_claimed() -> None:
    outcomes = [SiteOutcome(("stain",), correct, 32) for correct in range(10, 30)]
    assert _expected(outcomes).measured_coverage is None


def test_flawless_answers_are_no_reason_to_promise_everything() -> None:
    found = _expected([SiteOutcome((SHIFT_FACTORS[index % 6],), 32, 32) for index in range(24)])
    assert found.low < 1
    assert found.high > 0.9


@pytest.mark.parametrize("arguments", [((), 1, 2), (("stain",), 3, 2), (("stain",), 0, 0)])
def test_impossible_outcomes_are_refused(arguments: tuple[tuple[str, ...], int, int]) -> None:
    with pytest.raises(AssertionError):
        SiteOutcome(*arguments)
