from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.errors import DataError
from bloodauto.models.batch_norm import adapted_batch_norm_weights
from bloodauto.models.network import build_network
from bloodauto.training.trainer import TrainOptions, train


def small_network() -> keras.Model:
    """Convolution without padding, then normalisation, inside a model of its own as a backbone is; then dropout."""
    keras.utils.set_random_seed(0)
    inner_input = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(inner_input)
    inner = keras.Model(inner_input, layers.BatchNormalization(name="first")(x), name="inner")
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = inner(layers.Rescaling(1 / 127.5, offset=-1.0)(inputs))
    x = layers.Dropout(0.5)(layers.ReLU()(x))
    x = layers.BatchNormalization(name="second")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def with_weights(network: keras.Model, weights: list[np.ndarray]) -> keras.Model:
    other = keras.models.clone_model(network)
    other.set_weights(weights)
    return other


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return small_network()


def test_the_first_statistics_are_those_of_its_inputs(network, noise):
    images = noise(50, 8, 8)
    before = network.get_weights()
    adapted = adapted_batch_norm_weights(network, images, batch_size=16)
    features = network.get_layer("inner").layers[1](images / np.float32(127.5) - 1).numpy()
    norm = network.get_layer("inner").get_layer("first")
    positions = {id(variable): index for index, variable in enumerate(network.weights)}
    np.testing.assert_allclose(adapted[positions[id(norm.moving_mean)]], features.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(adapted[positions[id(norm.moving_variance)]], features.var(axis=(0, 1, 2)), rtol=1e-4)
    for value, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other, err_msg="the network itself is not changed")
    changed = [not np.array_equal(value, other) for value, other in zip(before, adapted, strict=True)]
    assert sum(changed) == 4, "mean and variance of both, and nothing else"


def test_dropout_plays_no_part(network, noise):
    images = noise(40, 8, 8)
    for value, other in zip(
        adapted_batch_norm_weights(network, images), adapted_batch_norm_weights(network, images), strict=True
    ):
        np.testing.assert_array_equal(value, other)


def test_another_contrast_and_brightness_is_taken_out(network, noise):
    """A laboratory whose every pixel is 0.5 x + 60 gets the answers of the first one, each with its own statistics."""
    images = noise(60, 8, 8) // 2 * 2
    external = (images // 2 + 60).astype(np.uint8)
    predictions = [
        with_weights(network, adapted_batch_norm_weights(network, seen)).predict_on_batch(seen)
        for seen in (images, external)
    ]
    unadapted = network.predict_on_batch(external)
    np.testing.assert_allclose(predictions[1], predictions[0], atol=2e-2)
    assert np.abs(unadapted - predictions[0]).max() > 0.1


def test_frozen_normalisation_adapts_as_well(noise):
    network = small_network()
    free = adapted_batch_norm_weights(network, noise(30, 8, 8))
    network.trainable = False
    for value, other in zip(free, adapted_batch_norm_weights(network, noise(30, 8, 8)), strict=True):
        np.testing.assert_array_equal(value, other)


def test_stored_statistics_count_as_so_many_images(network, noise):
    images = noise(30, 8, 8)
    stored, replaced = network.get_weights(), adapted_batch_norm_weights(network, images)
    halfway = adapted_batch_norm_weights(network, images, source_pseudo_count=30)
    for value, other, middle in zip(stored, replaced, halfway, strict=True):
        np.testing.assert_allclose(middle, (value + other) / 2, atol=1e-6)


def test_a_network_without_normalisation_stays_as_it_is(noise):
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)))
    for value, other in zip(network.get_weights(), adapted_batch_norm_weights(network, noise(4, 8, 8)), strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images(network, noise, count):
    with pytest.raises(DataError, match=f"at least 2 images to take statistics from, got {count}"):
        adapted_batch_norm_weights(network, noise(count, 8, 8))


@pytest.mark.slow
def test_it_recovers_what_a_change_of_light_cost(fold_data, recipe_of, stage_of, tmp_path):
    """Cells in dim yellowish light: no label of them is used."""
    recipe = recipe_of([stage_of(epochs=8, learning_rate=2e-3)], batch_size=4)
    options = TrainOptions(objective="accuracy")
    train(recipe, fold_data, seed=0, options=options, folder=tmp_path, report=lambda _: None, should_stop=lambda: False)
    from bloodauto.evaluation.inference import predict_batches
    from bloodauto.run.artifacts import NetworkWeights

    network = build_network(recipe, num_classes=8, image_shape_px=(32, 32), weights_file=None, for_training=False)
    network.set_weights(NetworkWeights.read(tmp_path / "best.npz").weights)
    index = fold_data.validation_index
    external = (fold_data.images[index] * np.array([0.6, 0.5, 0.3])).astype(np.uint8)
    before = (predict_batches(network, external).argmax(axis=1) == fold_data.labels[index]).mean()
    network.set_weights(adapted_batch_norm_weights(network, external))
    after = (predict_batches(network, external).argmax(axis=1) == fold_data.labels[index]).mean()
    assert after > before + 0.1
