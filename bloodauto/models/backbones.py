"""The backbones: functions that check, build, load and cut them into blocks, from the table of what is known of each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Recipe
from bloodauto.config.validation import did_you_mean
from bloodauto.errors import RecipeError, WeightsError
from bloodauto.models.backbone_table import BACKBONES, OWN_CNN, BackboneInfo, PixelScaling
from bloodauto.models.own_cnn import LAYERS_PER_BLOCK, build_own_cnn, own_cnn_parameters
from bloodauto.models.tensorflow import import_tensorflow_quietly

if TYPE_CHECKING:
    import keras

BACKBONE_NAMES = (OWN_CNN, *BACKBONES)


def backbone_info(name: str) -> BackboneInfo:
    """The table's row of a backbone of ``keras.applications``.

    Raises:
        RecipeError: no such backbone; the message names the nearest.
    """
    if name not in BACKBONES:
        raise RecipeError(
            f"backbone.name: expected a known backbone, got {name!r}; {did_you_mean(name, BACKBONE_NAMES)}"
        )
    return BACKBONES[name]


def _own_cnn_size(backbone: Backbone) -> tuple[int, int]:
    assert backbone.blocks is not None, "the grammar gives own_cnn its blocks"
    assert backbone.width is not None, "the grammar gives own_cnn its width"
    return backbone.blocks, backbone.width


def num_blocks(backbone: Backbone) -> int:
    """How many blocks the backbone has for unfreezing."""
    return _own_cnn_size(backbone)[0] if backbone.name == OWN_CNN else backbone_info(backbone.name).num_blocks


def num_layers(backbone: Backbone) -> int:
    """How many layers the backbone has for unfreezing, its input included, as ``len(model.layers)`` counts them."""
    if backbone.name == OWN_CNN:
        return 1 + LAYERS_PER_BLOCK * _own_cnn_size(backbone)[0]
    return backbone_info(backbone.name).num_layers


def num_parameters(backbone: Backbone) -> int:
    """Parameters of the backbone alone, without building it."""
    if backbone.name == OWN_CNN:
        blocks, width = _own_cnn_size(backbone)
        return own_cnn_parameters(blocks=blocks, width=width)
    return backbone_info(backbone.name).parameters


def pixel_scaling(backbone: Backbone) -> PixelScaling:
    """How 0-255 becomes what the backbone expects."""
    return "signed" if backbone.name == OWN_CNN else backbone_info(backbone.name).pixel_scaling


def built_size_px(backbone: Backbone, size_px: int) -> int:
    """The side the backbone is built for: ``size_px``, or its smallest where that is larger."""
    return size_px if backbone.name == OWN_CNN else max(size_px, backbone_info(backbone.name).smallest_px)


def check_recipe(recipe: Recipe) -> None:
    """Checks what the grammar cannot: the backbone is known, and has what the stages unfreeze. Builds nothing.

    Raises:
        RecipeError: no such backbone, or more blocks or layers than it has.
    """
    blocks, layers = num_blocks(recipe.backbone), num_layers(recipe.backbone)
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage.unfreeze, LastBlocks):
            kind, asked, available = "blocks", stage.unfreeze.blocks, blocks
        elif isinstance(stage.unfreeze, LastLayers):
            kind, asked, available = "layers", stage.unfreeze.layers, layers
        else:
            continue
        if asked > available:
            raise RecipeError(
                f"stages.{index}.unfreeze.{kind}: expected 1 to {available} for {recipe.backbone.label}, "
                f"got {asked}; write 'all' to unfreeze everything."
            )


def _keras_application(info: BackboneInfo, weights: str | None, size_px: int) -> keras.Model:
    import keras

    arguments: dict[str, Any] = {} if info.alpha is None else {"alpha": info.alpha}
    constructor = getattr(keras.applications, info.constructor)
    return constructor(include_top=False, weights=weights, input_shape=(size_px, size_px, 3), **arguments)


def build_backbone(backbone: Backbone, size_px: int) -> keras.Model:
    """The backbone with random weights: float images (n, side, side, 3), scaled as ``scaling`` says -> feature maps.

    The side is ``built_size_px``, which is ``size_px`` for all but the few that cannot take small images.
    """
    if backbone.name == OWN_CNN:
        blocks, width = _own_cnn_size(backbone)
        return build_own_cnn(size_px, blocks=blocks, width=width)
    return _keras_application(backbone_info(backbone.name), None, built_size_px(backbone, size_px))


def block_of_layers(backbone: Backbone, layer_names: list[str]) -> list[int]:
    """For each layer, in order, the index of the block it belongs to (0 is nearest to the image)."""
    starts: tuple[str, ...] = tuple(f"block{index + 1}a_" for index in range(num_blocks(backbone)))
    ends: tuple[str, ...] = ()
    if backbone.name != OWN_CNN:
        starts, ends = backbone_info(backbone.name).block_starts, backbone_info(backbone.name).block_ends
    block, result = 0, []
    for layer_name in layer_names:
        for index in range(block + 1, len(starts)):
            if layer_name.startswith(starts[index]):
                block = index
        result.append(block)
        if block < len(ends) and layer_name == ends[block]:
            block += 1
    return result


def _keras_models_folder() -> Path:
    return Path(os.environ.get("KERAS_HOME", str(Path.home() / ".keras"))) / "models"


def find_weights(name: str, weights: str, weights_dir: Path | None) -> Path | None:
    """The file with the pre-trained weights, or None for random ones.

    ``imagenet`` is looked for in ``weights_dir`` (official name, then ``<name>_224_no_top.weights.h5``), then in Keras' own
    cache, then downloaded by Keras into that cache. Anything but ``imagenet`` and ``none`` is a path.

    Raises:
        WeightsError: not found and not to be had; the message says where it was looked for.
    """
    if weights == "none":
        return None
    if weights != "imagenet":
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"backbone.weights: expected imagenet, none or a weights file, found no file at {path}.")
        return path
    if name == OWN_CNN:
        raise WeightsError(f"backbone.weights: {name} has no ImageNet weights; write weights: none.")
    info = backbone_info(name)
    places = [_keras_models_folder() / info.weights_file]
    if weights_dir is not None:
        places = [weights_dir / info.weights_file, weights_dir / f"{name}_224_no_top.weights.h5", *places]
    for place in places:
        if place.is_file():
            return place
    return _download(name, info, places)


def _download(name: str, info: BackboneInfo, places: list[Path]) -> Path:
    import_tensorflow_quietly()
    try:
        _keras_application(info, "imagenet", 224)
    except Exception as error:
        looked = "\n".join(f"  {place}" for place in places)
        raise WeightsError(
            f"{name}: expected its ImageNet weights, found no file at\n{looked}\n"
            f"and they could not be downloaded ({str(error).splitlines()[0][:200]}). "
            "Put the file into a folder and pass --weights-dir, or use weights: none."
        ) from None
    return _keras_models_folder() / info.weights_file


def load_weights(backbone: keras.Model, name: str, path: Path) -> None:
    """Loads a weights file into a backbone built by ``build_backbone``.

    Raises:
        WeightsError: the file is no weights file or belongs to another network.
    """
    try:
        backbone.load_weights(path)
    except Exception as error:
        raise WeightsError(
            f"{path}: expected weights of {name} without its top, could not load them ({str(error).splitlines()[0][:200]})."
        ) from None
