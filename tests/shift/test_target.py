"""Label-free estimates, on answers whose truth is planted."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.errors import DataError
from bloodauto.shift.target import estimate_by_agreement, estimate_by_threshold, mean_agreement, mean_confidence

CLASSES = 4


def answers(rng: np.random.Generator, labels: np.ndarray, strength: float) -> np.ndarray:
    """Calibrated answers: evidence for the truth of that strength, its posterior, float (n, CLASSES)."""
    evidence = rng.normal(0, 1, (len(labels), CLASSES)) * np.sqrt(strength)
    evidence[np.arange(len(labels)), labels] += strength
    shares = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def test_the_threshold_follows_the_accuracy_down() -> None:
    rng = np.random.default_rng(0)
    labels, target_labels = rng.integers(CLASSES, size=(2, 4000))
    known = answers(rng, labels, 5.0)
    accuracy = (known.argmax(axis=1) == labels).mean()
    estimates, truths = [], []
    for share_spoilt in (0.1, 0.3, 0.6):
        spoilt = rng.random(4000) < share_spoilt
        target = np.where(spoilt[:, None], answers(rng, target_labels, 0.3), answers(rng, target_labels, 5.0))
        truths.append((target.argmax(axis=1) == target_labels).mean())
        estimates.append(estimate_by_threshold(labels, known, target))
    assert estimates == sorted(estimates, reverse=True)
    off = np.abs(np.array(estimates) - truths)
    assert (off < np.abs(accuracy - np.array(truths))).all()


def test_on_the_known_images_themselves_it_is_their_accuracy() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(CLASSES, size=500)
    known = answers(rng, labels, 3.0)
    truth = (known.argmax(axis=1) == labels).mean()
    assert estimate_by_threshold(labels, known, known) == pytest.approx(truth)
    perfect = np.eye(CLASSES)[labels]
    assert estimate_by_threshold(labels, perfect, known) == 1.0
    wrong = np.eye(CLASSES)[(labels + 1) % CLASSES]
    assert estimate_by_threshold(labels, wrong, known) == 0.0


def test_agreement_ranks_networks_and_its_line_tells_how_far_they_fall() -> None:
    rng = np.random.default_rng(2)
    labels, target_labels = rng.integers(CLASSES, size=(2, 3000))
    strengths = np.linspace(1.5, 5.0, 6)
    known = [answers(rng, labels, strength) for strength in strengths]
    target = [answers(rng, target_labels, 0.5 * strength) for strength in strengths]
    accuracies = np.array([(one.argmax(axis=1) == labels).mean() for one in known])
    truth = np.array([(one.argmax(axis=1) == target_labels).mean() for one in target])
    assert (np.argsort(mean_agreement(target)) == np.argsort(truth)).all()
    estimate = estimate_by_agreement(accuracies, known, target)
    assert (np.argsort(estimate) == np.argsort(truth)).all()
    assert np.abs(estimate - truth).mean() < np.abs(accuracies - truth).mean()


def test_agreement_is_one_with_oneself_and_half_with_half() -> None:
    one = np.eye(2)[[0, 0, 1, 1]]
    other = np.eye(2)[[0, 1, 1, 0]]
    np.testing.assert_allclose(mean_agreement([one, one, other]), [0.75, 0.75, 0.5])


def test_a_calibrated_network_is_as_right_as_it_is_confident() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(CLASSES, size=5000)
    target = answers(rng, labels, 2.0)
    assert mean_confidence(target) == pytest.approx((target.argmax(axis=1) == labels).mean(), abs=0.03)


def test_what_cannot_be_estimated_is_refused() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(CLASSES, size=10)
    known = answers(rng, labels, 2.0)
    with pytest.raises(DataError, match="at least 1"):
        estimate_by_threshold(labels, known, known[:0])
    with pytest.raises(DataError, match="expected labels"):
        estimate_by_threshold(labels[1:], known, known)
    with pytest.raises(DataError, match="at least 2 networks"):
        mean_agreement([known])
    with pytest.raises(DataError, match="at least 3 networks"):
        estimate_by_agreement(np.array([0.5, 0.6]), [known, known], [known, known])
