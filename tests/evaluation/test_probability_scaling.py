"""One temperature where it is enough, scales and biases for each class where they hold for shifts they have not seen."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.evaluation.calibration import apply_temperature
from bloodauto.evaluation.metrics import expected_calibration_error
from bloodauto.evaluation.probability_scaling import Calibration, PerClass, fit_calibration

CLASSES = 4
GROUPS = ("optics", "stain", "light")


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _sample(rng: np.random.Generator, count: int, sharpness: float, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers of a model that is too sharp and favours classes, and labels drawn from what it should have said."""
    logits = rng.normal(0, 2.0, (count, CLASSES))
    honest = _softmax(logits)
    labels = (honest.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    return _softmax(sharpness * logits + bias), labels


def _fit(seed: int, sharpness: float, bias: np.ndarray, views: int = 300) -> tuple[Calibration, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clean, labels = _sample(rng, 600, sharpness, bias)
    shifted, shifted_labels = _sample(rng, views, sharpness, bias)
    groups = np.array([GROUPS[index % 3] for index in range(views)])
    found = fit_calibration(clean, labels, shifted, shifted_labels, groups)
    return found, *_sample(np.random.default_rng(seed + 1000), 4000, sharpness, bias)


def test_a_model_that_is_merely_too_sharp_gets_a_temperature_and_nothing_else() -> None:
    found, fresh, labels = _fit(0, 2.0, np.zeros(CLASSES))
    assert found.per_class is None
    assert found.temperature == pytest.approx(2.0, rel=0.15)
    assert expected_calibration_error(labels, found.apply(fresh)) < 0.04
    assert expected_calibration_error(labels, fresh) > 0.08


def test_a_model_that_favours_classes_gets_scales_and_biases_that_mend_it() -> None:
    bias = np.array([2.5, 0.0, -1.0, 0.0])
    found, fresh, labels = _fit(1, 1.5, bias)
    assert found.per_class is not None
    tempered = apply_temperature(fresh, found.temperature)
    nats = [-np.log(table[np.arange(len(labels)), labels]).mean() for table in (tempered, found.apply(fresh))]
    assert nats[1] < nats[0] - 0.05
    assert found.cross_validated_nats is not None
    assert found.cross_validated_nats[1] < found.cross_validated_nats[0]
    assert (found.apply(fresh).argmax(axis=1) == labels).mean() > (fresh.argmax(axis=1) == labels).mean()


def test_what_helps_one_kind_of_shift_alone_is_not_taken() -> None:
    rng = np.random.default_rng(2)
    clean, labels = _sample(rng, 600, 1.0, np.zeros(CLASSES))
    views = [_sample(rng, 200, 1.0, 3.0 * np.eye(CLASSES)[index]) for index in range(3)]
    shifted, shifted_labels = np.concatenate([one[0] for one in views]), np.concatenate([one[1] for one in views])
    found = fit_calibration(clean, labels, shifted, shifted_labels, np.repeat(GROUPS, 200))
    assert found.per_class is None


def test_without_shifted_views_there_is_nothing_to_choose_by() -> None:
    rng = np.random.default_rng(3)
    clean, labels = _sample(rng, 300, 2.0, np.array([3.0, 0, 0, 0]))
    found = fit_calibration(clean, labels, clean[:0], labels[:0], np.array([], dtype=str))
    assert found.per_class is None
    assert found.cross_validated_nats is None


def test_calibrated_rows_are_probabilities_and_neutral_numbers_change_nothing() -> None:
    rng = np.random.default_rng(4)
    rows, _ = _sample(rng, 50, 3.0, np.zeros(CLASSES))
    neutral = Calibration(1.0, PerClass((1.0,) * CLASSES, (0.0,) * CLASSES), (0.0, 0.0))
    np.testing.assert_allclose(neutral.apply(rows), rows, atol=1e-12)
    bent = Calibration(1.7, PerClass((1.0, 2.0, 0.5, 1.0), (0.0, 1.0, -1.0, 0.2)), (0.0, 0.0)).apply(rows)
    np.testing.assert_allclose(bent.sum(axis=1), 1.0)
    tempered = np.log(apply_temperature(rows, 1.7))
    wanted = tempered * [1.0, 2.0, 0.5, 1.0] + [0.0, 1.0, -1.0, 0.2]
    np.testing.assert_allclose(bent, _softmax(wanted), atol=1e-9)


def test_scales_and_biases_must_pair_up() -> None:
    with pytest.raises(AssertionError):
        PerClass((1.0, 1.0), (0.0,))
