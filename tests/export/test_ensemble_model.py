"""Networks combined into one model."""

from __future__ import annotations

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.config.recipe import TRANSFORM_NAMES, WeightedTransform
from bloodauto.errors import RunError
from bloodauto.evaluation.calibration import apply_calibration, apply_temperature
from bloodauto.evaluation.tta import TTA_OPERATIONS, tta_batch
from bloodauto.export.ensemble_model import (
    IDENTITY,
    ExportedMember,
    TtaTransform,
    build_ensemble_model,
    tta_transforms_of,
)
from bloodauto.run.artifacts import Calibration, PerClassScaling


def rotated(degrees):
    def turn(images):
        size = images.shape[1]
        matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), degrees, 1.0)
        turned = [
            cv2.warpAffine(np.float32(image), matrix, (size, size), borderMode=cv2.BORDER_REFLECT) for image in images
        ]
        return np.uint8(np.clip(np.round(turned), 0, 255))

    return turn


def zoomed(factor):
    def magnify(images):
        size = images.shape[1]
        matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), 0, factor)
        enlarged = [
            cv2.warpAffine(np.float32(image), matrix, (size, size), borderMode=cv2.BORDER_REFLECT) for image in images
        ]
        return np.uint8(np.clip(np.round(enlarged), 0, 255))

    return magnify


#: Each transform as numpy and OpenCV have it.
REFERENCE_TRANSFORMS = {
    "identity": lambda images: images,
    "flip_left_right": lambda images: images[:, :, ::-1],
    "flip_up_down": lambda images: images[:, ::-1],
    "turn_90": lambda images: np.rot90(images, 1, axes=(1, 2)),
    "turn_180": lambda images: np.rot90(images, 2, axes=(1, 2)),
    "turn_270": lambda images: np.rot90(images, 3, axes=(1, 2)),
    "transpose": lambda images: images.swapaxes(1, 2),
    "rotate_left": rotated(10),
    "rotate_right": rotated(-10),
    "brighter": lambda images: np.uint8(np.minimum(np.round(images * np.float32(1.1)), 255)),
    "darker": lambda images: np.uint8(np.round(images * np.float32(0.9))),
    "smaller": zoomed(0.85),
    "larger": zoomed(1.15),
}
HALF_TURNS = (TtaTransform("identity", 0.5), TtaTransform("turn_180", 0.5))


