"""Local perturbation: a recipe near a good one, as a suggestion."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bloodauto.config.recipe import Recipe
from bloodauto.config.space.grammar import Choice, Domain, FloatRange, IntRange, Scalar, SearchSpace
from bloodauto.config.space.sampling import sample_with

#: Standard deviation of a step as a fraction of the range (of its logarithm where the range is logarithmic).
_STEP = 0.2
#: Mean number of values that change; at least one does.
_MEAN_CHANGES = 2.5


def local_perturbation(
    space: SearchSpace, parent: Mapping[str, Scalar], rng: np.random.Generator
) -> tuple[Recipe, dict[str, Scalar]]:
    """A recipe that differs from a good one in a few values.

    A number moves by a normal step of a fifth of its range; a choice changes to another member, whose own domains are sampled
    uniformly. After the local part of PriorBand (Mallik et al., arXiv:2306.12370). Deviation: only some values change, as in
    evolution strategies, since one bad value out of twenty is enough to make a recipe bad.

    Args:
        space: The search space.
        parent: Values of the domains that give the parent, by parameter.
        rng: Draws which values change, and how.

    Returns:
        The recipe, and the values of the domains that give it.

    Raises:
        RecipeError: The values give no valid recipe.
    """
    movable = [domain for domain in space.domains() if domain.parameter in parent and _can_vary(domain)]
    fraction = min(_MEAN_CHANGES / max(len(movable), 1), 1.0)
    perturbed = {domain.parameter for domain in movable if rng.random() < fraction}
    if movable and not perturbed:
        perturbed = {movable[int(rng.integers(len(movable)))].parameter}
    chosen: dict[str, Scalar] = {}

    def choose(domain: Domain) -> Scalar:
        value: Scalar
        if domain.parameter not in parent:
            value = _uniform(domain, rng)
        elif domain.parameter in perturbed:
            value = _perturbed(domain, parent[domain.parameter], rng)
        else:
            value = parent[domain.parameter]
        chosen[domain.parameter] = value
        return value

    return sample_with(space, choose), chosen


def _can_vary(domain: Domain) -> bool:
    return len(domain.labels) > 1 if isinstance(domain, Choice) else domain.low < domain.high


def _uniform(domain: Domain, rng: np.random.Generator) -> Scalar:
    if isinstance(domain, Choice):
        return domain.labels[int(rng.integers(len(domain.labels)))]
    return _value_at(domain, float(rng.random()))


def _perturbed(domain: Domain, value: Scalar, rng: np.random.Generator) -> Scalar:
    if isinstance(domain, Choice):
        others = [label for label in domain.labels if label != value]
        return others[int(rng.integers(len(others)))]
    assert isinstance(value, int | float)
    fraction = _range_fraction(domain, value) + _STEP * float(rng.standard_normal())
    # Reflected at the ends, so that these are not drawn more often than values between them.
    fraction = abs(fraction) % 2.0
    perturbed = _value_at(domain, fraction if fraction <= 1.0 else 2.0 - fraction)
    if perturbed == value and isinstance(domain, IntRange):
        perturbed = value + domain.step if value + domain.step <= domain.high else value - domain.step
    return perturbed


def _range_fraction(domain: IntRange | FloatRange, value: float) -> float:
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


def _value_at(domain: IntRange | FloatRange, fraction: float) -> Scalar:
    """The domain's value at a fraction, 0-1, of its range."""
    linear = domain.low + (domain.high - domain.low) * fraction
    value = domain.low * (domain.high / domain.low) ** fraction if domain.log else linear
    value = min(max(value, domain.low), domain.high)
    if isinstance(domain, FloatRange):
        return value
    return domain.low + round((value - domain.low) / domain.step) * domain.step
