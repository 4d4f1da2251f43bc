"""Calibration as a whole: one temperature, and where it holds better, a scale and a bias for each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]

from bloodauto.evaluation.calibration import PROBABILITY_FLOOR, apply_temperature, balanced_weights, fit_temperature
from bloodauto.evaluation.metrics import negative_log_likelihood, weighted_balanced_accuracy

#: Images that the prior on scales and biases is worth: with fewer than some hundred a class's own numbers are noise.
_PRIOR_IMAGES = 20.0
#: Nats by which scales and biases must beat the temperature on what they were not fitted on; less is no reason for sixteen
#: numbers instead of one.
_MIN_GAIN_NATS = 0.005


@dataclass(frozen=True)
class PerClass:
    """Vector scaling (Guo et al. 2017, arXiv:1706.04599): a factor on and a term added to each class's log-probability."""

    scales: tuple[float, ...]
    biases: tuple[float, ...]

    def __post_init__(self) -> None:
        assert len(self.scales) == len(self.biases), f"{len(self.scales)} scales for {len(self.biases)} biases"


@dataclass(frozen=True)
class Calibration:
    """First the temperature, giving q; then, where there is a ``per_class``, ``softmax(scales * log(max(q, 1e-12)) + biases)``.

    Attributes:
        temperature: above 0.
        per_class: None where the temperature alone holds as well.
        cross_validated_nats: negative log-likelihood of temperature alone and with scales and biases, each on the kinds of
            images that it was not fitted on; None where there is only one kind.
    """

    temperature: float
    per_class: PerClass | None
    cross_validated_nats: tuple[float, float] | None

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (n, c); rows sum to 1."""
        return _scaled(apply_temperature(probabilities, self.temperature), self.per_class)


def fit_calibration(
    clean: np.ndarray, labels: np.ndarray, shifted: np.ndarray, shifted_labels: np.ndarray, shifted_groups: np.ndarray
) -> Calibration:
    """Fits on clean images and shifted views together, and chooses between the two forms by cross-validation.

    What is left out in turn is a whole kind of images (the clean ones, then each group of shifts): calibration is wanted for
    a kind of shift that nobody has measured. Scales and biases are taken only when they are better there by a margin and
    do not lower the balanced accuracy on what they were fitted on. A normal prior, worth twenty images, holds them to 1 and 0.

    Args:
        clean, shifted: float, (n, c) and (m, c), averaged out-of-fold probabilities; n at least 1, m may be 0.
        labels, shifted_labels: int, (n,) and (m,).
        shifted_groups: (m,), the kind of each shifted view.
    """
    rows = np.concatenate([clean, shifted]).astype(np.float64)
    truth = np.concatenate([labels, shifted_labels]).astype(np.int64)
    weights = balanced_weights(len(labels), shifted_groups)
    temperature = fit_temperature(rows, truth, weights)
    blocks = np.concatenate([np.zeros(len(labels), np.int64), 1 + np.unique(shifted_groups, return_inverse=True)[1]])
    nats = _cross_validated_nats(rows, truth, weights, blocks)
    if nats is None or nats[1] >= nats[0] - _MIN_GAIN_NATS:
        return Calibration(temperature, None, nats)
    tempered = apply_temperature(rows, temperature)
    per_class = _fit_per_class(tempered, truth, weights)
    before, after = (
        weighted_balanced_accuracy(truth, table.argmax(axis=1) == truth, weights=weights)
        for table in (tempered, _scaled(tempered, per_class))
    )
    return Calibration(temperature, per_class if after >= before - 1e-12 else None, nats)


def _cross_validated_nats(
    rows: np.ndarray, truth: np.ndarray, weights: np.ndarray, blocks: np.ndarray
) -> tuple[float, float] | None:
    """Mean loss over left-out blocks of both forms; None with a single block."""
    losses = []
    for block in np.unique(blocks):
        held = blocks == block
        if held.all():
            return None
        temperature = fit_temperature(rows[~held], truth[~held], weights[~held])
        tempered = apply_temperature(rows, temperature)
        per_class = _fit_per_class(tempered[~held], truth[~held], weights[~held])
        losses.append(
            [negative_log_likelihood(truth[held], table[held]) for table in (tempered, _scaled(tempered, per_class))]
        )
    means = np.mean(losses, axis=0)
    return float(means[0]), float(means[1])


def _fit_per_class(tempered: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> PerClass:
    classes = tempered.shape[1]
    logarithms = np.log(np.maximum(tempered, PROBABILITY_FLOOR))
    shares = weights / weights.sum()
    penalty = _PRIOR_IMAGES / len(truth)
    picked = np.arange(len(truth)), truth

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scales, biases = values[:classes], values[classes:]
        scores = logarithms * scales + biases
        scores -= scores.max(axis=1, keepdims=True)
        probabilities = np.exp(scores)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        nats = -shares @ np.log(np.maximum(probabilities[picked], PROBABILITY_FLOOR))
        slope = probabilities * shares[:, None]
        slope[picked] -= shares
        distance = np.concatenate([scales - 1, biases])
        gradient = np.concatenate([(slope * logarithms).sum(axis=0), slope.sum(axis=0)]) + penalty * distance
        return float(nats + 0.5 * penalty * distance @ distance), gradient

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0.05, 20.0)] * classes + [(-10.0, 10.0)] * classes
    )
    return PerClass(tuple(found.x[:classes].tolist()), tuple(found.x[classes:].tolist()))


def _scaled(probabilities: np.ndarray, per_class: PerClass | None) -> np.ndarray:
    if per_class is None:
        return probabilities
    scores = np.log(np.maximum(probabilities, PROBABILITY_FLOOR)) * per_class.scales + per_class.biases
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
