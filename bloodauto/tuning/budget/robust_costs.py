"""Robust estimates of what takes seconds on a machine whose speed changes: medians in which new observations weigh more."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

K = TypeVar("K", bound=Hashable)

_MIN_SECONDS = 1e-9
#: Rounds of the polish; it has nearly converged after two.
_ROUNDS = 2


def weighted_quantile(values: Sequence[float], weights: Sequence[float], fraction: float = 0.5) -> float:
    """The smallest value up to which so much of the weight lies.

    Args:
        values: At least one.
        weights: As many, not negative, with a sum above 0.
        fraction: Of the weight, 0-1; 0.5 is a median.

    Example:
        >>> weighted_quantile([3.0, 1.0, 2.0], [1.0, 1.0, 1.0])
        2.0
    """
    order = np.argsort(values)
    total = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
    index = int(np.searchsorted(total, fraction * total[-1] * (1 - 1e-12)))
    return float(values[int(order[min(index, len(order) - 1)])])


def recent_quantile(values: Sequence[float], *, half_life: float, fraction: float = 0.5) -> float:
    """A quantile of observations, of which the newest weigh most.

    Args:
        values: At least one, oldest first.
        half_life: So many observations ago the weight is half.
        fraction: Of the weight, 0-1.
    """
    return weighted_quantile(values, _recency(len(values), half_life).tolist(), fraction)


def present_seconds(keys: Sequence[K], seconds: Sequence[float], *, half_life: float) -> dict[K, float]:
    """What each kind of work takes on the machine as it is now.

    The logarithm of an observation is taken to be the cost of its kind of work plus the slowness of the machine at that
    moment. Both are estimated by a median polish (Tukey, Exploratory Data Analysis, 1977); deviation: the slowness is a median
    over the neighbouring observations of all kinds, the near ones weighing more. A neighbour on the machine therefore raises
    all predictions while it is there, also of work that was not observed meanwhile, and lowers them again when it has gone.

    Args:
        keys: The kind of work of each observation, oldest first; at least one.
        seconds: What each took.
        half_life: So many observations away the weight for the slowness is half.

    Returns:
        Seconds by kind of work.

    Example:
        >>> seconds = present_seconds(["a", "b", "a", "a", "a"], [2.0, 5.0, 2.0, 4.0, 4.0], half_life=1.0)
        >>> [round(seconds[key]) for key in "ab"]
        [4, 9]
    """
    logs = np.log(np.maximum(np.asarray(seconds, dtype=np.float64), _MIN_SECONDS))
    index = np.arange(len(logs))
    near = 0.5 ** (np.abs(index[:, None] - index[None, :]) / half_life)
    # The neighbours say how slow the machine was at an observation, not the observation itself: the only one of its kind
    # would say that nothing was the matter. How slow it is now, the last one says, too.
    others = near - np.eye(len(logs)) if len(logs) > 1 else near
    rows = {key: np.array([i for i, other in enumerate(keys) if other == key]) for key in dict.fromkeys(keys)}
    costs = {key: float(np.median(logs[of_key])) for key, of_key in rows.items()}
    slowness = np.zeros(len(logs))
    for _ in range(_ROUNDS):
        residuals = logs - np.array([costs[key] for key in keys])
        slowness = _weighted_medians(residuals, others)
        costs = {key: float(np.median(logs[of_key] - slowness[of_key])) for key, of_key in rows.items()}
    residuals = logs - np.array([costs[key] for key in keys])
    now = float(_weighted_medians(residuals, near[-1:])[0])
    return {key: math.exp(cost + now) for key, cost in costs.items()}


def _recency(count: int, half_life: float) -> NDArray[np.float64]:
    return 0.5 ** (np.arange(count - 1, -1, -1, dtype=np.float64) / half_life)


def _weighted_medians(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of the values for each row of weights."""
    order = np.argsort(values)
    total = np.cumsum(weights[:, order], axis=1)
    reached = (total >= 0.5 * total[:, -1:] * (1 - 1e-12)).argmax(axis=1)
    medians: NDArray[np.float64] = values[order][reached]
    return medians
