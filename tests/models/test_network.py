from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.export.ensemble_model import ExportedMember, build_ensemble_model
from bloodauto.models.initial_weights import reseed_dropout
from bloodauto.models.network import apply_unfreeze, backbone_of, build_network


def network_of(recipe, shape=(32, 32), *, for_training=True):
    return build_network(recipe, num_classes=5, image_shape_px=shape, weights_file=None, for_training=for_training)


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


def test_scaling_is_the_one_the_weights_were_trained_with(recipe_of, noise, monkeypatch):
    # What comes after the scaling does not matter here, and takes seconds to build.
    rest = keras.Sequential([layers.Input((None, None, 3)), layers.Conv2D(1, 1)], name="rest")
    monkeypatch.setattr("bloodauto.models.network.build_backbone", lambda backbone, size_px: rest)
    images = noise(2, 32, 32)
    applications = keras.applications
    for name, reference in (
        ("mobilenet_0.25", applications.mobilenet),
        ("mobilenet_v2_0.35", applications.mobilenet_v2),
        ("densenet121", applications.densenet),
        ("resnet50", applications.resnet),
        ("vgg16", applications.vgg16),
        ("nasnet_mobile", applications.nasnet),
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
    first_layers = keras.Model(base.input, normalization.output)
    got = np.asarray(first_layers(scaled(recipe_of(backbone={"name": "efficientnet_b0", "weights": "none"}), images)))
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
        ({"layers": 25}, lambda name: True),
        ({"blocks": 2, "kinds": ["conv"]}, lambda name: name[:6] in ("block3", "block4") and name.endswith("conv")),
        ({"layers": 25, "kinds": ["dense"]}, lambda name: False),
    ],
)
def test_exactly_what_is_unfrozen_learns(recipe_of, stage_of, unfreeze, expected):
    recipe = recipe_of([stage_of(unfreeze=unfreeze)])
    network = network_of(recipe)
    apply_unfreeze(network, recipe.backbone, recipe.stages[0])
    with_weights = [layer.name for layer in backbone_of(network).layers if layer.weights]
    assert learning_layers(network) == [name for name in with_weights if expected(name)]
    assert network.get_layer("logits").trainable_variables


def test_layers_inside_a_part_of_the_backbone_are_reached(recipe_of, stage_of):
    """ConvNeXt's downsampling is a Sequential of a normalisation and a convolution."""
    network = network_of(recipe_of(backbone={"name": "convnext_tiny", "weights": "none"}))
    for unfreeze, learning_blocks, norms_learn in (
        ({"blocks": 3, "kinds": ["conv"]}, (0, 1, 2), False),
        ({"blocks": 2, "kinds": ["conv"]}, (1, 2), False),
        ({"blocks": 2}, (1, 2), True),
        ("none", (), False),
    ):
        recipe = recipe_of([stage_of(unfreeze=unfreeze)], backbone={"name": "convnext_tiny", "weights": "none"})
        apply_unfreeze(network, recipe.backbone, recipe.stages[0])
        learning = {variable.path for variable in network.trainable_variables}
        for index in range(3):
            norm, convolution = backbone_of(network).get_layer(f"convnext_tiny_downsampling_block_{index}").layers
            learns = index in learning_blocks
            assert {variable.path in learning for variable in convolution.weights} == {learns}, (unfreeze, index)
            assert {variable.path in learning for variable in norm.weights} == {learns and norms_learn}


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
    recipe = recipe_of([stage_of()], backbone={"name": "own_cnn", "weights": "none", "batch_norm": policy})
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
    for value, other in zip(before, backbone_of(network).get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)


def test_dropout_depends_on_seed_and_epoch_alone(recipe_of, noise):
    def predictions(seed: int, epochs: list[int]) -> np.ndarray:
        keras.utils.set_random_seed(seed)
        network = network_of(recipe_of(head={"dropout": 0.5, "dense_units": [16]}))
        for epoch in epochs:
            reseed_dropout(network, epoch)
            last = np.asarray(network(noise(4, 32, 32), training=True))
        return last

    np.testing.assert_array_equal(predictions(1, [3]), predictions(1, [3]))
    assert not np.array_equal(predictions(1, [3]), predictions(1, [4]))
    assert not np.array_equal(predictions(1, [3]), predictions(2, [3]))


@pytest.mark.slow
def test_small_images_are_enlarged_for_a_backbone_that_cannot_take_them(recipe_of, noise):
    network = network_of(recipe_of(backbone={"name": "xception", "weights": "none"}))
    assert network.get_layer("enlarge").output.shape == (None, 71, 71, 3)
    assert network(noise(2, 32, 32), training=False).shape == (2, 5)


def saved_and_loaded(network, folder):
    network.save(folder / "network.keras")
    return keras.saving.load_model(folder / "network.keras", compile=False, safe_mode=True)


