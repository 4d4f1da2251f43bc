"""What accuracy to expect in another laboratory: an interval from drawn ones, widened until it holds for unknown causes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import betaln  # type: ignore[import-untyped]
from scipy.stats import beta  # type: ignore[import-untyped]

#: Fewer drawn laboratories than this say nothing of a tail.
MIN_SIMULATED_SITES = 12
#: A cause is left out where at least so many laboratories lack it, to fit what is left to, and so many have it, to judge by.
_MIN_SITES_WITHOUT, _MIN_SITES_WITH = 5, 3
#: Prior on the logarithm of a population's precision (a + b): mean and deviation. Accuracies then differ from place to place by
#: 5 to 35 points; with a few dozen laboratories it is hardly felt.
_LOG_PRECISION = (math.log(8.0), 1.5)
#: Widenings that are tried, in log-odds.
_WIDENINGS = np.linspace(0.0, 4.0, 81)
_EDGE = 1e-6


@dataclass(frozen=True)
class SiteOutcome:
    """How a model did under one drawn laboratory.

    Attributes:
        causes: what differed there: names of families, or of their groups; at least one.
        correct: how many of its images were answered rightly.
        images: how many there were, at least 1.
    """

    shift_factors: tuple[str, ...]
    correct: int
    images: int

    def __post_init__(self) -> None:
        assert self.shift_factors, "causes: expected at least one"
        assert 0 <= self.correct <= self.images, f"expected 0 <= correct <= images, got {self.correct} of {self.images}"
        assert self.images, "images: expected at least one"


@dataclass(frozen=True)
class ExternalEstimate:
    """What to expect in a laboratory that nobody has seen.

    Attributes:
        middle: mean accuracy of such laboratories, 0-1.
        low, high: bounds of the accuracy in the next one, 0-1.
        nominal_coverage: how often the bounds are meant to hold.
        measured_coverage: how often bounds made without a cause held where that cause was at work, each cause counting
            once; None where no cause could be left out.
        shifts: how many laboratories were drawn.
        causes: how many causes were left out in turn.
    """

    mean: float
    low: float
    high: float
    nominal_coverage: float
    measured_coverage: float | None
    simulated_sites: int
    shift_factors: int


def estimate_external_performance(
    outcomes: Sequence[SiteOutcome], *, nominal_coverage: float = 0.9
) -> ExternalEstimate | None:
    """An interval for the accuracy in another laboratory.

    Accuracies of laboratories are taken for draws from a beta distribution, and the right answers in each for binomial
    (Griffiths 1973, doi:10.2307/2529131): what a few images of one laboratory miss by chance is then not taken for a difference
    between laboratories. The distribution's quantiles bound the next laboratory of the same kind.

    A real laboratory also differs in a way that the drawn ones do not. So each cause is left out in turn: bounds from the
    laboratories without it are held against those with it, and either bound is moved outwards, in log-odds, until no more of
    them lie beyond it than the nominal coverage allows, whichever cause is left out. What lies beyond is judged by each
    laboratory's accuracy given all of them, so that chance among its few images counts neither for nor against. The measured
    coverage repeats all of that inside what is left when a cause is left out, so that no cause it is measured on has taken
    part in the widening.

    Causes that no family simulates (another mix of patients, another opinion on what an immature cell is) are not covered.

    Args:
        outcomes: of one model under laboratories drawn alike.
        nominal_coverage: above 0, below 1.

    Returns:
        None for fewer than ``MIN_SIMULATED_SITES`` outcomes.
    """
    assert 0 < nominal_coverage < 1, f"nominal_coverage: expected a number between 0 and 1, got {nominal_coverage}"
    if len(outcomes) < MIN_SIMULATED_SITES:
        return None
    names = sorted({cause for one in outcomes for cause in one.shift_factors})
    sample = _Sample(
        np.array([one.correct for one in outcomes], dtype=np.float64),
        np.array([one.images for one in outcomes], dtype=np.float64),
        np.array([[name in one.shift_factors for name in names] for one in outcomes]),
    )
    population = _fit(sample)
    low, high = population.bounds(nominal_coverage, *_widening(sample, nominal_coverage))
    held = []
    for rest, affected in sample.leave_one_factor_out():
        bounds = _fit(rest).bounds(nominal_coverage, *_widening(rest, nominal_coverage))
        below, above = population.outside(affected, *bounds)
        held.append(1 - float(below + above))
    mean = population.a / (population.a + population.b)
    return ExternalEstimate(
        mean=mean,
        low=min(low, mean),
        high=max(high, mean),
        nominal_coverage=nominal_coverage,
        measured_coverage=float(np.mean(held)) if held else None,
        simulated_sites=len(outcomes),
        shift_factors=len(held),
    )


@dataclass(frozen=True)
class _Sample:
    """Laboratories: right answers and images, float (n,), and which cause was at work, bool (n, causes)."""

    correct: np.ndarray
    images: np.ndarray
    has_factor: np.ndarray

    def leave_one_factor_out(self) -> list[tuple[_Sample, _Sample]]:
        """For every cause that can be left out: the laboratories without it, and those with it."""
        found: list[tuple[_Sample, _Sample]] = []
        for cause, affected in enumerate(self.has_factor.T):
            if affected.sum() >= _MIN_SITES_WITH and (~affected).sum() >= _MIN_SITES_WITHOUT:
                others = np.delete(self.has_factor, cause, axis=1)
                without, having = (
                    _Sample(self.correct[rows], self.images[rows], others[rows]) for rows in (~affected, affected)
                )
                found.append((without, having))
        return found


@dataclass(frozen=True)
class _Population:
    """A beta distribution of laboratories' accuracies, both parameters above 0."""

    a: float
    b: float

    def bounds(self, coverage: float, lower_by: float = 0.0, raise_by: float = 0.0) -> tuple[float, float]:
        """Quantiles that leave out the same share on either side, moved outwards by so much log-odds."""
        low, high = np.clip(beta.ppf([(1 - coverage) / 2, (1 + coverage) / 2], self.a, self.b), _EDGE, 1 - _EDGE)
        return float(_shift_log_odds(low, -lower_by)), float(_shift_log_odds(high, raise_by))

    def outside(self, sample: _Sample, low: Any, high: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean probability that a laboratory's accuracy, given its answers, is below ``low`` and above ``high``."""
        right, wrong = self.a + sample.correct, self.b + sample.images - sample.correct
        below = beta.cdf(np.asarray(low)[..., None], right, wrong).mean(axis=-1)
        return below, beta.sf(np.asarray(high)[..., None], right, wrong).mean(axis=-1)


def _fit(sample: _Sample) -> _Population:
    """The population under which the answers, and the prior on its precision, are most likely."""
    wrong = sample.images - sample.correct

    def parameters(at: np.ndarray) -> tuple[float, float]:
        precision = math.exp(at[1])
        # Bounded, so that the search cannot reach a parameter of zero or infinity.
        mean = float(np.clip(1 / (1 + math.exp(-at[0])), 1e-4, 1 - 1e-4))
        return mean * precision, (1 - mean) * precision

    def loss(at: np.ndarray) -> float:
        a, b = parameters(at)
        likelihood = (betaln(a + sample.correct, b + wrong) - betaln(a, b)).sum()
        return float(-likelihood + 0.5 * ((at[1] - _LOG_PRECISION[0]) / _LOG_PRECISION[1]) ** 2)

    start = [math.log((sample.correct.sum() + 0.5) / (wrong.sum() + 0.5)), _LOG_PRECISION[0]]
    found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4})
    return _Population(*parameters(found.x))


