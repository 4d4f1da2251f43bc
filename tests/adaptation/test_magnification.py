"""The magnification that a site needs, from its unlabelled images, with an interval and the courage to say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.adaptation.magnification import estimate_magnification
from bloodauto.errors import DataError
from tests.adaptation.conftest import cells_of

RADIUS_PX = 6.0


def confident_about_radius(images):
    """Class probabilities of a model that knows cells of six pixels: the farther the area, the less sure."""
    dark = (images.mean(axis=3) < 150).sum(axis=(1, 2))
    distance = np.abs(np.log2(np.maximum(dark, 1) / (np.pi * RADIUS_PX**2)))
    highest = 0.4 + 0.6 * np.exp(-distance)
    return np.stack([highest, 1 - highest], axis=1)


def discs(count: int, radius: float) -> np.ndarray:
    images, labels = cells_of(3 * count, radius=radius)
    return images[labels == 0]


@pytest.mark.parametrize(("radius", "expected"), [(4.0, (1.3, 1.6)), (6.0, (1.0, 1.0)), (8.5, (0.6, 0.85))])
def test_cells_of_another_size_are_brought_to_the_models_size(radius, expected):
    estimate = estimate_magnification(confident_about_radius, discs(60, radius))
    assert estimate.is_certain
    assert expected[0] <= estimate.factor <= expected[1]
    assert estimate.low <= estimate.factor <= estimate.high
    assert f"{estimate.factor:g}" in estimate.text()


def test_images_that_say_nothing_leave_the_magnification_at_1():
    rng = np.random.default_rng(0)

    def predict(images):
        highest = rng.uniform(0.5, 1.0, len(images))
        return np.stack([highest, 1 - highest], axis=1)

    estimate = estimate_magnification(predict, discs(40, 6.0))
    assert not estimate.is_certain
    assert estimate.factor == 1.0
    assert estimate.high > estimate.low
    assert "cannot tell" in estimate.text()


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match="expected at least 24 to estimate a magnification from, got 10"):
        estimate_magnification(confident_about_radius, discs(10, 6.0))
