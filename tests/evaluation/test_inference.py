"""Batch inference gives every image its own prediction, whatever the batch size."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bloodauto.evaluation.inference import predict_batches, predict_outputs
from bloodauto.evaluation.metrics import softmax
from bloodauto.evaluation.tta import tta_batch
from bloodauto.types import Images


@pytest.fixture(scope="module")
def images() -> Images:
    return np.random.default_rng(0).integers(0, 256, (21, 4, 4, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def means() -> keras.Model:
    """Two outputs: the mean of each channel, and twice that."""
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(inputs))
    return keras.Model(inputs, [mean, keras.layers.Rescaling(2.0)(mean)])


@pytest.mark.parametrize("batch_size", [4, 7, 21, 64])
def test_every_output_has_a_row_for_every_image(images: Images, means: keras.Model, batch_size: int) -> None:
    first, second = predict_outputs(means, images, batch_size=batch_size)
    expected = images.mean(axis=(1, 2))
    np.testing.assert_allclose(first, expected, rtol=1e-5)
    np.testing.assert_allclose(second, 2 * expected, rtol=1e-5)


def test_rows_select_images_and_may_repeat(images: Images, means: keras.Model) -> None:
    rows = np.array([20, 3, 3])
    single = keras.Model(means.inputs, means.outputs[0])
    (output,) = predict_outputs(single, images, rows, batch_size=2)
    np.testing.assert_allclose(output, images.mean(axis=(1, 2))[rows], rtol=1e-5)


def test_probabilities_are_the_softmax_of_the_logits(images: Images, means: keras.Model) -> None:
    single = keras.Model(means.inputs, means.outputs[0])
    probabilities = predict_batches(single, images)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, softmax(predict_outputs(single, images)[0]))


def test_tta_averages_probabilities_over_the_transforms(images: Images) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 100)(inputs)))
    network = keras.Model(inputs, logits)
    turned = predict_batches(network, np.asarray(tta_batch(images, ["turn_90"])))
    expected = 0.25 * predict_batches(network, images) + 0.75 * turned
    averaged = predict_batches(network, images, tta={"identity": 0.25, "turn_90": 0.75})
    np.testing.assert_allclose(averaged, expected, atol=1e-5)