def softmax(logits):
    powers = np.exp(np.float64(logits) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def by_hand(members, temperature, images):
    """What the model must predict, computed outside of it."""
    total = 0.0
    for member in members:
        for transform in member.tta:
            transformed = np.ascontiguousarray(REFERENCE_TRANSFORMS[transform.name](images))
            logits = member.network.predict(transformed, verbose=0)
            total = total + member.weight * transform.weight * softmax(logits)
    return apply_temperature(np.asarray(total), temperature)


def test_predictions_are_the_calibrated_average(small_pair, make):
    members = [ExportedMember(small_pair[0], 0.7), ExportedMember(small_pair[1], 0.3)]
    images = make.images(8, 24)
    model = build_ensemble_model(members, temperature=1.7)
    expected = by_hand(members, 1.7, images)
    probabilities = model.predict(images, verbose=0)
    assert len(set(expected.argmax(axis=1))) > 1, "the networks must tell images apart, or this test says nothing"
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert probabilities.dtype == np.float32
    assert model.input_shape == (None, 24, 24, 3)
    assert model.inputs[0].dtype == "uint8"


@pytest.mark.parametrize("name", TRANSFORM_NAMES)
def test_each_transform_is_that_of_numpy_and_opencv(name, make):
    images = cv2.GaussianBlur(make.images(4, 24).reshape(4 * 24, 24, 3), (0, 0), 2.0).reshape(4, 24, 24, 3)
    transformed = np.asarray(tta_batch(images, [name]))
    assert transformed.dtype == np.uint8
    # OpenCV interpolates with weights in steps of 1/32.
    tolerance = 2 if name.startswith(("rotate", "smaller", "larger")) else 0
    assert np.abs(transformed.astype(int) - REFERENCE_TRANSFORMS[name](images)).max() <= tolerance
    assert name == "identity" or (transformed != images).mean() > 0.3


def test_every_name_of_the_grammar_has_an_operation():
    assert set(TTA_OPERATIONS) == set(TRANSFORM_NAMES) == set(REFERENCE_TRANSFORMS)


def test_each_member_is_averaged_over_its_transforms(small_pair, make):
    tta = (TtaTransform("identity", 0.6), TtaTransform("flip_left_right", 0.1), TtaTransform("turn_90", 0.3))
    members = [ExportedMember(small_pair[0], 0.5, tta=tta), ExportedMember(small_pair[1], 0.5, tta=HALF_TURNS)]
    images = make.images(5, 24)
    probabilities = build_ensemble_model(members, temperature=0.8).predict(images, verbose=0)
    np.testing.assert_allclose(probabilities, by_hand(members, 0.8, images), atol=1e-5)
    assert (
        np.abs(
            probabilities - build_ensemble_model([ExportedMember(m.network, m.weight) for m in members]).predict(images)
        ).max()
        > 0.01
    )
    assert [member.forward_passes for member in members] == [3, 2]


def test_a_recipes_transforms_become_weights():
    assert tta_transforms_of(()) == IDENTITY
    named = (WeightedTransform(transform="identity", weight=3), WeightedTransform(transform="darker"))
    assert tta_transforms_of(named) == (TtaTransform("identity", 0.75), TtaTransform("darker", 0.25))


def test_members_are_left_as_they_were(small_pair):
    before = [variable.numpy().copy() for variable in small_pair[0].weights]
    names = [layer.name for layer in small_pair[0].layers]
    trainable = len(small_pair[0].trainable_weights)
    model = build_ensemble_model([ExportedMember(small_pair[0], 1.0)])
    for variable in model.weights:
        variable.assign(variable * 0)
    for variable, value in zip(small_pair[0].weights, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert [layer.name for layer in small_pair[0].layers] == names
    assert len(small_pair[0].trainable_weights) == trainable > 0


def test_networks_trained_in_16_bits_are_exported_in_32(make):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = make.randomise(make.small(), 5)
        model = build_ensemble_model([ExportedMember(network, 1.0)])
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in model._flatten_layers() if layer.weights} == {"float32"}
    images = make.images(4, 24)
    np.testing.assert_allclose(model.predict(images, verbose=0), softmax(network.predict(images, verbose=0)), atol=0.02)


def test_probabilities_of_zero_do_not_break_the_logarithm(small_pair, make):
    network = make.randomise(make.small(), 6)
    network.get_layer("logits").kernel.assign(network.get_layer("logits").kernel * 1000)
    probabilities = build_ensemble_model([ExportedMember(network, 1.0)], temperature=0.05).predict(
        make.images(4, 24), verbose=0
    )
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@keras.saving.register_keras_serializable("somewhere")
class Homemade(layers.Layer):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize("layer", [Homemade(name="odd"), layers.Lambda(lambda x: x, name="odd")])
def test_layers_that_would_not_load_without_the_project_are_refused(layer, make):
    images = keras.Input((24, 24, 3), dtype="uint8")
    inner = keras.Sequential([keras.Input((24, 24, 3)), layer, layers.Flatten(), layers.Dense(make.classes)])
    network = keras.Model(images, inner(layers.Rescaling(1.0)(images)))
    with pytest.raises(RunError, match="'odd'"):
        build_ensemble_model([ExportedMember(network, 1.0)])


def test_a_network_of_a_class_of_its_own_is_refused(make):
    class Custom(keras.Model):
        pass

    small = make.small()
    with pytest.raises(RunError, match="Custom"):
        build_ensemble_model([ExportedMember(Custom(small.inputs, small.outputs), 1.0)])


def test_members_that_disagree_and_transforms_that_do_not_fit_are_refused(small_pair, make):
    with pytest.raises(RunError, match="the same images and classes"):
        build_ensemble_model([ExportedMember(small_pair[0], 0.5), ExportedMember(make.small(classes=3), 0.5)])
    images = keras.Input((24, 32, 3), dtype="uint8")
    wide = keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Rescaling(1.0)(images))))
    with pytest.raises(RunError, match="24 x 32"):
        build_ensemble_model([ExportedMember(wide, 1.0, tta=(TtaTransform("turn_90", 1.0),))])


def test_scales_and_biases_are_those_of_the_calibration(small_pair, make):
    rng = np.random.default_rng(0)
    images = make.images(16, 24)
    per_class = PerClassScaling(
        scales=tuple(rng.uniform(0.5, 2, make.classes).tolist()),
        biases=tuple(rng.normal(0, 1, make.classes).tolist()),
    )
    calibration = Calibration(temperature=1.6, per_class=per_class, cross_validated_nats=None)
    plain = build_ensemble_model([ExportedMember(small_pair[0], 1.0)]).predict(images, verbose=0)
    probabilities = build_ensemble_model(
        [ExportedMember(small_pair[0], 1.0)], temperature=1.6, per_class=per_class
    ).predict(images, verbose=0)
    np.testing.assert_allclose(probabilities, apply_calibration(plain, calibration), atol=2e-5)
    assert (probabilities.argmax(axis=1) != plain.argmax(axis=1)).any()
