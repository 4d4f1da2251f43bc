"""Point-wise operations against plain reference computations."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bloodauto.transforms import lookup_tables
from bloodauto.transforms.operations import pointwise
from bloodauto.types import Floats, Image
from tests.transforms.applying import ZEROS, apply_operation


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(4).integers(0, 256, (31, 23, 3), dtype=np.uint8)


def levels(values: Floats) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def test_levels_are_mapped_as_declared(image: Image) -> None:
    values = image.astype(float)
    means = values.mean(axis=(0, 1))
    expected = {
        ("brightness", 0.2): values + 51,
        ("brightness", -0.4): values - 102,
        ("contrast", 0.7): (values - means) * 1.7 + means,
        ("contrast", -0.7): (values - means) * 0.3 + means,
        ("gamma", 1.0): 255 * (values / 255) ** 2,
        ("gamma", -1.0): 255 * (values / 255) ** 0.5,
        ("exposure", 0.5): values * np.sqrt(2),
        ("invert", 1.0): 255 - values,
        ("posterize", 3.0): (image // 8 * 8).astype(float),
    }
    for (name, strength), results in expected.items():
        np.testing.assert_allclose(
            apply_operation(name, strength, image).astype(int), levels(results), atol=1, err_msg=name
        )
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    expected_levels = (values - low) * (255.0 / (high - low))
    np.testing.assert_allclose(
        apply_operation("auto_contrast", 1.0, image).astype(int), levels(expected_levels), atol=1
    )


def test_solarize_inverts_only_levels_at_or_above_the_threshold() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (2, 1, 3))
    np.testing.assert_array_equal(apply_operation("solarize", 0.0, ramp), ramp)
    raised = np.minimum(ramp.astype(float) + 33, 255)
    np.testing.assert_array_equal(
        apply_operation("solarize", 0.3, ramp), levels(np.where(raised >= 178.5, 255 - raised, raised))
    )


def test_white_balance_gives_each_channel_its_gain(image: Image) -> None:
    uniforms = np.array([[0.0, 0.5, 1.0, 0.0, 0.0, 0.0]])
    expected = levels(image * np.array([2**-0.5, 1.0, 2**0.5]))
    np.testing.assert_allclose(apply_operation("white_balance", 0.5, image, uniforms).astype(int), expected, atol=1)


def test_equalize_flattens_the_histogram() -> None:
    skewed = (255 * np.random.default_rng(0).random((100, 100, 3)) ** 4).astype(np.uint8)
    counts = np.bincount(apply_operation("equalize", 1.0, skewed)[..., 0].ravel() // 64, minlength=4)
    assert counts.min() > 0.7 * counts.max()
    original_counts = np.bincount(skewed[..., 0].ravel() // 64, minlength=4)
    assert original_counts.min() < 0.2 * original_counts.max()


def test_histograms_through_a_table_are_those_of_the_changed_image(image: Image) -> None:
    for table in (
        pointwise.gamma(np.array([1.0]), ZEROS)[0],
        np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8),
    ):
        through = lookup_tables.Statistics(image)
        through.table = table
        changed = lookup_tables.Statistics(cv2.LUT(image, table if table.ndim == 1 else table[None]))
        np.testing.assert_array_equal(through.histograms(), changed.histograms())


def test_ramps_and_their_tables_are_the_same_to_the_bit(image: Image) -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        ramp = np.zeros((3, 4))
        ramp[[0, 1, 2], [0, 1, 2]] = rng.choice([rng.uniform(-1, 3), 0.5, 1.5])
        ramp[:, 3] = rng.choice([rng.uniform(-300, 300), 0.5, -20.5])
        table = lookup_tables.as_table(ramp)
        np.testing.assert_array_equal(cv2.transform(image, ramp), cv2.LUT(image, table[None]))