@pytest.mark.parametrize(
    ("parts", "precision"),
    [
        ({"head": {"pooling": "max", "activation": "leaky_relu", "dense_units": [6], "dense_dropout": 0.3}}, "float32"),
        ({"head": {"pooling": "gem", "activation": "swish", "normalisation": "batch", "l2": 0.01}}, "float32"),
        ({"head": {"pooling": "gem", "activation": "gelu", "normalisation": "layer"}}, "mixed_float16"),
        ({"input": {"size_px": 32, "filters": ["normalise_stain", "remove_background"]}}, "mixed_float16"),
        ({"input": {"size_px": 32, "filters": ["standardise"]}}, "float32"),
        ({"input": {"size_px": 32, "filters": ["standardise_density"]}}, "mixed_float16"),
        ({"input": {"size_px": 32, "filters": ["normalise_stain", "grey", "sobel"]}}, "float32"),
    ],
)
def test_a_saved_network_loads_without_this_project_and_predicts_the_same(recipe_of, noise, tmp_path, parts, precision):
    keras.config.set_dtype_policy(precision)
    small = {"name": "own_cnn", "weights": "none", "blocks": 2, "width": 8}
    network = network_of(recipe_of(backbone=small, **parts), shape=(40, 40), for_training=False)
    again = saved_and_loaded(network, tmp_path)
    images = noise(3, 40, 40)
    np.testing.assert_allclose(
        np.asarray(again(images, training=False)), np.asarray(network(images, training=False)), atol=1e-6
    )
    exported = build_ensemble_model([ExportedMember(network, 1.0)])
    export_again = saved_and_loaded(exported, tmp_path)
    expected = np.asarray(keras.ops.softmax(network(images, training=False)))
    np.testing.assert_allclose(
        np.asarray(export_again(images)), expected, atol=1e-4 if precision == "float32" else 2e-2
    )


@pytest.mark.slow
def test_backbones_with_layers_of_their_own_load_in_a_process_without_this_project(recipe_of, noise, tmp_path):
    """One process loads them all: its start takes longer than a network."""
    images, expected = noise(2, 32, 32), {}
    np.save(tmp_path / "images.npy", images)
    for name in ("vgg16", "convnext_tiny", "inception_resnet_v2", "mobilenet_v3_small"):
        network = network_of(recipe_of(backbone={"name": name, "weights": "none"}), for_training=False)
        build_ensemble_model([ExportedMember(network, 1.0)]).save(tmp_path / f"{name}.keras")
        expected[name] = np.asarray(keras.ops.softmax(network(images, training=False)))
    script = (
        "import keras, numpy as np, pathlib\n"
        "images = np.load('images.npy')\n"
        "for path in pathlib.Path('.').glob('*.keras'):\n"
        "    model = keras.saving.load_model(path, compile=False, safe_mode=True)\n"
        "    np.save(path.with_suffix('.npy'), np.asarray(model(images, training=False)))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    for name, probabilities in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), probabilities, atol=1e-4, err_msg=name)


def test_generalised_mean_is_between_mean_and_maximum(recipe_of, noise):
    images = noise(3, 32, 32)
    features = {}
    for pooling in ("avg", "gem", "max"):
        keras.utils.set_random_seed(1)
        network = network_of(
            recipe_of(head={"pooling": pooling, "dropout": 0.0}, input={"size_px": 64}), shape=(32, 32)
        )
        features[pooling] = np.asarray(keras.Model(network.input, network.get_layer("logits").input)(images))
    assert (features["avg"] <= features["gem"] + 1e-5).all()
    assert (features["gem"] <= features["max"] + 1e-5).all()
    assert not np.allclose(features["avg"], features["gem"])


def test_dropout_rates_of_the_head(recipe_of):
    def rates(head):
        network = network_of(recipe_of(head=head), for_training=False)
        return [layer.rate for layer in network.layers if isinstance(layer, layers.Dropout)]

    assert rates({"dropout": 0.5, "dense_units": [4, 4]}) == [0.5, 0.5, 0.5]
    assert rates({"dropout": 0.5, "dense_dropout": 0.0, "dense_units": [4, 4]}) == [0.5, 0.0, 0.0]


def test_l2_adds_the_squares_of_the_dense_kernels(recipe_of):
    network = network_of(recipe_of(head={"l2": 0.01, "dense_units": [6]}))
    kernels = [network.get_layer(name).kernel for name in ("head_0", "logits")]
    expected = 0.01 * sum(float(keras.ops.sum(keras.ops.square(kernel))) for kernel in kernels)
    assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-5)
    assert network_of(recipe_of(head={"dense_units": [6]})).losses == []


@pytest.mark.parametrize(
    "parts",
    [
        {
            "backbone": {"name": "own_cnn", "weights": "none"},
            "head": {"pooling": "gem", "dense_units": [8], "l2": 0.001},
        },
        {"backbone": {"name": "own_cnn", "weights": "none"}, "input": {"size_px": 32, "filters": ["normalise_stain"]}},
        *(
            pytest.param({"backbone": {"name": name, "weights": "none"}}, marks=pytest.mark.slow)
            for name in (
                "mobilenet_0.25",
                "mobilenet_v2_0.35",
                "mobilenet_v3_small",
                "efficientnet_b0",
                "nasnet_mobile",
            )
        ),
    ],
)
def test_one_step_of_training(recipe_of, noise, parts):
    network = network_of(recipe_of(**parts))
    # Tracing a large network for one step takes a minute; its gradients are the same without.
    network.compile(
        optimizer=keras.optimizers.SGD(0.01),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    before = network.get_weights()
    loss = network.train_on_batch(noise(8, 32, 32), np.eye(5, dtype=np.float32)[np.arange(8) % 5])
    assert np.isfinite(loss)
    after = network.get_weights()
    assert all(np.isfinite(weights).all() for weights in after)
    assert sum(not np.array_equal(value, other) for value, other in zip(before, after, strict=True)) > len(after) / 2
