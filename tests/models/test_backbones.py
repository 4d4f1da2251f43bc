from __future__ import annotations

import urllib.request
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from bloodauto.config.recipe import Backbone
from bloodauto.errors import RecipeError, WeightsError
from bloodauto.models.backbone_networks import build_backbone, find_weights, load_weights
from bloodauto.models.backbone_table import BACKBONES
from bloodauto.models.backbones import (
    backbone_info,
    block_of_layers,
    check_recipe,
    num_blocks,
    num_layers,
    num_parameters,
)
from tests.locations import SHARED

QUICK = ["mobilenet_0.25", "mobilenet_v2_0.35", "mobilenet_v3_small", "vgg16"]
SHARED_WEIGHTS = SHARED / "weights"

#: Parameters without a top as the five reports have them, some to four digits only.
REPORTED = {
    "densenet121": 7_037_504,
    "efficientnet_b0": 4_049_571,
    "efficientnet_b1": 6.58e6,
    "efficientnet_b2": 7_768_569,
    "efficientnet_b3": 10.78e6,
    "inception_resnet_v2": 54_336_736,
    "nasnet_large": 84_916_818,
    "vgg16": 14_714_688,
    "convnext_tiny": 27_820_128,
    "convnext_small": 49_454_688,
}


def own_cnn(width: int = 16, blocks: int = 4) -> Backbone:
    return Backbone(name="own_cnn", weights="none", blocks=blocks, width=width)


def named(name: str) -> Backbone:
    return Backbone(name=name, weights="none")


def check_blocks(backbone: Backbone, network: keras.Model) -> list[str]:
    """The first layer of each block."""
    blocks = block_of_layers(backbone, [layer.name for layer in network.layers])
    assert sorted(set(blocks)) == list(range(num_blocks(backbone)))
    assert blocks == sorted(blocks), "from the image to the features"
    with_weights = {block for block, layer in zip(blocks, network.layers, strict=True) if layer.weights}
    assert with_weights == set(blocks), "a block without weights has nothing to unfreeze"
    return [network.layers[blocks.index(block)].name for block in range(num_blocks(backbone))]


def test_the_table_has_what_the_reports_used():
    for name, parameters in REPORTED.items():
        digits = 0 if isinstance(parameters, int) else 1e-3
        assert num_parameters(named(name)) == pytest.approx(parameters, rel=digits)
    families = {info.constructor for info in BACKBONES.values()}
    assert families >= {"Xception", "InceptionV3", "ResNet50", "ResNet50V2", "NASNetMobile", "VGG19", "EfficientNetB4"}
    assert num_blocks(named("efficientnet_b2")) == 7


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def test_the_table_is_true(name, monkeypatch):
    """One construction shows the network, and the file of weights that Keras asks for when it is to have ImageNet's.

    Its variables get no values: for the largest networks these take most of the time.
    """
    info, backbone, weights_files = backbone_info(name), named(name), []
    constructor = getattr(keras.applications, info.constructor)
    monkeypatch.setattr(
        f"keras.applications.{info.constructor}", lambda **arguments: constructor(**arguments | {"weights": "imagenet"})
    )
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda file, *_, **__: weights_files.append(file))
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_, **__: None)
    with keras.StatelessScope(initialize_variables=False):
        network = build_backbone(backbone, 64)
    assert weights_files == [info.weights_file]
    assert network.count_params() == info.parameters
    # With ImageNet's weights Keras divides in a layer of its own, which a network that is built without them lacks.
    divides = info.pixel_scaling == "in_network_except_sqrt_std"
    assert len(network.layers) == info.num_layers + divides
    assert network.input_shape[1:3] == (max(64, info.smallest_px),) * 2
    firsts = check_blocks(backbone, network)
    names = [layer.name for layer in network.layers]
    for first, start in zip(firsts[1:], info.block_starts[1:], strict=False):
        assert first == next(layer_name for layer_name in names if layer_name.startswith(start))
    for first, end in zip(firsts[1:], info.block_ends, strict=False):
        assert names[names.index(first) - 1] == end
    keras.backend.clear_session()


@pytest.mark.parametrize(("width", "blocks", "parameters"), [(16, 4, 123_040), (32, 4, 483_136), (8, 2, None)])
def test_own_cnn_is_as_large_as_it_says(width, blocks, parameters):
    backbone = own_cnn(width, blocks)
    network = build_backbone(backbone, 40)
    assert network.count_params() == num_parameters(backbone)
    assert parameters in (None, network.count_params())
    assert len(network.layers) == num_layers(backbone)
    assert num_blocks(backbone) == blocks
    assert check_blocks(backbone, network)[1:] == [f"block{index}a_conv" for index in range(2, blocks + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, info in BACKBONES.items() if info.smallest_px > 32])
def test_the_smallest_side_is_the_smallest(name):
    smallest = backbone_info(name).smallest_px
    with keras.StatelessScope(initialize_variables=False):
        assert build_backbone(named(name), smallest).output_shape[1] >= 1
    constructor = getattr(keras.applications, backbone_info(name).constructor)
    with pytest.raises(ValueError, match="Input size must be at least"):
        constructor(include_top=False, weights=None, input_shape=(smallest - 1, smallest - 1, 3))


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'densenet121'"):
        backbone_info("densenet12")


