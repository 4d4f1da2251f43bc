import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.evaluation.calibration import (
    apply_temperature,
    balanced_weights,
    fit_temperature,
)
from bloodauto.evaluation.metrics import expected_calibration_error, negative_log_likelihood


def true_probabilities(rng: np.random.Generator, images: int, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from exactly these: perfectly calibrated."""
    logits = rng.normal(0, 2, (images, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > rng.uniform(size=(images, 1))).argmax(axis=1)
    return probabilities, labels


@pytest.mark.parametrize("known", [0.4, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_found_again(known):
    probabilities, labels = true_probabilities(np.random.default_rng(0), 20_000)
    distorted = apply_temperature(probabilities, 1 / known)
    assert fit_temperature(distorted, labels) == pytest.approx(known, rel=0.03)


def test_calibration_mends_overconfidence_and_leaves_the_answers():
    probabilities, labels = true_probabilities(np.random.default_rng(1), 5000)
    overconfident = apply_temperature(probabilities, 1 / 3)
    mended = apply_temperature(overconfident, fit_temperature(overconfident, labels))
    assert expected_calibration_error(labels, overconfident) > 0.2
    assert expected_calibration_error(labels, mended) < 0.03
    assert negative_log_likelihood(labels, mended) < negative_log_likelihood(labels, overconfident)
    np.testing.assert_array_equal(mended.argmax(axis=1), overconfident.argmax(axis=1))


def test_images_without_an_error_do_not_ask_for_endless_sharpness():
    labels = np.arange(40) % 2
    probabilities = np.where(np.eye(2)[labels] == 1, 0.9, 0.1)
    temperature = fit_temperature(probabilities, labels)
    assert 0.2 < temperature < 1
    assert apply_temperature(probabilities, temperature).max() < 1 - 1e-6


def test_probabilities_of_exactly_zero_and_one_are_survived():
    labels = np.array([0, 1, 1])
    probabilities = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    assert 1 < fit_temperature(probabilities, labels) <= 20
    assert np.isfinite(apply_temperature(probabilities, 0.05)).all()


def test_nothing_to_fit_on_leaves_probabilities_alone():
    assert fit_temperature(np.zeros((0, 8)), np.zeros(0, dtype=int)) == 1.0


def test_image_weights_say_whose_calibration_counts():
    rng = np.random.default_rng(2)
    clean, clean_labels = true_probabilities(rng, 3000)
    other, other_labels = true_probabilities(rng, 3000)
    rows = np.concatenate([clean, apply_temperature(other, 1 / 4)])
    labels = np.concatenate([clean_labels, other_labels])
    only = {part: np.repeat([part == "clean", part == "other"], 3000).astype(float) for part in ("clean", "other")}
    assert fit_temperature(rows, labels, only["clean"]) == pytest.approx(1, rel=0.1)
    assert fit_temperature(rows, labels, only["other"]) == pytest.approx(4, rel=0.1)
    assert 1.2 < fit_temperature(rows, labels) < 3.8


def test_balanced_weights_count_clean_images_and_each_group_once():
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
def test_laws_of_temperature(seed, temperature, images, classes):
    probabilities, labels = true_probabilities(np.random.default_rng(seed), images, classes)
    changed = apply_temperature(probabilities, temperature)
    np.testing.assert_allclose(changed.sum(axis=1), 1)
    np.testing.assert_array_equal(changed.argmax(axis=1), probabilities.argmax(axis=1))
    fitted = apply_temperature(probabilities, fit_temperature(probabilities, labels))
    assert negative_log_likelihood(labels, fitted) <= negative_log_likelihood(labels, probabilities) + 1e-6
