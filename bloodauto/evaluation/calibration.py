"""Calibration: a temperature, or scales and biases of each class where they generalise better."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import softmax

from bloodauto.evaluation.metrics import negative_log_likelihood, weighted_balanced_accuracy
from bloodauto.run.artifacts import Calibration, PerClassScaling
from bloodauto.types import Floats, Labels, Probabilities, Rows, Strings

#: The smallest probability before a logarithm. The exported model uses the same floor, so that both agree.
PROBABILITY_FLOOR = 1e-12
#: The range in which the temperature is searched.
TEMPERATURE_RANGE = (0.05, 20.0)
_SCALE_RANGE, _BIAS_RANGE = (0.05, 20.0), (-10.0, 10.0)
#: Number of images that the prior on scales and biases counts as. With a few hundred images or less, numbers for each class
#: are mostly noise.
_PRIOR_IMAGES = 20.0
#: Nats by which scales and biases must be better than the temperature on images they were not fitted on. Less does not justify
#: two parameters for each class instead of one for all.
_MIN_GAIN_NATS = 0.005
#: Balanced accuracies that differ by less are equal: what differs then is rounding.
_TIE = 1e-12


def apply_calibration(probabilities: Probabilities, calibration: Calibration) -> NDArray[np.float64]:
    """Calibrates class probabilities.

    First the temperature gives q; then, where there are scales and biases, ``softmax(scales * log(max(q, 1e-12)) + biases)``.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        calibration: The parameters.

    Returns:
        Shape (n, classes), rows sum to 1.

    Example:
        >>> softer = Calibration(temperature=2.0, per_class=None, cross_validated_nats=None)
        >>> apply_calibration(np.array([[0.8, 0.2]]), softer).round(3)
        array([[0.667, 0.333]])
    """
    return _apply_scaling(apply_temperature(probabilities, calibration.temperature), calibration.per_class)


def apply_temperature(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    """Computes ``p ** (1 / temperature)``, normalised: softer above 1, sharper below; the order of the classes stays.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        temperature: Above 0; 1 changes nothing but the floor of 1e-12.

    Returns:
        Shape (n, classes), rows sum to 1.
    """
    assert temperature > 0, f"temperature: expected a number above 0, got {temperature}"
    return np.asarray(softmax(_log(probabilities) / temperature, axis=1))


def fit_temperature(probabilities: Probabilities, labels: Labels, image_weights: Floats | None = None) -> float:
    """Fits the temperature under which the labels are most likely (Guo et al. 2017, arXiv:1706.04599).

    Deviations from the paper: the temperature acts on the logarithm of averaged probabilities, because an ensemble has no
    logits; and log T has a standard normal prior that counts as a fraction of one image. Without the prior, images that are
    all classified correctly would have an optimum at infinite sharpness; with a hundred images and some errors it has no
    noticeable effect.

    Args:
        probabilities: For images that were held out of training, shape (n, classes).
        labels: Shape (n,), 0 to classes - 1.
        image_weights: Shape (n,), at least 0 and not all 0, for example of ``balanced_weights``; equal when None.

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
    # Shifted by the true class, the loss of an image is log(sum(exp(row / T))).
    logarithms -= logarithms[np.arange(len(labels)), labels][:, None]
    highest = logarithms.max(axis=1)
    logarithms -= highest[:, None]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        nll = highest * inverse + np.log(np.exp(logarithms * inverse).sum(axis=1))
        return float(weights @ nll) + 0.5 * log_temperature**2 / len(labels)

    bounds = (math.log(TEMPERATURE_RANGE[0]), math.log(TEMPERATURE_RANGE[1]))
    optimum = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    # The search ends near the optimum, not on it: probabilities that need no change are left exactly as they are.
    return math.exp(optimum.x) if loss(optimum.x) < loss(0.0) else 1.0


def balanced_weights(clean_count: int, shifted_groups: Strings | Rows) -> NDArray[np.float64]:
    """Weights under which the clean images and each group of shifted images count the same, whatever their numbers.

    Args:
        clean_count: Number of clean images, which come first; at least 1.
        shifted_groups: The group of each shifted image after them, shape (m,); may be empty.

    Returns:
        Shape (clean_count + m,), sums to 1.

    Example:
        >>> balanced_weights(1, np.array(["stain", "light", "light"])).round(3)
        array([0.333, 0.333, 0.167, 0.167])
    """
    names, group_of, sizes = np.unique(shifted_groups, return_inverse=True, return_counts=True)
    blocks = len(names) + 1
    return np.concatenate([np.full(clean_count, 1 / clean_count), 1 / sizes[group_of]]) / blocks


