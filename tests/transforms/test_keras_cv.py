"""Parity: for the operations both have, a magnitude does here what it does in keras-cv's RandAugment.

Needs ``pip install keras-cv``, which is archived and therefore not a requirement of the project.
"""

from __future__ import annotations

from typing import Any

import cv2
import keras
import numpy as np
import pytest

from bloodauto.config.recipe import OPERATION_SETS, OPERATION_SPECS, OperationStep, RandAugmentSettings
from bloodauto.transforms import ApplyOperation, RandAugment
from bloodauto.types import Floats, Images

keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed: pip install keras-cv")
tf = pytest.importorskip("tensorflow")

STANDARD = OPERATION_SETS["standard"]
MAGNITUDES = (0.2, 0.5, 0.9)
#: The Kolmogorov-Smirnov distance of two samples of 600 from one distribution exceeds this once in a thousand times.
BOUND = 0.1125


@pytest.fixture(autouse=True)
def same_draws_in_every_run() -> None:
    """keras-cv's layers draw their seeds from Python's generator when they are made."""
    keras.utils.set_random_seed(5)


def apply(name: str, magnitude: float) -> ApplyOperation:
    has_strength = OPERATION_SPECS[name].range is not None
    return ApplyOperation(OperationStep(operation=name, magnitude=magnitude if has_strength else None))


@pytest.fixture(scope="module")
def images() -> Images:
    """600 times one image, uint8 (600, 32, 32, 3), so that effects differ by the draw alone."""
    rng = np.random.default_rng(3)
    image = np.clip(
        150 + 120 * cv2.GaussianBlur(rng.standard_normal((32, 32, 3)).astype(np.float32), (0, 0), 3), 0, 250
    )
    cv2.circle(image, (18, 14), 8, (90, 40, 130), -1)
    return np.repeat(np.rint(image)[None].astype(np.uint8), 600, axis=0)


def keras_cv_operation(name: str, magnitude: float, magnitude_std: float) -> Any:
    """The layer that keras-cv's RandAugment uses for an operation."""
    layers = keras_cv.layers.RandAugment.get_standard_policy((0, 255), magnitude, magnitude_std)
    return dict(zip(STANDARD, layers, strict=True))[name]


def keras_cv_result(layer: Any, images: Images) -> Floats:
    tf.random.set_seed(5)
    return np.asarray(layer(tf.constant(images, tf.float32), training=True)).astype(np.float64)


def effects(results: Floats | Images, images: Images) -> Floats:
    """One number for each image: how far it is from the original, with a sign for the direction of the light."""
    change = results.astype(np.float64) - images
    return np.abs(change).mean(axis=(1, 2, 3)) + 0.37 * change.mean(axis=(1, 2, 3))


def largest_distance(first: Floats, second: Floats, slack_levels: float = 0.3) -> float:
    """Kolmogorov-Smirnov distance that forgives a shift of ``slack_levels``: keras-cv does not round to whole levels."""

    def excess(left: Floats, right: Floats) -> float:
        below_left = np.searchsorted(np.sort(left), left, side="right") / len(left)
        below_right = np.searchsorted(np.sort(right), left + slack_levels, side="right") / len(right)
        return float(np.max(below_left - below_right))

    return max(excess(first, second), excess(second, first))


def test_the_distance_sees_a_different_distribution():
    rng = np.random.default_rng(0)
    first, second = (rng.uniform(0, 50, 600) for _ in range(2))
    assert largest_distance(first, second) < BOUND
    assert largest_distance(first, 1.3 * second) > BOUND
    assert largest_distance(first, second + 10) > BOUND


def test_the_standard_operations_are_keras_cvs_in_number_and_order():
    layers = keras_cv.layers.RandAugment.get_standard_policy((0, 255), 0.5, 0.0)
    assert [type(layer).__name__ for layer in layers] == [
        "AutoContrast", "Equalization", "Solarization", "RandomColorDegeneration", "RandomContrast", "RandomBrightness",
        "RandomShear", "RandomShear", "RandomTranslation", "RandomTranslation",
    ]  # fmt: skip


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "solarize", "color"])
def test_operations_without_chance_give_the_same_image_within_a_level(name, magnitude, images):
    ours = apply(name, magnitude)(images[:2], np.random.default_rng(0))
    expected = keras_cv_result(keras_cv_operation(name, magnitude, 0.0), images[:2])
    assert np.abs(ours - expected).max() <= 1.01


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_shears_give_one_of_the_same_two_images_within_two_levels(name, magnitude, images):
    ours = apply(name, magnitude)(images[:40], np.random.default_rng(0)).astype(np.float64)
    expected = keras_cv_result(keras_cv_operation(name, magnitude, 0.0), images[:40])
    for result in expected[np.unique(np.round(effects(expected, images[:40]), 2), return_index=True)[1]]:
        assert min(np.abs(candidate - result).max() for candidate in ours) <= 2


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("name", STANDARD)
def test_effects_have_the_same_distribution(name, magnitude, images):
    ours = effects(apply(name, magnitude)(images, np.random.default_rng(1)), images)
    other = effects(keras_cv_result(keras_cv_operation(name, magnitude, 0.0), images), images)
    assert largest_distance(ours, other) < BOUND


@pytest.mark.parametrize("name", ["color", "shear_x", "shear_y"])
def test_magnitude_noise_has_the_same_effect_where_keras_cv_has_it(name, images):
    settings = RandAugmentSettings(num_ops=1, magnitude=0.5, magnitude_std=0.15, operations=(name,))
    ours = effects(RandAugment(settings)(images, np.random.default_rng(2)), images)
    other = effects(keras_cv_result(keras_cv_operation(name, 0.5, 0.15), images), images)
    assert largest_distance(ours, other) < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("num_ops", [1, 3])
def test_the_whole_policy_has_the_same_distribution_of_effects(num_ops, images):
    settings = RandAugmentSettings(num_ops=num_ops, magnitude=0.5, rate=0.9)
    ours = effects(RandAugment(settings)(images, np.random.default_rng(3)), images)
    layer = keras_cv.layers.RandAugment((0, 255), num_ops, 0.5, magnitude_stddev=0.0, rate=0.9)
    assert largest_distance(ours, effects(keras_cv_result(layer, images), images)) < BOUND
