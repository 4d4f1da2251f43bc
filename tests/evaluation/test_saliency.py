"""Saliency maps depend on the network, follow the cell, and work for every kind of exported model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.errors import DataError, RunError
from bloodauto.evaluation import saliency
from bloodauto.evaluation.metrics import rank_correlation
from bloodauto.evaluation.saliency import SaliencyMethod, grad_cam, occlusion, overlay, saliency_maps
from bloodauto.export.ensemble_model import ExportedMember, build_ensemble_model
from bloodauto.types import Floats, Images, Labels

SIZE_PX = 32
METHODS: tuple[SaliencyMethod, ...] = ("grad_cam", "occlusion")
_COLOURS = ((110, 60, 150), (150, 90, 60))


def draw_cells(centres: list[tuple[int, int]], labels: Labels, seed: int = 0) -> Images:
    """A disc of the class's colour on a bright, noisy background, its centre at (row, column)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(215, 245, (len(labels), SIZE_PX, SIZE_PX, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX]
    for image, (row, column), label in zip(images, centres, labels.tolist(), strict=True):
        inside = (rows - row) ** 2 + (columns - column) ** 2 <= 16
        image[inside] = np.array(_COLOURS[label], np.uint8) + rng.integers(0, 20, (inside.sum(), 3)).astype(np.uint8)
    return images


def network(*, random_seed: int | None = None) -> keras.Model:
    """Names the colour of the cell, wherever it lies; or the same network with random weights.

    As the search builds networks: a nested backbone, logits out.
    """
    inside = keras.Input((SIZE_PX, SIZE_PX, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="colour")(inside)
    for index in range(3):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"conv_{index}")(x)
        x = layers.MaxPooling2D(name=f"pool_{index}")(x)
    images = keras.Input((SIZE_PX, SIZE_PX, 3), dtype="uint8", name="images")
    x = keras.Model(inside, x, name="backbone")(layers.Rescaling(1 / 127.5, offset=-1.0)(images))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D(name="pool")(x))
    built = keras.Model(images, layers.Dense(2, name="logits")(x))
    rng = np.random.default_rng(random_seed)
    for variable in built.weights:
        is_kernel = len(variable.shape) > 1
        variable.assign(
            rng.normal(0, 0.5 if is_kernel else 0.1, variable.shape) if random_seed is not None else variable * 0
        )
    if random_seed is None:
        colour, *convolutions = [
            layer for layer in built.get_layer("backbone").layers if "conv" in layer.name or layer.name == "colour"
        ]
        kernel = np.zeros((3, 3, 3, 4), np.float32)
        # More blue than red, and more red than blue.
        kernel[1, 1, :, 0], kernel[1, 1, :, 1] = (-3, 0, 3), (3, 0, -3)
        colour.set_weights([kernel, np.full(4, -0.3, np.float32)])
        copy = np.zeros((3, 3, 4, 4), np.float32)
        copy[1, 1] = np.eye(4)
        for layer in convolutions:
            layer.set_weights([copy, np.zeros(4, np.float32)])
        built.get_layer("logits").set_weights(
            [np.array([[30, -30], [-30, 30], [0, 0], [0, 0]], np.float32), np.zeros(2, np.float32)]
        )
    return built


@pytest.fixture(scope="module")
def trained() -> list[keras.Model]:
    networks = [network(), network()]
    labels = np.array([0, 1] * 8)
    images = draw_cells([(5 + index, 25 - index) for index in range(16)], labels)
    assert (np.asarray(networks[0](images)).argmax(axis=1) == labels).all()
    return networks


def ensemble_of(networks: list[keras.Model]) -> keras.Model:
    return build_ensemble_model([ExportedMember(network, 1 / len(networks)) for network in networks])


def centre_of(saliency_map: Floats) -> Floats:
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX]
    weights = saliency_map**2
    return np.array([(weights * rows).sum(), (weights * columns).sum()]) / weights.sum()


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_that_is_moved_moves_its_map(trained: list[keras.Model], method: SaliencyMethod) -> None:
    model = ensemble_of(trained)
    centres = [(9, 9), (9, 22), (22, 9), (22, 22)]
    for label in (0, 1):
        labels = np.full(len(centres), label)
        maps = saliency_maps(model, draw_cells(centres, labels), labels, method)
        for centre, saliency_map in zip(centres, maps, strict=True):
            assert np.abs(centre_of(saliency_map) - centre).max() < 5, (method, label, centre)


