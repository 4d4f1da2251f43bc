"""Averaging a network's class probabilities over transforms of the image."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.config.recipe import TRANSFORM_NAMES
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.tta import tta_batch, with_tta


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Its predictions depend on positions and on brightness."""
    keras.utils.set_random_seed(3)
    images = keras.Input((20, 20, 3), dtype="uint8", name="images")
    x = layers.Conv2D(4, 5, strides=3, activation="relu")(layers.Rescaling(1 / 50)(images))
    return keras.Model(images, layers.Dense(3, dtype="float32")(layers.Flatten()(layers.Dropout(0.5)(x))))


def test_the_prediction_is_the_weighted_average_over_the_transforms(network: keras.Model) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 20, 20, 3), dtype=np.uint8)
    weights = {name: (index + 1) / 91 for index, name in enumerate(TRANSFORM_NAMES)}
    assert sum(weights.values()) == pytest.approx(1)
    expected = sum(
        weight * predict_batches(network, np.asarray(tta_batch(images, [name]))) for name, weight in weights.items()
    )
    averaged = predict_batches(with_tta(network, weights), images)
    plain = predict_batches(network, images)
    np.testing.assert_allclose(averaged, expected, atol=1e-5)
    assert np.abs(averaged - plain).max() > 0.01
    np.testing.assert_allclose(predict_batches(with_tta(network, {"identity": 1.0}), images), plain, atol=1e-6)


def test_its_outputs_are_logarithms_of_probabilities(network: keras.Model) -> None:
    images = np.zeros((3, 20, 20, 3), dtype=np.uint8)
    logits = np.asarray(with_tta(network, {"identity": 0.5, "turn_90": 0.5}).predict(images, verbose=0))
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, atol=1e-5)
