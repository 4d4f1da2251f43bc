"""One temperature where it suffices; scales and biases of each class where they hold for kinds of shifts outside the fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from bloodauto.evaluation.calibration import (
    apply_calibration,
    apply_temperature,
    balanced_weights,
    fit_calibration,
    fit_temperature,
)
from bloodauto.evaluation.metrics import expected_calibration_error, negative_log_likelihood
from bloodauto.run.artifacts import Calibration, PerClassScaling
from bloodauto.types import Labels, Probabilities

CLASSES = 4
GROUPS = ("optics", "stain", "light")


def calibrated_sample(rng: np.random.Generator, images: int, classes: int = 8) -> tuple[Probabilities, Labels]:
    """Probabilities, and labels that are drawn from exactly these."""
    probabilities = softmax(rng.normal(0, 2, (images, classes)), axis=1)
    labels = (probabilities.cumsum(axis=1) > rng.uniform(size=(images, 1))).argmax(axis=1)
    return probabilities, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    probabilities, labels = calibrated_sample(np.random.default_rng(0), 20_000)
    distorted = apply_temperature(probabilities, 1 / temperature)
    assert fit_temperature(distorted, labels) == pytest.approx(temperature, rel=0.03)


def test_a_temperature_corrects_overconfidence_and_leaves_the_predictions() -> None:
    probabilities, labels = calibrated_sample(np.random.default_rng(1), 5000)
    overconfident = apply_temperature(probabilities, 1 / 3)
    corrected = apply_temperature(overconfident, fit_temperature(overconfident, labels))
    assert expected_calibration_error(labels, overconfident) > 0.2
    assert expected_calibration_error(labels, corrected) < 0.03
    assert negative_log_likelihood(labels, corrected) < negative_log_likelihood(labels, overconfident)
    np.testing.assert_array_equal(corrected.argmax(axis=1), overconfident.argmax(axis=1))


def test_images_without_an_error_do_not_lead_to_infinite_sharpness() -> None:
    labels = np.arange(40) % 2
    probabilities = np.where(np.eye(2)[labels] == 1, 0.9, 0.1)
    temperature = fit_temperature(probabilities, labels)
    assert 0.2 < temperature < 1
    assert apply_temperature(probabilities, temperature).max() < 1 - 1e-6


def test_probabilities_of_exactly_zero_and_one_are_allowed() -> None:
    labels = np.array([0, 1, 1])
    probabilities = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    assert 1 < fit_temperature(probabilities, labels) <= 20
    assert np.isfinite(apply_temperature(probabilities, 0.05)).all()


def test_without_images_the_temperature_is_1() -> None:
    assert fit_temperature(np.zeros((0, 8)), np.zeros(0, dtype=int)) == 1.0


def test_image_weights_decide_whose_calibration_counts() -> None:
    rng = np.random.default_rng(2)
    first, first_labels = calibrated_sample(rng, 3000)
    second, second_labels = calibrated_sample(rng, 3000)
    rows = np.concatenate([first, apply_temperature(second, 1 / 4)])
    labels = np.concatenate([first_labels, second_labels])
    of_first, of_second = (np.repeat(weights, 3000).astype(float) for weights in ((1, 0), (0, 1)))
    assert fit_temperature(rows, labels, of_first) == pytest.approx(1, rel=0.1)
    assert fit_temperature(rows, labels, of_second) == pytest.approx(4, rel=0.1)
    assert 1.2 < fit_temperature(rows, labels) < 3.8


def test_balanced_weights_count_clean_images_and_each_group_once() -> None:
    groups = np.array(["a", "b", "b", "b"])
    np.testing.assert_allclose(balanced_weights(2, groups), [1 / 6, 1 / 6, 1 / 3, 1 / 9, 1 / 9, 1 / 9])
    np.testing.assert_allclose(balanced_weights(4, groups[:0]), [0.25] * 4)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.floats(0.05, 20),
    images=st.integers(1, 60),
    classes=st.integers(2, 9),
)
def test_laws_of_temperature(seed: int, temperature: float, images: int, classes: int) -> None:
    probabilities, labels = calibrated_sample(np.random.default_rng(seed), images, classes)
    changed = apply_temperature(probabilities, temperature)
    np.testing.assert_allclose(changed.sum(axis=1), 1)
    np.testing.assert_array_equal(changed.argmax(axis=1), probabilities.argmax(axis=1))
    fitted = apply_temperature(probabilities, fit_temperature(probabilities, labels))
    assert negative_log_likelihood(labels, fitted) <= negative_log_likelihood(labels, probabilities) + 1e-6


def _biased_sample(
    rng: np.random.Generator, count: int, sharpness: float, bias: np.ndarray
) -> tuple[Probabilities, Labels]:
    """Predictions of a model that is too sharp and favours classes, and labels drawn from the calibrated probabilities."""
    logits = rng.normal(0, 2.0, (count, CLASSES))
    labels = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    return softmax(sharpness * logits + bias, axis=1), labels


def _fit(
    seed: int, sharpness: float, bias: np.ndarray, num_shifted: int = 300
) -> tuple[Calibration, Probabilities, Labels]:
    """A calibration, and a fresh sample to test it on."""
    rng = np.random.default_rng(seed)
    clean, labels = _biased_sample(rng, 600, sharpness, bias)
    shifted, shifted_labels = _biased_sample(rng, num_shifted, sharpness, bias)
    groups = np.array([GROUPS[index % 3] for index in range(num_shifted)])
    calibration = fit_calibration(clean, labels, shifted, shifted_labels, groups)
    return calibration, *_biased_sample(np.random.default_rng(seed + 1000), 4000, sharpness, bias)


def test_a_model_that_is_merely_too_sharp_gets_a_temperature_and_nothing_else() -> None:
    calibration, fresh, labels = _fit(0, 2.0, np.zeros(CLASSES))
    assert calibration.per_class is None
    assert calibration.temperature == pytest.approx(2.0, rel=0.15)
    assert expected_calibration_error(labels, apply_calibration(fresh, calibration)) < 0.04
    assert expected_calibration_error(labels, fresh) > 0.08


def test_a_model_that_favours_classes_gets_scales_and_biases_that_correct_it() -> None:
    calibration, fresh, labels = _fit(1, 1.5, np.array([2.5, 0.0, -1.0, 0.0]))
    assert calibration.per_class is not None
    corrected = apply_calibration(fresh, calibration)
    with_temperature_alone = negative_log_likelihood(labels, apply_temperature(fresh, calibration.temperature))
    assert negative_log_likelihood(labels, corrected) < with_temperature_alone - 0.05
    assert calibration.cross_validated_nats is not None
    assert calibration.cross_validated_nats[1] < calibration.cross_validated_nats[0]
    assert (corrected.argmax(axis=1) == labels).mean() > (fresh.argmax(axis=1) == labels).mean()


def test_scales_and_biases_that_help_one_kind_of_shift_alone_are_not_used() -> None:
    rng = np.random.default_rng(2)
    clean, labels = _biased_sample(rng, 600, 1.0, np.zeros(CLASSES))
    samples = [_biased_sample(rng, 200, 1.0, 3.0 * np.eye(CLASSES)[index]) for index in range(3)]
    shifted, shifted_labels = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    calibration = fit_calibration(clean, labels, shifted, shifted_labels, np.repeat(GROUPS, 200))
    assert calibration.per_class is None


def test_without_shifted_images_there_is_no_cross_validation() -> None:
    rng = np.random.default_rng(3)
    clean, labels = _biased_sample(rng, 300, 2.0, np.array([3.0, 0, 0, 0]))
    calibration = fit_calibration(clean, labels, clean[:0], labels[:0], np.array([], dtype=str))
    assert calibration.per_class is None
    assert calibration.cross_validated_nats is None


def test_calibrated_rows_are_probabilities_and_neutral_parameters_change_nothing() -> None:
    rows, _ = _biased_sample(np.random.default_rng(4), 50, 3.0, np.zeros(CLASSES))
    neutral = Calibration(
        temperature=1.0,
        per_class=PerClassScaling(scales=(1.0,) * CLASSES, biases=(0.0,) * CLASSES),
        cross_validated_nats=None,
    )
    np.testing.assert_allclose(apply_calibration(rows, neutral), rows, atol=1e-12)
    scales, biases = (1.0, 2.0, 0.5, 1.0), (0.0, 1.0, -1.0, 0.2)
    scaled = apply_calibration(
        rows, neutral.replace(temperature=1.7, per_class=PerClassScaling(scales=scales, biases=biases))
    )
    np.testing.assert_allclose(scaled.sum(axis=1), 1.0)
    expected = softmax(np.log(apply_temperature(rows, 1.7)) * scales + biases, axis=1)
    np.testing.assert_allclose(scaled, expected, atol=1e-9)