def fit_calibration(
    clean: Probabilities,
    labels: Labels,
    shifted: Probabilities,
    shifted_labels: Labels,
    shifted_groups: Strings,
) -> Calibration:
    """Fits on clean and shifted images together, and selects between temperature and vector scaling by cross-validation.

    The folds of the cross-validation are kinds of images (the clean ones, then each group of shifts), because calibration is
    needed for a kind of shift that was not measured. Scales and biases are used only when they are better there by a margin
    and do not lower the balanced accuracy on the images of the fit. A normal prior around 1 and 0, which counts as twenty
    images, keeps them near these values.

    Args:
        clean: Averaged out-of-fold probabilities for clean images, shape (n, classes), n at least 1.
        labels: Shape (n,).
        shifted: The same for shifted images, shape (m, classes); m may be 0.
        shifted_labels: Shape (m,).
        shifted_groups: The group of corruption families of each shifted image, shape (m,).
    """
    rows = np.concatenate([clean, shifted]).astype(np.float64)
    truth = np.concatenate([labels, shifted_labels]).astype(np.int64)
    weights = balanced_weights(len(labels), shifted_groups)
    temperature = fit_temperature(rows, truth, weights)
    blocks = np.concatenate([np.zeros(len(labels), np.int64), 1 + np.unique(shifted_groups, return_inverse=True)[1]])
    nats = _cross_validated_nats(rows, truth, weights, blocks)
    temperature_alone = Calibration(temperature=temperature, per_class=None, cross_validated_nats=nats)
    if nats is None or nats[1] >= nats[0] - _MIN_GAIN_NATS:
        return temperature_alone
    tempered = apply_temperature(rows, temperature)
    per_class = _fit_scaling(tempered, truth, weights)
    without, with_scaling = (
        weighted_balanced_accuracy(truth, calibrated.argmax(axis=1) == truth, weights=weights)
        for calibrated in (tempered, _apply_scaling(tempered, per_class))
    )
    if with_scaling < without - _TIE:
        return temperature_alone
    return Calibration(temperature=temperature, per_class=per_class, cross_validated_nats=nats)


def _cross_validated_nats(
    rows: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64], blocks: NDArray[np.int64]
) -> tuple[float, float] | None:
    """Mean loss on held-out blocks with the temperature alone, and with scales and biases; None for a single block."""
    losses = []
    for block in np.unique(blocks):
        held_out = blocks == block
        if held_out.all():
            return None
        temperature = fit_temperature(rows[~held_out], truth[~held_out], weights[~held_out])
        tempered = apply_temperature(rows, temperature)
        per_class = _fit_scaling(tempered[~held_out], truth[~held_out], weights[~held_out])
        losses.append(
            [
                negative_log_likelihood(truth[held_out], calibrated[held_out])
                for calibrated in (tempered, _apply_scaling(tempered, per_class))
            ]
        )
    temperature_alone, with_scaling = np.mean(losses, axis=0).tolist()
    return temperature_alone, with_scaling


def _fit_scaling(
    tempered: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64]
) -> PerClassScaling:
    """Fits vector scaling with a normal prior, by its analytic gradient."""
    classes = tempered.shape[1]
    logarithms = _log(tempered)
    image_weights = weights / weights.sum()
    penalty = _PRIOR_IMAGES / len(truth)
    of_label = np.arange(len(truth)), truth

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scales, biases = parameters[:classes], parameters[classes:]
        probabilities = softmax(logarithms * scales + biases, axis=1)
        nats = -image_weights @ np.log(np.maximum(probabilities[of_label], PROBABILITY_FLOOR))
        slope = probabilities * image_weights[:, None]
        slope[of_label] -= image_weights
        distance = np.concatenate([scales - 1, biases])
        gradient = np.concatenate([(slope * logarithms).sum(axis=0), slope.sum(axis=0)]) + penalty * distance
        return float(nats + 0.5 * penalty * distance @ distance), gradient

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    bounds = [_SCALE_RANGE] * classes + [_BIAS_RANGE] * classes
    optimum = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return PerClassScaling(scales=tuple(optimum.x[:classes].tolist()), biases=tuple(optimum.x[classes:].tolist()))


def _apply_scaling(probabilities: NDArray[np.float64], per_class: PerClassScaling | None) -> NDArray[np.float64]:
    if per_class is None:
        return probabilities
    return np.asarray(softmax(_log(probabilities) * per_class.scales + per_class.biases, axis=1))


def _log(probabilities: Probabilities) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), PROBABILITY_FLOOR))
