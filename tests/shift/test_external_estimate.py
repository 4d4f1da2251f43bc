"""The interval for another site holds as often as it says, also for shift factors that it was not fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.run.artifacts import ExternalEstimate
from bloodauto.shift.external_estimate import (
    MIN_SIMULATED_SITES,
    SiteOutcome,
    _fit,
    _Sample,
    _widening,
    estimate_external_performance,
)

SHIFT_FACTORS = ("optics", "sensor", "light", "stain", "artefacts", "geometry")


def _outcomes(rng: np.random.Generator, count: int, effects: np.ndarray, *, images: int = 32) -> list[SiteOutcome]:
    """Sites with two to six shift factors, each of which costs its effect times a severity in log-odds."""
    outcomes = []
    for number in range(count):
        chosen = rng.permutation(len(SHIFT_FACTORS))[: 2 + number % (len(SHIFT_FACTORS) - 1)]
        log_odds = 3.5 - (effects[chosen] * rng.uniform(0.5, 2.0)).sum()
        correct = int(rng.binomial(images, 1 / (1 + np.exp(-log_odds))))
        outcomes.append(SiteOutcome(tuple(SHIFT_FACTORS[index] for index in chosen), correct, images))
    return outcomes


def _estimate(outcomes: list[SiteOutcome], nominal_coverage: float = 0.9) -> ExternalEstimate:
    estimate = estimate_external_performance(outcomes, nominal_coverage=nominal_coverage)
    assert estimate is not None
    return estimate


def _fraction_inside(estimate: ExternalEstimate, outcomes: list[SiteOutcome]) -> float:
    accuracies = np.array([outcome.correct / outcome.images for outcome in outcomes])
    return float(np.mean((estimate.low <= accuracies) & (accuracies <= estimate.high)))


def test_new_sites_of_the_same_population_lie_inside_as_often_as_declared() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(8):
        effects = rng.gamma(2.0, 0.3, len(SHIFT_FACTORS))
        covered.append(
            _fraction_inside(_estimate(_outcomes(rng, 40, effects)), _outcomes(rng, 200, effects, images=1000))
        )
    assert np.mean(covered) >= 0.9


def test_chance_among_few_images_is_no_difference_between_sites() -> None:
    """All sites are alike: the interval is narrower than the scatter of the measured accuracies."""
    rng = np.random.default_rng(5)
    outcomes = [SiteOutcome(("stain",), int(rng.binomial(16, 0.8)), 16) for _ in range(64)]
    estimate = _estimate(outcomes)
    low, high = np.quantile([outcome.correct / outcome.images for outcome in outcomes], [0.05, 0.95])
    assert estimate.low <= 0.8 <= estimate.high
    assert estimate.high - estimate.low < 0.7 * (high - low)


def test_a_nominal_nine_tenths_covers_at_least_85_percent_of_excluded_factors() -> None:
    rng = np.random.default_rng(1)
    measured = []
    for _ in range(8):
        coverage = _estimate(_outcomes(rng, 96, rng.gamma(2.0, 0.3, len(SHIFT_FACTORS)), images=12)).measured_coverage
        assert coverage is not None
        measured.append(coverage)
    assert np.mean(measured) >= 0.85


def test_a_factor_unlike_all_others_widens_the_interval() -> None:
    alike = np.full(len(SHIFT_FACTORS), 0.4)
    unlike = np.array([0.4, 0.4, 0.4, 5.0, 0.4, 0.4])
    widths = []
    for effects in (alike, unlike):
        estimate = _estimate(_outcomes(np.random.default_rng(2), 40, effects))
        widths.append(estimate.high - estimate.low)
    assert widths[1] > widths[0]


@given(st.integers(0, 10_000), st.integers(MIN_SIMULATED_SITES, 60), st.floats(0.5, 0.95))
@settings(max_examples=10)
def test_bounds_are_fractions_around_the_mean(seed: int, count: int, nominal: float) -> None:
    outcomes = _outcomes(np.random.default_rng(seed), count, np.full(len(SHIFT_FACTORS), 0.6))
    estimate = _estimate(outcomes, nominal_coverage=nominal)
    assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1


def test_whichever_factor_is_excluded_no_more_lie_beyond_a_bound_than_allowed() -> None:
    rng = np.random.default_rng(7)
    outcomes = _outcomes(rng, 200, np.array([0.2, 1.2, 0.3, 0.4, 0.1, 0.2]), images=12)
    sample = _Sample(
        np.array([outcome.correct for outcome in outcomes], dtype=float),
        np.array([outcome.images for outcome in outcomes], dtype=float),
        np.array([[name in outcome.shift_factors for name in SHIFT_FACTORS] for outcome in outcomes]),
    )
    widening, population = _widening(sample, 0.9), _fit(sample)
    parts = sample.leave_one_factor_out()
    assert len(parts) == len(SHIFT_FACTORS)
    for without, affected in parts:
        below, above = population.outside(affected, *_fit(without).bounds(0.9, *widening))
        assert float(below) <= 0.05
        assert float(above) <= 0.05


def test_the_mean_is_the_mean_over_the_sites() -> None:
    outcomes = [SiteOutcome(("stain", "light", "optics"), correct, 32) for correct in range(8, 28)]
    estimate = _estimate(outcomes)
    assert estimate.mean == pytest.approx(np.mean([outcome.correct / outcome.images for outcome in outcomes]), abs=0.02)
    assert estimate.low < estimate.mean < estimate.high


def test_factors_that_only_harm_lower_the_low_bound_and_keep_the_high_one() -> None:
    unharmed = [SiteOutcome(("light",), correct, 32) for correct in (27, 28, 29, 30, 31) * 4]
    harmed = [SiteOutcome(("light", "stain"), correct, 32) for correct in (9, 12, 15, 18, 21) * 4]
    both, mild = _estimate(unharmed + harmed), _estimate(unharmed)
    assert both.low < mild.low - 0.2
    assert both.high == pytest.approx(mild.high, abs=0.06)


def test_the_order_of_the_sites_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    outcomes = _outcomes(rng, 30, np.full(len(SHIFT_FACTORS), 0.6))
    first, second = _estimate([outcomes[index] for index in rng.permutation(30)]), _estimate(outcomes)
    assert first.model_dump() == pytest.approx(second.model_dump(), abs=0.01)


def test_too_few_sites_give_no_interval() -> None:
    assert (
        estimate_external_performance(_outcomes(np.random.default_rng(4), MIN_SIMULATED_SITES - 1, np.full(6, 0.5)))
        is None
    )


def test_without_a_factor_to_exclude_no_coverage_is_claimed() -> None:
    outcomes = [SiteOutcome(("stain",), correct, 32) for correct in range(10, 30)]
    assert _estimate(outcomes).measured_coverage is None


def test_flawless_predictions_do_not_promise_perfection() -> None:
    estimate = _estimate([SiteOutcome((SHIFT_FACTORS[index % 6],), 32, 32) for index in range(24)])
    assert estimate.low < 1
    assert estimate.high > 0.9


@pytest.mark.parametrize("arguments", [((), 1, 2), (("stain",), 3, 2), (("stain",), 0, 0)])
def test_impossible_outcomes_are_refused(arguments: tuple[tuple[str, ...], int, int]) -> None:
    with pytest.raises(AssertionError):
        SiteOutcome(*arguments)
