from __future__ import annotations

import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest

from bloodauto.errors import RecipeError, WeightsError
from bloodauto.trial.backbones import (
    BACKBONES,
    backbone_info,
    block_of_layers,
    build_backbone,
    check_recipe,
    find_weights,
    load_weights,
    num_blocks,
)

SMALL = ["cnn_16", "cnn_32", "mobilenet_0.25", "mobilenet_v2_0.35"]
SHARED_WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "weights"


@pytest.mark.parametrize(
    "name", [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def test_the_table_is_true(name):
    network = build_backbone(name, 64)
    assert network.count_params() == backbone_info(name).parameters
    blocks = block_of_layers(name, [layer.name for layer in network.layers])
    assert sorted(set(blocks)) == list(range(num_blocks(name)))
    assert blocks == sorted(blocks), "from the image to the features"
    with_weights = {block for block, layer in zip(blocks, network.layers, strict=True) if layer.weights}
    assert with_weights == set(blocks), "a block without weights has nothing to unfreeze"
    names = [layer.name for layer in network.layers]
    for index, start in enumerate(backbone_info(name).block_starts):
        first = next(place for place, layer_name in enumerate(names) if layer_name.startswith(start))
        assert blocks[first] == index
        assert index == 0 or blocks[first - 1] == index - 1
    assert network.output_shape[1:3] == (64 // 32, 64 // 32) or name.startswith("cnn")


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'densenet121'"):
        backbone_info("densenet12")


def test_more_blocks_than_there_are(recipe_of, stage_of):
    good = recipe_of([stage_of(unfreeze={"blocks": 4})])
    check_recipe(good)
    bad = recipe_of([stage_of(), stage_of(unfreeze={"blocks": 5})])
    with pytest.raises(RecipeError, match=r"stages\.1\.unfreeze\.blocks: expected 1 to 4 for cnn_16, got 5"):
        check_recipe(bad)


def test_weights_are_looked_for_in_order(tmp_path, monkeypatch):
    name, official = "mobilenet_0.25", "mobilenet_2_5_224_tf_no_top.h5"
    given, home = tmp_path / "given", tmp_path / "home"
    places = [home / "models" / official, given / f"{name}_224_no_top.weights.h5", given / official]
    monkeypatch.setenv("KERAS_HOME", str(home))
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x")
        assert find_weights(name, "imagenet", given) == place
    assert find_weights(name, "imagenet", None) == places[0]


def test_weights_by_path_or_none(tmp_path):
    assert find_weights("densenet121", "none", None) is None
    path = tmp_path / "own.weights.h5"
    with pytest.raises(WeightsError, match=f"found no file at {path}"):
        find_weights("densenet121", str(path), None)
    path.write_bytes(b"x")
    assert find_weights("densenet121", str(path), None) == path
    with pytest.raises(WeightsError, match="cnn_16 has no ImageNet weights; write weights: none"):
        find_weights("cnn_16", "imagenet", None)


def test_weights_that_are_nowhere_name_every_place(tmp_path, monkeypatch):
    """The download goes to a port where nothing listens."""
    if (Path(keras.config.keras_home() if hasattr(keras.config, "keras_home") else Path.home() / ".keras") / "models"
        / str(backbone_info("mobilenet_0.5").weights_file)).is_file():  # fmt: skip
        pytest.skip("Keras' own cache has these weights")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(WeightsError) as caught:
        find_weights("mobilenet_0.5", "imagenet", tmp_path / "given")
    for place in (
        "given/mobilenet_5_0_224_tf_no_top.h5",
        "given/mobilenet_0.5_224_no_top",
        "home/models/mobilenet_5_0",
    ):
        assert place in str(caught.value)
    assert "--weights-dir" in str(caught.value)


def test_weights_of_a_like_network_load_and_of_another_do_not(tmp_path):
    source = build_backbone("cnn_16", 32)
    path = tmp_path / "own.weights.h5"
    source.save_weights(path)
    target = build_backbone("cnn_16", 64)
    load_weights(target, "cnn_16", path)
    for one, other in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("cnn_32", "mobilenet_0.25"):
        with pytest.raises(WeightsError, match=rf"own\.weights\.h5: expected weights of {name}"):
            load_weights(build_backbone(name, 64), name, path)


@pytest.mark.parametrize(("file", "content"), [("a.weights.h5", b"text"), ("a.h5", b""), ("a.bin", b"x")])
def test_a_file_that_is_no_weights_file(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(WeightsError, match="expected weights of cnn_16 without its top"):
        load_weights(build_backbone("cnn_16", 32), "cnn_16", tmp_path / file)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mobilenet_0.25", "mobilenet_v2_0.35"])
def test_imagenet_weights_load(name):
    if not SHARED_WEIGHTS.is_dir():
        pytest.skip("needs ../shared/weights")
    path = find_weights(name, "imagenet", SHARED_WEIGHTS)
    network = build_backbone(name, 96)
    before = network.get_weights()
    load_weights(network, name, path)
    changed = [not np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True)]
    assert all(changed)
    with pytest.raises(WeightsError):
        load_weights(build_backbone("mobilenet_0.5", 96), "mobilenet_0.5", path)