def _widening(sample: _Sample, coverage: float) -> tuple[float, float]:
    """By how much log-odds the low and the high bound must move outwards to hold for causes that are left out."""
    population = _fit(sample)
    beyond = []
    for rest, affected in sample.leave_one_factor_out():
        low, high = _fit(rest).bounds(coverage)
        beyond.append(
            population.outside(affected, _shift_log_odds(low, -_WIDENINGS), _shift_log_odds(high, _WIDENINGS))
        )
    if not beyond:
        return 0.0, 0.0
    # By the worst cause, not by their mean: there are few, and the next one is none of them.
    below, above = np.max(beyond, axis=0)
    allowed = (1 - coverage) / 2
    return _smallest_widening(below <= allowed), _smallest_widening(above <= allowed)


def _smallest_widening(suffices: np.ndarray) -> float:
    return float(_WIDENINGS[int(suffices.argmax()) if suffices.any() else -1])


def _shift_log_odds(share: Any, by: Any) -> Any:
    """A share of 0-1, exclusive, after its log-odds were changed."""
    return 1 / (1 + np.exp(-(np.log(share / (1 - share)) + by)))


#: What the interval is about, for whoever reads it.
ESTIMATE_SCOPE = (
    "Elsewhere is the accuracy in a laboratory nobody has seen, estimated from simulated ones in which stain, light, optics, "
    "camera, magnification and dirt differ, three to nine such causes at once, each mildly or harshly. Not covered: other "
    "patients, other opinions on what a cell is called, damaged slides, and cells of types that were not trained on."
)


def external_estimate_text(test: Mapping[str, Any]) -> str:
    """``same lab 98.2 % (97.8-98.6); elsewhere 84 % (71-92)``, from the fields of a run's ``test.json``.

    Args:
        test: with ``accuracy``, ``accuracy_low``, ``accuracy_high`` and ``elsewhere``, which has the fields of ``Expectation``.
    """
    home = [100 * float(test[name]) for name in ("accuracy", "accuracy_low", "accuracy_high")]
    away = [100 * float(test["external"][name]) for name in ("mean", "low", "high")]
    return f"Same lab {home[0]:.1f} % ({home[1]:.1f}-{home[2]:.1f}); elsewhere {away[0]:.0f} % ({away[1]:.0f}-{away[2]:.0f})"


def coverage_text(estimate: Mapping[str, Any]) -> str:
    """What an interval's coverage is meant to be and was found to be, from the fields of ``Expectation``."""
    measured = estimate["measured_coverage"]
    meant = (
        f"The interval is meant to hold in {estimate['nominal_coverage']:.0%} of laboratories; it comes from "
        f"{estimate['simulated_sites']} simulated ones."
    )
    if measured is None:
        return meant
    return (
        f"{meant} Made without one of {estimate['shift_factors']} kinds of cause at a time, it held in {measured:.0%} of those where "
        "that kind was at work."
    )
