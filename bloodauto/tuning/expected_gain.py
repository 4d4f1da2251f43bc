"""What more training, more trials and more members are expected to gain, by the learning curves of the run so far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from bloodauto.tuning.constants import SCHEDULER_CONSTANTS, SchedulerConstants

#: An error of 0 has no logarithm, and is not known to be 0.
_MIN_ERROR = 1e-3
_GRID_POINTS = 32
_GRID_DEVIATIONS = 5.0


def error_of(objective: float) -> float:
    """1 less the objective, but never 0.

    Args:
        objective: 0-1.
    """
    return max(1.0 - objective, _MIN_ERROR)


def curve_exponent(curves: Sequence[Mapping[int, float]], constants: SchedulerConstants = SCHEDULER_CONSTANTS) -> float:
    """How fast errors fall with training: the error is proportional to the training's length to the power of minus this.

    Power laws are one of the forms of Domhan et al. (IJCAI 2015). Deviation: one exponent for all trainings, the median of
    those between the first and the last epoch of each, drawn towards a prior while there are few. Within a training, whose
    learning rate falls, errors fall faster than between trainings of different lengths: only a part of what is seen counts.

    Args:
        curves: The objective by epoch of each trial.
        constants: The prior, and how many curves it counts for.

    Returns:
        Between 0.02 and 1.

    Example:
        >>> round(curve_exponent([{1: 0.8, 4: 0.9}] * 1000), 2)
        0.25
    """
    exponents = []
    for curve in curves:
        first, last = min(curve, default=0), max(curve, default=0)
        if last > first:
            fall = math.log(error_of(curve[first]) / error_of(curve[last]))
            exponents.append(constants.curve_exponent_part * fall / math.log(last / first))
    prior, weight = constants.curve_exponent, constants.curve_exponent_weight
    if exponents:
        prior = (weight * prior + len(exponents) * statistics.median(exponents)) / (weight + len(exponents))
    return min(max(prior, 0.02), 1.0)


def error_after(error: float, seconds: float, total_seconds: float, exponent: float) -> float:
    """The error that a training is expected to have at another length.

    Args:
        error: After ``seconds``.
        seconds: Of training so far, above 0.
        total_seconds: Of training in all, above 0; less than ``seconds`` for a shorter training.
        exponent: See ``curve_exponent``.

    Example:
        >>> error_after(0.2, 10.0, 40.0, exponent=0.5)
        0.1
    """
    return error * math.pow(total_seconds / seconds, -exponent)


def ensemble_factor(members: int, constants: SchedulerConstants = SCHEDULER_CONSTANTS) -> float:
    """The error that an ensemble is expected to have, over the mean error of its members.

    Args:
        members: How many, at least one.
        constants: What infinitely many members gain.
    """
    return 1.0 - constants.ensemble_gain * (1.0 - 1.0 / members)


class BestErrorForecast:
    """The error that the best trial is expected to have after some more.

    The logarithms of errors are taken to be normally distributed; further trials to be drawn from the same distribution.

    Args:
        errors: Of the trials so far, at least one.
        constants: The deviation that is assumed while there are few trials, and how many trials that counts for. A part of the
            deviation between trials is noise, which nobody can gain.

    Example:
        >>> forecast = BestErrorForecast([0.1, 0.2, 0.3])
        >>> forecast.after(0) > forecast.after(10) > forecast.after(100)
        True
    """

    def __init__(self, errors: Sequence[float], constants: SchedulerConstants = SCHEDULER_CONSTANTS) -> None:
        logs = [math.log(error) for error in errors]
        center, weight = statistics.fmean(logs), constants.curve_exponent_weight
        variance = weight * constants.trial_deviation**2 + len(logs) * statistics.pvariance(logs)
        deviation = constants.trial_signal_fraction * math.sqrt(variance / (weight + len(logs)))
        self._best = min(logs)
        lowest = min(center - _GRID_DEVIATIONS * deviation, self._best)
        self._grid = np.linspace(lowest, self._best, _GRID_POINTS)
        standardised = (self._grid - center) / (deviation * math.sqrt(2))
        self._fraction_below = np.array([0.5 * (1 + math.erf(x)) for x in standardised])

    def after(self, more_trials: int) -> float:
        """The expected error of the best.

        Args:
            more_trials: 0 or more.

        Returns:
            At most the least error so far.
        """
        gain = float(np.trapezoid(1 - (1 - self._fraction_below) ** more_trials, self._grid))
        return math.exp(self._best - gain)
