from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.trial.network import apply_unfreeze, backbone_of, build_network, restart_randomness


def network_of(recipe, shape=(32, 32)):
    return build_network(recipe, num_classes=5, image_shape_px=shape, weights_file=None)


def learning_layers(network) -> list[str]:
    """Names of the backbone's layers that have weights of their own that learn."""
    return [layer.name for layer in backbone_of(network).layers if layer.trainable and layer.trainable_variables]


def test_plain_images_in_logits_out(recipe_of, noise):
    network = network_of(recipe_of(head={"dropout": 0.2, "dense_units": [7], "activation": "gelu", "pooling": "max"}))
    assert network.inputs[0].dtype == "uint8"
    assert network.inputs[0].shape == (None, 32, 32, 3)
    logits = network(noise(3, 32, 32), training=False)
    assert logits.shape == (3, 5)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert not np.allclose(np.asarray(logits).sum(axis=1), 1), "logits, no probabilities"
    assert [layer.name for layer in network.layers][-5:] == ["pool", "dropout", "head_0", "head_0_dropout", "logits"]


def test_images_of_another_size_are_resized_inside(recipe_of, noise):
    network = network_of(recipe_of(), shape=(50, 41))
    logits = np.asarray(network(noise(2, 50, 41), training=False))
    assert logits.shape == (2, 5)
    resized = keras.ops.image.resize(noise(2, 50, 41).astype(np.float32), (32, 32), antialias=True)
    rest = keras.Model(network.get_layer("resize").output, network.output)
    np.testing.assert_allclose(np.asarray(rest(resized, training=False)), logits, atol=1e-3)
    assert "resize" not in [layer.name for layer in network_of(recipe_of()).layers]


def scaled(recipe, images):
    network = build_network(recipe, num_classes=2, image_shape_px=images.shape[1:3], weights_file=None)
    return np.asarray(keras.Model(network.input, network.get_layer("scale").output)(images))


@pytest.mark.slow
def test_scaling_is_the_one_the_weights_were_trained_with(recipe_of, noise):
    images = noise(2, 32, 32)
    applications = keras.applications
    for name, reference in (
        ("mobilenet_0.25", applications.mobilenet),
        ("mobilenet_v2_0.35", applications.mobilenet_v2),
        ("densenet121", applications.densenet),
    ):
        recipe = recipe_of(backbone={"name": name, "weights": "none"})
        expected = reference.preprocess_input(images.astype(np.float32))
        np.testing.assert_allclose(scaled(recipe, images), expected, atol=1e-4)
    inside = recipe_of(backbone={"name": "efficientnet_v2_b0", "weights": "none"})
    np.testing.assert_array_equal(scaled(inside, images), images.astype(np.float32))


@pytest.mark.slow
def test_efficientnet_gets_the_division_that_keras_adds_to_its_own_download(recipe_of, noise):
    """Keras: (x / 255 - mean) / sqrt(variance), then, only with weights="imagenet", / sqrt(standard deviation)."""
    images, mean, std = noise(2, 32, 32), np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    network = network_of(recipe_of(backbone={"name": "efficientnet_b0", "weights": "none"}))
    base = backbone_of(network)
    normalization = base.get_layer(next(layer.name for layer in base.layers if "normalization" in layer.name))
    normalization.set_weights(
        [mean.astype(np.float32), std.astype(np.float32), np.int64(0)][: len(normalization.weights)]
    )
    normalization.finalize_state()
    front = keras.Model(base.input, normalization.output)
    got = np.asarray(front(scaled(recipe_of(backbone={"name": "efficientnet_b0", "weights": "none"}), images)))
    np.testing.assert_allclose(got, (images / 255 - mean) / np.sqrt(std) / np.sqrt(std), atol=1e-4)


