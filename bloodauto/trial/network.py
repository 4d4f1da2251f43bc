"""A recipe -> a Keras network that takes plain uint8 images and answers with logits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from bloodauto.recipe import Backbone, LastBlocks, LastLayers, Recipe, Stage
from bloodauto.trial.backbones import backbone_info, block_of_layers, build_backbone, load_weights, num_blocks
from bloodauto.trial.filters import apply_filters

#: ImageNet's mean and standard deviation per channel, of pixels in 0..1, as keras.applications' "torch" mode uses them.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

_KINDS: dict[str, tuple[type, ...]] = {
    "conv": (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D),
    "dense": (layers.Dense,),
}


def _scaled(name: str, images: Any) -> Any:
    scaling = backbone_info(name).scaling
    if scaling == "signed":
        return layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(images)
    if scaling == "imagenet_statistics":
        scale = [1 / (255 * std) for std in _IMAGENET_STD]
        offset = [-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)]
        return layers.Rescaling(scale, offset=offset, name="scale")(images)
    if scaling == "inside_but_for_root":
        # The network computes (x / 255 - mean) / a for some a; what goes in makes this (x / 255 - mean) / (a * root).
        roots = [math.sqrt(std) for std in _IMAGENET_STD]
        offset = [255 * mean * (1 - 1 / root) for mean, root in zip(_IMAGENET_MEAN, roots, strict=True)]
        return layers.Rescaling([1 / root for root in roots], offset=offset, name="scale")(images)
    return layers.Rescaling(1.0, name="scale")(images)


class _StoredStatistics(layers.BatchNormalization):
    """Batch normalisation by its stored statistics for ever, while scale and shift still learn.

    Calling a plain layer with ``training=False`` inside a model does not do: ``fit`` calls the whole model with
    ``training=True``, and Keras hands that on to every layer.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(inputs, training=False, mask=mask)


def _with_stored_statistics(backbone: keras.Model) -> keras.Model:
    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = _StoredStatistics if isinstance(layer, layers.BatchNormalization) else type(layer)
        return kind.from_config(layer.get_config())

    cloned = keras.models.clone_model(backbone, clone_function=clone)
    cloned.set_weights(backbone.get_weights())
    return cloned


def build_network(
    recipe: Recipe,
    *,
    num_classes: int,
    image_shape_px: tuple[int, int],
    weights_file: Path | None,
    to_train: bool = True,
) -> keras.Model:
    """Builds the network of a recipe, its backbone loaded from ``weights_file`` (None: random).

    Args:
        to_train: False builds it of standard layers only; only training needs others, and the weights are the same.

    Returns:
        A functional model: uint8 RGB images (n, height, width, 3), 0-255 -> float32 logits (n, num_classes). Resizing (when
        ``image_shape_px`` is not the recipe's input size) and normalisation are inside.
    """
    size = recipe.input.size_px
    backbone = build_backbone(recipe.backbone.name, size)
    if weights_file is not None:
        load_weights(backbone, recipe.backbone.name, weights_file)
    if to_train and recipe.backbone.batch_norm == "freeze_statistics":
        backbone = _with_stored_statistics(backbone)

    images = layers.Input((*image_shape_px, 3), dtype="uint8", name="images")
    x = images
    if image_shape_px != (size, size):
        x = layers.Resizing(size, size, interpolation="bilinear", antialias=True, dtype="float32", name="resize")(x)
    x = apply_filters(recipe.input.filters, x)
    x = _scaled(recipe.backbone.name, x)
    x = backbone(x)
    pool = layers.GlobalAveragePooling2D if recipe.head.pooling == "avg" else layers.GlobalMaxPooling2D
    x = pool(name="pool")(x)
    x = layers.Dropout(recipe.head.dropout, name="dropout")(x)
    for index, units in enumerate(recipe.head.dense_units):
        x = layers.Dense(units, activation=recipe.head.activation, name=f"head_{index}")(x)
        x = layers.Dropout(recipe.head.dropout, name=f"head_{index}_dropout")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=f"recipe_{recipe.id}")


def backbone_of(network: keras.Model) -> keras.Model:
    """The backbone inside a network made by ``build_network``."""
    return next(layer for layer in network.layers if isinstance(layer, keras.Model))


def restart_randomness(network: keras.Model, epoch: int) -> None:
    """Makes dropout depend on the seed and the epoch alone, so that a training that is resumed drops what it would have."""
    for variable in network.variables:
        if variable.name == "seed_generator_state":
            # The first number tells the layers apart; the second counts calls, far fewer than this in one epoch.
            key, _ = np.asarray(variable)
            variable.assign(np.array([key, epoch * 2**20], dtype=variable.dtype))


def apply_unfreeze(network: keras.Model, backbone: Backbone, stage: Stage) -> None:
    """Sets which layers of the network learn in this stage. The head always does; compile afterwards."""
    base = backbone_of(network)
    base.trainable = True
    blocks = block_of_layers(backbone.name, [layer.name for layer in base.layers])
    unfreeze = stage.unfreeze
    for index, (layer, block) in enumerate(zip(base.layers, blocks, strict=True)):
        if unfreeze == "none":
            learns = False
        elif unfreeze == "all":
            learns = True
        elif isinstance(unfreeze, LastBlocks):
            learns = block >= num_blocks(backbone.name) - unfreeze.blocks
        else:
            assert isinstance(unfreeze, LastLayers)
            learns = index >= len(base.layers) - unfreeze.layers
        if isinstance(unfreeze, LastBlocks | LastLayers) and unfreeze.kinds:
            wanted = tuple(kind for name in unfreeze.kinds for kind in _KINDS[name])
            learns = learns and isinstance(layer, wanted)
        if backbone.batch_norm == "freeze" and isinstance(layer, layers.BatchNormalization):
            learns = False
        layer.trainable = learns
