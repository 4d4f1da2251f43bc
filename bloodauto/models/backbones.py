"""Backbones: checked, built, loaded and divided into blocks, by the table of backbones; and the small CNN of our own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Recipe
from bloodauto.config.validation import did_you_mean
from bloodauto.errors import RecipeError, WeightsError
from bloodauto.models.backbone_table import BACKBONES, OWN_CNN, BackboneInfo, PixelScaling
from bloodauto.models.tensorflow import import_tensorflow_quietly

if TYPE_CHECKING:
    import keras

BACKBONE_NAMES = (OWN_CNN, *BACKBONES)
#: Of ``own_cnn``: convolution, batch normalisation and activation, twice.
_LAYERS_PER_BLOCK = 6
_LARGEST_REASON = 200


def backbone_info(name: str) -> BackboneInfo:
    """The table's row of a backbone of ``keras.applications``.

    Args:
        name: As a recipe has it.

    Raises:
        RecipeError: No such backbone; the message names the nearest.
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
    """How many blocks a backbone has for unfreezing."""
    return _own_cnn_size(backbone)[0] if backbone.name == OWN_CNN else backbone_info(backbone.name).num_blocks


def num_layers(backbone: Backbone) -> int:
    """How many layers a backbone has for unfreezing, its input included, as ``len(model.layers)`` counts them."""
    if backbone.name == OWN_CNN:
        return 1 + _LAYERS_PER_BLOCK * _own_cnn_size(backbone)[0]
    return backbone_info(backbone.name).num_layers


def num_parameters(backbone: Backbone) -> int:
    """Parameters of a backbone without a head, without building it."""
    if backbone.name == OWN_CNN:
        blocks, width = _own_cnn_size(backbone)
        return own_cnn_parameters(blocks=blocks, width=width)
    return backbone_info(backbone.name).parameters


def pixel_scaling(backbone: Backbone) -> PixelScaling:
    """How pixels of 0-255 are scaled to what a backbone expects."""
    return "signed" if backbone.name == OWN_CNN else backbone_info(backbone.name).pixel_scaling


def built_size_px(backbone: Backbone, size_px: int) -> int:
    """The side a backbone is built for: ``size_px``, or its smallest side where that is larger."""
    return size_px if backbone.name == OWN_CNN else max(size_px, backbone_info(backbone.name).smallest_px)


def check_recipe(recipe: Recipe) -> None:
    """Checks a recipe against the table of backbones, which the grammar does not know. Builds nothing.

    Args:
        recipe: The recipe.

    Raises:
        RecipeError: No such backbone, or a stage unfreezes more blocks or layers than it has.
    """
    blocks, layers = num_blocks(recipe.backbone), num_layers(recipe.backbone)
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage.unfreeze, LastBlocks):
            kind, requested, available = "blocks", stage.unfreeze.blocks, blocks
        elif isinstance(stage.unfreeze, LastLayers):
            kind, requested, available = "layers", stage.unfreeze.layers, layers
        else:
            continue
        if requested > available:
            raise RecipeError(
                f"stages.{index}.unfreeze.{kind}: expected 1 to {available} for {recipe.backbone.label}, "
                f"got {requested}; write 'all' to unfreeze everything."
            )


def _keras_application(info: BackboneInfo, weights: str | None, size_px: int) -> keras.Model:
    import keras

    arguments: dict[str, Any] = {} if info.alpha is None else {"alpha": info.alpha}
    constructor = getattr(keras.applications, info.constructor)
    return constructor(include_top=False, weights=weights, input_shape=(size_px, size_px, 3), **arguments)


def build_backbone(backbone: Backbone, size_px: int) -> keras.Model:
    """A backbone with random weights.

    Args:
        backbone: As a recipe has it.
        size_px: Side of the images; the model's side is ``built_size_px``, which is larger for the few backbones that cannot
            take small images.

    Returns:
        A model of float images (batch, side, side, 3), scaled as ``pixel_scaling`` says, that returns feature maps.
    """
    if backbone.name == OWN_CNN:
        blocks, width = _own_cnn_size(backbone)
        return build_own_cnn(size_px, blocks=blocks, width=width)
    return _keras_application(backbone_info(backbone.name), None, built_size_px(backbone, size_px))