@pytest.mark.parametrize(
    ("unfreeze", "expected"),
    [
        ("none", lambda name: False),
        ("all", lambda name: True),
        ({"blocks": 1}, lambda name: name.startswith("block4")),
        ({"blocks": 3}, lambda name: name[:6] in ("block2", "block3", "block4")),
        ({"blocks": 4}, lambda name: True),
        ({"layers": 2}, lambda name: name == "block4b_bn"),
        ({"layers": 3}, lambda name: name in ("block4b_bn", "block4b_conv")),
        ({"layers": 2000}, lambda name: True),
        ({"blocks": 2, "kinds": ["conv"]}, lambda name: name[:6] in ("block3", "block4") and name.endswith("conv")),
        ({"layers": 2000, "kinds": ["dense"]}, lambda name: False),
    ],
)
def test_exactly_what_is_unfrozen_learns(recipe_of, stage_of, unfreeze, expected):
    recipe = recipe_of([stage_of(unfreeze=unfreeze)])
    network = network_of(recipe)
    apply_unfreeze(network, recipe.backbone, recipe.stages[0])
    with_weights = [layer.name for layer in backbone_of(network).layers if layer.weights]
    assert learning_layers(network) == [name for name in with_weights if expected(name)]
    assert network.get_layer("logits").trainable_variables


def test_a_later_stage_can_freeze_again(recipe_of, stage_of):
    recipe = recipe_of([stage_of(unfreeze="all"), stage_of(unfreeze={"blocks": 1}), stage_of(unfreeze="none")])
    network = network_of(recipe)
    counts = []
    for stage in recipe.stages:
        apply_unfreeze(network, recipe.backbone, stage)
        counts.append(len(network.trainable_variables))
    assert counts[0] > counts[1] > counts[2] == 2


@pytest.mark.parametrize(
    ("policy", "learns", "moves"),
    [("train", True, True), ("freeze_statistics", True, False), ("freeze", False, False)],
)
def test_batch_norm_policies(recipe_of, stage_of, noise, policy, learns, moves):
    recipe = recipe_of([stage_of()], backbone={"name": "cnn_16", "weights": "none", "batch_norm": policy})
    network = network_of(recipe)
    apply_unfreeze(network, recipe.backbone, recipe.stages[0])
    norms = [layer for layer in backbone_of(network).layers if isinstance(layer, layers.BatchNormalization)]
    before = [[np.array(value) for value in norm.get_weights()] for norm in norms]
    network.compile(optimizer=keras.optimizers.SGD(0.5), loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    network.run_eagerly = True
    network.train_on_batch(noise(8, 32, 32), np.eye(5, dtype=np.float32)[np.arange(8) % 5])
    for norm, (gamma, beta, mean, variance) in zip(norms, before, strict=True):
        now = norm.get_weights()
        assert (not np.array_equal(now[0], gamma) or not np.array_equal(now[1], beta)) == learns
        assert (not np.array_equal(now[2], mean)) == moves
        assert (not np.array_equal(now[3], variance)) == moves


def test_frozen_batch_norm_keeps_its_statistics_under_the_train_policy(recipe_of, stage_of, noise):
    recipe = recipe_of([stage_of(unfreeze="none")])
    network = network_of(recipe)
    apply_unfreeze(network, recipe.backbone, recipe.stages[0])
    before = backbone_of(network).get_weights()
    network(noise(8, 32, 32), training=True)
    for one, other in zip(before, backbone_of(network).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dropout_depends_on_seed_and_epoch_alone(recipe_of, noise):
    def answers(seed: int, epochs: list[int]) -> np.ndarray:
        keras.utils.set_random_seed(seed)
        network = network_of(recipe_of(head={"dropout": 0.5, "dense_units": [16]}))
        for epoch in epochs:
            restart_randomness(network, epoch)
            last = np.asarray(network(noise(4, 32, 32), training=True))
        return last

    np.testing.assert_array_equal(answers(1, [3]), answers(1, [3]))
    assert not np.array_equal(answers(1, [3]), answers(1, [4]))
    assert not np.array_equal(answers(1, [3]), answers(2, [3]))


def test_only_standard_layers_are_used(recipe_of, tmp_path):
    network = network_of(recipe_of(), shape=(40, 40))
    network.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)
    assert again.count_params() == network.count_params()
