"""The external performance estimate: an interval for the accuracy at another site.

It is fitted to simulated sites and widened until it also holds for shift factors that it was not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln
from scipy.stats import beta

from bloodauto.run.artifacts import ExternalEstimate
from bloodauto.types import Floats, Mask

#: Fewer simulated sites than this say nothing of a tail.
MIN_SIMULATED_SITES = 12
#: A factor is left out where at least so many sites lack it, to fit the rest to, and so many have it, to evaluate on.
_MIN_SITES_WITHOUT, _MIN_SITES_WITH = 5, 3
#: Prior on the logarithm of a population's precision (a + b): mean and standard deviation. Accuracies then differ from site to
#: site by 5 to 35 points; with a few dozen sites it hardly matters.
_LOG_PRECISION = (math.log(8.0), 1.5)
#: Widenings that are tried, in log-odds.
_WIDENINGS = np.linspace(0.0, 4.0, 81)
_EDGE = 1e-6


@dataclass(frozen=True)
class SiteOutcome:
    """How a model did at one simulated site.

    Attributes:
        shift_factors: What differed there: names of families, or of their groups; at least one.
        correct: The number of correct predictions.
        images: The number of images, at least 1.
    """

    shift_factors: tuple[str, ...]
    correct: int
    images: int

    def __post_init__(self) -> None:
        assert self.shift_factors, "shift_factors: expected at least one"
        assert 0 <= self.correct <= self.images, f"expected 0 <= correct <= images, got {self.correct} of {self.images}"
        assert self.images, "images: expected at least one"


def estimate_external_performance(
    outcomes: Sequence[SiteOutcome], *, nominal_coverage: float = 0.9
) -> ExternalEstimate | None:
    """Estimates the accuracy at another site, with a prediction interval.

    The accuracies of sites are modelled as draws from a beta distribution, and the correct predictions at each as binomial
    (Griffiths 1973, doi:10.2307/2529131), so that chance among few images is not taken for a difference between sites. The
    quantiles of the distribution bound the next site of the same population.

    A real site also differs in factors that simulated ones lack. So each factor is left out in turn: bounds from the sites
    without it are compared with the sites that have it, and each bound is moved outwards, in log-odds, until no more of them
    lie beyond it than the nominal coverage allows, whichever factor is left out. How many lie beyond is judged by the
    posterior of each site's accuracy given all sites, so that chance among its few images counts neither for nor against the
    bounds. The measured coverage repeats all of this within the sites that lack a factor, so that no factor that it is
    measured on takes part in the widening. Leave-one-factor-out widening is ours.

    Factors that no family simulates (another patient population, another definition of an immature cell) are not covered.

    Args:
        outcomes: Results of one model at sites drawn alike.
        nominal_coverage: Above 0, below 1.

    Returns:
        The estimate; None for fewer than ``MIN_SIMULATED_SITES`` outcomes.
    """
    assert 0 < nominal_coverage < 1, f"nominal_coverage: expected a number between 0 and 1, got {nominal_coverage}"
    if len(outcomes) < MIN_SIMULATED_SITES:
        return None
    names = sorted({factor for outcome in outcomes for factor in outcome.shift_factors})
    sample = _Sample(
        np.array([outcome.correct for outcome in outcomes], dtype=np.float64),
        np.array([outcome.images for outcome in outcomes], dtype=np.float64),
        np.array([[name in outcome.shift_factors for name in names] for outcome in outcomes]),
    )
    population = _fit(sample)
    low, high = population.bounds(nominal_coverage, *_widening(sample, nominal_coverage))
    coverages = []
    for without, affected in sample.leave_one_factor_out():
        bounds = _fit(without).bounds(nominal_coverage, *_widening(without, nominal_coverage))
        below, above = population.outside(affected, *bounds)
        coverages.append(1 - float(below + above))
    mean = population.a / (population.a + population.b)
    return ExternalEstimate(
        mean=mean,
        low=min(low, mean),
        high=max(high, mean),
        nominal_coverage=nominal_coverage,
        measured_coverage=float(np.mean(coverages)) if coverages else None,
        simulated_sites=len(outcomes),
        shift_factors=len(coverages),
    )


@dataclass(frozen=True)
class _Sample:
    """Sites.

    Attributes:
        correct: Correct predictions, float64 (n,).
        images: Images, float64 (n,).
        has_factor: Which shift factor a site has, bool (n, factors).
    """

    correct: Floats
    images: Floats
    has_factor: Mask

    def leave_one_factor_out(self) -> list[tuple[_Sample, _Sample]]:
        """For every factor that can be left out: the sites without it, and those with it."""
        pairs: list[tuple[_Sample, _Sample]] = []
        for factor, affected in enumerate(self.has_factor.T):
            if affected.sum() >= _MIN_SITES_WITH and (~affected).sum() >= _MIN_SITES_WITHOUT:
                others = np.delete(self.has_factor, factor, axis=1)
                without, having = (
                    _Sample(self.correct[rows], self.images[rows], others[rows]) for rows in (~affected, affected)
                )
                pairs.append((without, having))
        return pairs


@dataclass(frozen=True)
class _Population:
    """A beta distribution of sites' accuracies, both parameters above 0."""

    a: float
    b: float

    def bounds(self, coverage: float, lower_by: float = 0.0, raise_by: float = 0.0) -> tuple[float, float]:
        """Quantiles that exclude the same probability on either side, moved outwards by so much log-odds."""
        low, high = np.clip(beta.ppf([(1 - coverage) / 2, (1 + coverage) / 2], self.a, self.b), _EDGE, 1 - _EDGE)
        return float(_shift_log_odds(low, -lower_by)), float(_shift_log_odds(high, raise_by))

    def outside(self, sample: _Sample, low: float | Floats, high: float | Floats) -> tuple[Floats, Floats]:
        """Mean probability that a site's accuracy, given its predictions, is below ``low`` and above ``high``."""
        a, b = self.a + sample.correct, self.b + sample.images - sample.correct
        below = beta.cdf(np.asarray(low)[..., None], a, b).mean(axis=-1)
        return below, beta.sf(np.asarray(high)[..., None], a, b).mean(axis=-1)