@pytest.mark.parametrize("method", METHODS)
def test_random_weights_change_the_map(trained: list[keras.Model], method: SaliencyMethod) -> None:
    """Adebayo et al., arXiv:1810.03292: a map that does not depend on the weights explains nothing."""
    labels = np.array([0, 1] * 4)
    images = draw_cells([(8 + 2 * index, 24 - 2 * index) for index in range(8)], labels)
    random = [network(random_seed=seed) for seed in (7, 8)]
    maps = saliency_maps(ensemble_of(trained), images, labels, method)
    of_random = saliency_maps(ensemble_of(random), images, labels, method)
    correlations = []
    for first, second in zip(maps, of_random, strict=True):
        ranks = rank_correlation(first.ravel().tolist(), second.ravel().tolist())
        correlations.append(0.0 if ranks is None else ranks.spearman)
    assert np.mean(correlations) < 0.5, correlations
    np.testing.assert_array_equal(maps, saliency_maps(ensemble_of(trained), images, labels, method))


def test_the_map_is_that_of_the_class(trained: list[keras.Model]) -> None:
    """With one cell of each class in an image, each class's map lies on its own cell."""
    first, second = (draw_cells([centre], np.array([label])) for centre, label in (((16, 8), 0), ((16, 24), 1)))
    image = np.where(np.arange(SIZE_PX)[None, None, :, None] < 16, first, second)
    maps = grad_cam(ensemble_of(trained), np.concatenate([image, image]), np.array([0, 1]))
    assert centre_of(maps[0])[1] < 16 < centre_of(maps[1])[1]


def residual_network() -> keras.Model:
    """Its last large map inside the branch is passed by the shortcut; the sum is not."""
    images = keras.Input((24, 24, 3), dtype="uint8")
    x = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 255)(images))
    x = layers.Add(name="sum")([x, layers.Conv2D(4, 3, padding="same", name="branch")(x)])
    main = layers.Conv2D(8, 3, padding="same", name="before")(x)
    main = layers.Conv2D(8, 3, strides=8, padding="same")(main)
    x = layers.Add()([main, layers.Conv2D(8, 1, strides=8)(x)])
    return keras.Model(images, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))


def mobilenet() -> keras.Model:
    images = keras.Input((96, 96, 3), dtype="uint8")
    backbone = keras.applications.MobileNetV2(alpha=0.35, weights=None, include_top=False, input_shape=(96, 96, 3))
    x = layers.GlobalAveragePooling2D()(backbone(layers.Rescaling(1 / 127.5, offset=-1.0)(images)))
    return keras.Model(images, layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize(("build", "shape"), [(residual_network, (24, 24)), (mobilenet, (6, 6))])
def test_a_network_is_split_where_all_computation_passes(build, shape) -> None:
    unsplit = build()
    images = np.random.default_rng(0).integers(0, 256, (2, *unsplit.input_shape[1:]), dtype=np.uint8)
    split = saliency._split(unsplit)
    features = split.to_features(images, training=False)
    assert tuple(features.shape[1:3]) == shape
    np.testing.assert_allclose(split.to_scores(features), unsplit(images, training=False), atol=1e-5)


def test_a_model_without_convolutions_can_be_occluded_only() -> None:
    images = keras.Input((16, 16, 3), dtype="uint8")
    means = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 25)(images))
    model = keras.Model(images, layers.Softmax()(means))
    shown = np.full((1, 16, 16, 3), 100, np.uint8)
    shown[0, 2:8, 2:8, 0] = 255
    with pytest.raises(RunError, match="Take the method occlusion"):
        grad_cam(model, shown, np.array([0]))
    assert occlusion(model, shown, np.array([0]))[0].argmax() < 8 * 16


def test_maps_are_scaled_and_other_images_refused(trained: list[keras.Model]) -> None:
    model = ensemble_of(trained[:1])
    images = draw_cells([(16, 16)], np.array([1]))
    for method in METHODS:
        saliency_map = saliency_maps(model, images, np.array([1]), method)
        assert (saliency_map.dtype, saliency_map.shape) == (np.float32, (1, SIZE_PX, SIZE_PX))
        assert (saliency_map.min() >= 0, saliency_map.max()) == (True, 1.0)
        with pytest.raises(DataError, match="expected images as a uint8 array"):
            saliency_maps(model, images[..., :1], np.array([1]), method)


def test_an_overlay_keeps_the_image_where_the_map_is_zero() -> None:
    images = np.full((1, 4, 4, 3), 77, np.uint8)
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 0, 0] = 1
    shown = overlay(images, maps)
    assert (shown[0, 1:] == 77).all()
    assert shown[0, 0, 0, 1] > shown[0, 0, 0, 2] + 80, "yellow"
