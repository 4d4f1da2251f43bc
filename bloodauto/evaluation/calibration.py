"""Making probabilities mean what they say, and measuring how far they do."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

#: Probabilities are lifted to this before a logarithm. The exported model uses the same floor, so both agree.
PROBABILITY_FLOOR = 1e-12
#: The range in which a temperature is looked for.
TEMPERATURE_RANGE = (0.05, 20.0)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """``p ** (1 / temperature)``, normalised again: softer above 1, sharper below; the order of classes stays.

    Args:
        probabilities: float, (n, c), 0-1, rows sum to 1.
        temperature: above 0; 1 changes nothing but the floor of 1e-12.

    Returns:
        float64, (n, c), rows sum to 1.
    """
    assert temperature > 0, f"temperature: expected a number above 0, got {temperature}"
    scaled = _log(probabilities) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray, image_weights: np.ndarray | None = None) -> float:
    """The temperature under which the labels are most likely (Guo et al. 2017, arXiv:1706.04599).

    Deviations from the paper: the temperature acts on the logarithm of averaged probabilities, since an ensemble has no
    logits; and log T has a standard normal prior, worth a fraction of one image. Without it a validation set that is
    classified without an error would ask for endless sharpness; with a hundred images and some errors it is not felt.

    Args:
        probabilities: float, (n, c), out-of-fold: of images the models were not trained on.
        labels: int, (n,), 0 to c - 1.
        image_weights: float, (n,), at least 0 and not all 0, for example of ``balanced_weights``; equal when None.

    Returns:
        A number in ``TEMPERATURE_RANGE``; 1 when there are no images.
    """
    if not len(labels):
        return 1.0
    weights = np.ones(len(labels)) if image_weights is None else np.asarray(image_weights, dtype=np.float64)
    assert weights.shape == labels.shape, f"image_weights: expected {labels.shape}, got {weights.shape}"
    assert weights.min() >= 0, "image_weights: expected no negative ones"
    assert weights.sum() > 0, "image_weights: expected at least one above 0"
    weights = weights / weights.sum()
    logarithms = _log(probabilities)
    # Shifting by the true class makes the loss of one image log(sum(exp(row / T))).
    logarithms -= logarithms[np.arange(len(labels)), labels][:, None]
    highest = logarithms.max(axis=1)
    logarithms -= highest[:, None]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        nll = highest * inverse + np.log(np.exp(logarithms * inverse).sum(axis=1))
        return float(weights @ nll) + 0.5 * log_temperature**2 / len(labels)

    bounds = (math.log(TEMPERATURE_RANGE[0]), math.log(TEMPERATURE_RANGE[1]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    # The search stops near its optimum, not on it: probabilities that need no change are left exactly alone.
    return math.exp(found.x) if loss(found.x) < loss(0.0) else 1.0


def balanced_weights(clean_count: int, shifted_groups: np.ndarray) -> np.ndarray:
    """Weights under which the clean images and each group of shifted views count the same, however many they are.

    Args:
        clean_count: how many clean images come first, at least 1.
        shifted_groups: (m,), the group of each shifted view after them; may be empty.

    Returns:
        float64, (clean_count + m,), sums to 1.
    """
    names, group_of, sizes = np.unique(shifted_groups, return_inverse=True, return_counts=True)
    blocks = len(names) + 1
    return np.concatenate([np.full(clean_count, 1 / clean_count), 1 / sizes[group_of]]) / blocks


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), PROBABILITY_FLOOR))