def block_of_layers(backbone: Backbone, layer_names: list[str]) -> list[int]:
    """The block of each layer.

    Args:
        backbone: As a recipe has it.
        layer_names: The layers of the built backbone, in their order.

    Returns:
        Indices, one per layer; block 0 is nearest to the image.
    """
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
    """The file of the pre-trained weights.

    ``imagenet`` is searched in ``weights_dir`` (official name, then ``<name>_224_no_top.weights.h5``), then in Keras' own cache,
    and otherwise downloaded by Keras into that cache.

    Args:
        name: Of the backbone.
        weights: ``imagenet``, ``none``, or a path.
        weights_dir: Folder that is searched first; None: none.

    Returns:
        The file; None for random weights.

    Raises:
        WeightsError: Neither found nor downloaded; the message lists where it was searched.
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
    candidates = [_keras_models_folder() / info.weights_file]
    if weights_dir is not None:
        candidates = [weights_dir / info.weights_file, weights_dir / f"{name}_224_no_top.weights.h5", *candidates]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    return _download(name, info, candidates)


def _download(name: str, info: BackboneInfo, candidates: list[Path]) -> Path:
    import_tensorflow_quietly()
    try:
        _keras_application(info, "imagenet", 224)
    except Exception as error:
        searched = "\n".join(f"  {candidate}" for candidate in candidates)
        raise WeightsError(
            f"{name}: expected its ImageNet weights, found no file at\n{searched}\n"
            f"and they could not be downloaded ({str(error).splitlines()[0][:_LARGEST_REASON]}). "
            "Put the file into a folder and pass --weights-dir, or use weights: none."
        ) from error
    return _keras_models_folder() / info.weights_file


def load_weights(backbone: keras.Model, name: str, path: Path) -> None:
    """Loads a weights file into a backbone.

    Args:
        backbone: Built by ``build_backbone``.
        name: Of the backbone, for messages.
        path: The file.

    Raises:
        WeightsError: The file is no weights file, or belongs to another network.
    """
    try:
        backbone.load_weights(path)
    except Exception as error:
        raise WeightsError(
            f"{path}: expected weights of {name} without its top, could not load them ({str(error).splitlines()[0][:_LARGEST_REASON]})."
        ) from error


def build_own_cnn(size_px: int, *, blocks: int, width: int) -> keras.Model:
    """A small CNN without residual connections, for tests, small images and published systems that trained their own.

    Each block is a 3 x 3 convolution with stride 2 and a separable convolution, both with batch normalisation and ReLU.

    Args:
        size_px: Side of the images.
        blocks: How many blocks.
        width: Filters of the first block, doubled from block to block.

    Returns:
        A model of float images (batch, size_px, size_px, 3) that returns feature maps.
    """
    import keras
    from keras import layers

    inputs = layers.Input((size_px, size_px, 3))
    x = inputs
    for block in range(1, blocks + 1):
        filters = width * 2 ** (block - 1)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"block{block}a_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}a_bn")(x)
        x = layers.ReLU(name=f"block{block}a_relu")(x)
        x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=f"block{block}b_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}b_bn")(x)
        x = layers.ReLU(name=f"block{block}b_relu")(x)
    return keras.Model(inputs, x, name=f"own_cnn_{blocks}x{width}")


def own_cnn_parameters(*, blocks: int, width: int) -> int:
    """Parameters of ``build_own_cnn``, without building it.

    Args:
        blocks: How many blocks.
        width: Filters of the first block.
    """
    total, channels = 0, 3
    for block in range(blocks):
        filters = width * 2**block
        # Convolution, depthwise and pointwise part of the separable one, and four numbers for each normalised channel.
        total += 9 * channels * filters + 9 * filters + filters**2 + 2 * 4 * filters
        channels = filters
    return total