def _fit(sample: _Sample) -> _Population:
    """The population under which the predictions, and the prior on its precision, are most likely."""
    wrong = sample.images - sample.correct

    def parameters(at: Floats) -> tuple[float, float]:
        precision = math.exp(at[1])
        # Bounded, so that the search cannot reach a parameter of zero or infinity.
        mean = float(np.clip(1 / (1 + math.exp(-at[0])), 1e-4, 1 - 1e-4))
        return mean * precision, (1 - mean) * precision

    def loss(at: Floats) -> float:
        a, b = parameters(at)
        likelihood = (betaln(a + sample.correct, b + wrong) - betaln(a, b)).sum()
        return float(-likelihood + 0.5 * ((at[1] - _LOG_PRECISION[0]) / _LOG_PRECISION[1]) ** 2)

    start = [math.log((sample.correct.sum() + 0.5) / (wrong.sum() + 0.5)), _LOG_PRECISION[0]]
    optimum = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4})
    return _Population(*parameters(optimum.x))


def _widening(sample: _Sample, coverage: float) -> tuple[float, float]:
    """By how much log-odds the low and the high bound must move outwards to hold for factors that are left out."""
    population = _fit(sample)
    beyond = []
    for without, affected in sample.leave_one_factor_out():
        low, high = _fit(without).bounds(coverage)
        beyond.append(
            population.outside(affected, _shift_log_odds(low, -_WIDENINGS), _shift_log_odds(high, _WIDENINGS))
        )
    if not beyond:
        return 0.0, 0.0
    # By the worst factor, not by their mean: there are few, and the next one is none of them.
    below, above = np.max(beyond, axis=0)
    allowed = (1 - coverage) / 2
    return _smallest_widening(below <= allowed), _smallest_widening(above <= allowed)


def _smallest_widening(suffices: Mask) -> float:
    return float(_WIDENINGS[int(suffices.argmax()) if suffices.any() else -1])


def _shift_log_odds(probability: Any, by: Any) -> Any:
    """A probability of 0-1, exclusive, after its log-odds were changed."""
    return 1 / (1 + np.exp(-(np.log(probability / (1 - probability)) + by)))
