"""What a network costs that nobody has timed, from its size and from those that were timed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bloodauto.config.recipe import Backbone
from bloodauto.models.backbones import num_layers, num_parameters

#: What is timed together: the backbone's architecture and the image side in pixels.
CostKey = tuple[Backbone, int]

#: The logarithm of the seconds is linear in those of parameters and layers: many thin layers cost more than their few
#: parameters tell. Means and standard deviations before anything was timed; the first is of the machine, of which nothing is
#: known. Measured on a CPU at 96 px: MobileNet 1.0, MobileNetV2 0.35 and 1.0 take 3.5, 2.1 and 4.0 times as long as MobileNet
#: 0.25, which gives 3.4, 2.0 and 4.3 here.
_MEANS = np.array([0.0, 0.45, 0.7])
_DEVIATIONS = np.array([100.0, 0.12, 0.3])
#: Of a network from such a line, in logarithms.
_NOISE = 0.15
#: A guess is dearer than the likeliest by so many standard deviations, since a training that does not fit is lost.
_CONSERVATIVE_DEVIATIONS = 0.5


def _features(cost_key: CostKey) -> np.ndarray:
    backbone, _ = cost_key
    return np.array([1.0, math.log(num_parameters(backbone)), math.log(num_layers(backbone))])


def estimate_seconds(known: Mapping[CostKey, float], cost_key: CostKey) -> float:
    """Seconds of a network, from others' at whatever image size: cost goes with the number of pixels.

    A Bayesian linear regression with the prior above; the more networks were timed and the nearer they are, the less it is
    above the likeliest value.

    Args:
        known: seconds, above 0, of one network at least.
    """
    rows = np.stack([_features(one) for one in known])
    logs = np.log([seconds / one[1] ** 2 for one, seconds in known.items()])
    precision = np.diag(_DEVIATIONS**-2.0) + rows.T @ rows / _NOISE**2
    covariance = np.linalg.inv(precision)
    weights = _MEANS + covariance @ rows.T @ (logs - rows @ _MEANS) / _NOISE**2
    wanted = _features(cost_key)
    deviation = math.sqrt(float(wanted @ covariance @ wanted) + _NOISE**2)
    return float(cost_key[1] ** 2 * np.exp(wanted @ weights + _CONSERVATIVE_DEVIATIONS * deviation))