def test_more_blocks_than_there_are(recipe_of, stage_of):
    good = recipe_of([stage_of(unfreeze={"blocks": 4})])
    check_recipe(good)
    bad = recipe_of([stage_of(), stage_of(unfreeze={"blocks": 5})])
    with pytest.raises(RecipeError, match=r"stages\.1\.unfreeze\.blocks: expected 1 to 4 for own_cnn_4x16, got 5"):
        check_recipe(bad)
    larger = {"name": "own_cnn", "weights": "none", "blocks": 5}
    check_recipe(recipe_of([stage_of(unfreeze={"blocks": 5})], backbone=larger))


def test_more_layers_than_there_are(recipe_of, stage_of):
    deep = {"name": "mobilenet_0.25", "weights": "none"}
    check_recipe(recipe_of([stage_of(unfreeze={"layers": 86})], backbone=deep))
    with pytest.raises(RecipeError, match=r"stages\.0\.unfreeze\.layers: expected 1 to 86 for mobilenet_0.25, got 87"):
        check_recipe(recipe_of([stage_of(unfreeze={"layers": 87})], backbone=deep))
    with pytest.raises(RecipeError, match=r"unfreeze\.layers: expected 1 to 25 for own_cnn_4x16, got 26"):
        check_recipe(recipe_of([stage_of(unfreeze={"layers": 26})]))


def test_weights_are_searched_in_order(tmp_path, monkeypatch):
    name, official = "mobilenet_0.25", "mobilenet_2_5_224_tf_no_top.h5"
    weights_dir, keras_home = tmp_path / "given", tmp_path / "home"
    candidates = [
        keras_home / "models" / official,
        weights_dir / f"{name}_224_no_top.weights.h5",
        weights_dir / official,
    ]
    monkeypatch.setenv("KERAS_HOME", str(keras_home))
    for candidate in candidates:
        candidate.parent.mkdir(parents=True, exist_ok=True)
        h5py.File(candidate, "w").close()
        assert find_weights(name, "imagenet", weights_dir) == candidate
    assert find_weights(name, "imagenet", None) == candidates[0]


def test_weights_by_path_or_none(tmp_path):
    assert find_weights("densenet121", "none", None) is None
    path = tmp_path / "own.weights.h5"
    with pytest.raises(WeightsError, match=f"found no file at {path}"):
        find_weights("densenet121", str(path), None)
    h5py.File(path, "w").close()
    assert find_weights("densenet121", str(path), None) == path
    with pytest.raises(WeightsError, match="own_cnn has no ImageNet weights; write weights: none"):
        find_weights("own_cnn", "imagenet", None)


def test_missing_weights_name_every_candidate(tmp_path, monkeypatch):
    """The download goes to a port where nothing listens."""
    if (Path(keras.config.keras_home() if hasattr(keras.config, "keras_home") else Path.home() / ".keras") / "models"
        / backbone_info("mobilenet_0.5").weights_file).is_file():  # fmt: skip
        pytest.skip("Keras' own cache has these weights")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(WeightsError) as caught:
        find_weights("mobilenet_0.5", "imagenet", tmp_path / "given")
    for candidate in (
        "given/mobilenet_5_0_224_tf_no_top.h5",
        "given/mobilenet_0.5_224_no_top",
        "home/models/mobilenet_5_0",
    ):
        assert candidate in str(caught.value)
    assert "--weights-dir" in str(caught.value)


def test_weights_of_a_like_network_load_and_of_another_do_not(tmp_path):
    source = build_backbone(own_cnn(), 32)
    path = tmp_path / "own.weights.h5"
    source.save_weights(path)
    target = build_backbone(own_cnn(), 64)
    load_weights(target, own_cnn().label, path)
    for value, other in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)
    for backbone in (own_cnn(width=32), named("mobilenet_0.25")):
        with pytest.raises(WeightsError, match=rf"own\.weights\.h5: expected weights of {backbone.label}"):
            load_weights(build_backbone(backbone, 64), backbone.label, path)


@pytest.mark.parametrize(("file", "content"), [("a.weights.h5", b"text"), ("a.h5", b""), ("a.bin", b"x")])
def test_a_file_that_is_no_weights_file(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(WeightsError, match="expected weights of own_cnn_4x16 without its top"):
        load_weights(build_backbone(own_cnn(), 32), own_cnn().label, tmp_path / file)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mobilenet_0.25", "mobilenet_v2_0.35"])
def test_imagenet_weights_load(name):
    if not SHARED_WEIGHTS.is_dir():
        pytest.skip("needs ../shared/weights")
    path = find_weights(name, "imagenet", SHARED_WEIGHTS)
    network = build_backbone(named(name), 96)
    before = network.get_weights()
    load_weights(network, name, path)
    changed = [not np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True)]
    assert all(changed)
    with pytest.raises(WeightsError):
        load_weights(build_backbone(named("mobilenet_0.5"), 96), "mobilenet_0.5", path)
