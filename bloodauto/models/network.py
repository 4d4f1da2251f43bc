"""The network of a recipe: uint8 images in, logits out; normalisation, filters and resizing are inside."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Recipe, Stage
from bloodauto.models.backbone_networks import build_backbone, load_weights
from bloodauto.models.backbone_table import PixelScaling
from bloodauto.models.backbones import block_of_layers, built_size_px, num_blocks, pixel_scaling
from bloodauto.models.heads import build_head
from bloodauto.models.input_filters import apply_filters
from bloodauto.models.step_settings import AdjustableDropout
from bloodauto.run.artifacts import NetworkWeights

#: ImageNet's mean and standard deviation per channel, of pixels in 0..1, as keras.applications' "torch" mode uses them.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
#: Of pixels in 0-255, blue first, as keras.applications' "caffe" mode subtracts it.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)

_KINDS: dict[str, tuple[type, ...]] = {
    "conv": (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D),
    "dense": (layers.Dense,),
}


def _scaled_pixels(how: PixelScaling, images: Any) -> Any:
    """Scales pixels of 0-255 to what the backbone was pre-trained on."""
    scale: Any = 1.0
    offset: Any = 0.0
    if how == "signed":
        scale, offset = 1 / 127.5, -1.0
    elif how == "imagenet_statistics":
        scale = [1 / (255 * std) for std in _IMAGENET_STD]
        offset = [-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)]
    elif how == "in_network_except_sqrt_std":
        # The network computes (x / 255 - mean) / a for some a; with this input it is (x / 255 - mean) / (a * root).
        roots = [math.sqrt(std) for std in _IMAGENET_STD]
        scale = [1 / root for root in roots]
        offset = [255 * mean * (1 - 1 / root) for mean, root in zip(_IMAGENET_MEAN, roots, strict=True)]
    elif how == "caffe":
        images = ops.flip(images, axis=-1)
        offset = [-level for level in _CAFFE_MEAN_BGR]
    return layers.Rescaling(scale, offset=offset, name="scale")(images)


class _FrozenStatisticsNormalization(layers.BatchNormalization):
    """Batch normalisation that always uses its stored statistics, while scale and shift are trained.

    Calling a plain layer with ``training=False`` inside a model has no effect: ``fit`` calls the model with ``training=True``,
    and Keras passes that on to every layer.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(inputs, training=False, mask=mask)


def _with_frozen_statistics(backbone: keras.Model) -> keras.Model:
    if not any(isinstance(layer, layers.BatchNormalization) for layer in backbone.layers):
        return backbone

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = _FrozenStatisticsNormalization if isinstance(layer, layers.BatchNormalization) else type(layer)
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
    for_training: bool = True,
) -> keras.Model:
    """Builds the network of a recipe.

    Args:
        recipe: The recipe.
        num_classes: Number of logits.
        image_shape_px: Height and width of the images.
        weights_file: Pre-trained weights of the backbone; None: random weights.
        for_training: False builds it of standard layers only; only training needs others, and the weights are the same.

    Returns:
        A functional model of uint8 RGB images (batch, height, width, 3), 0-255, that returns float32 logits
        (batch, num_classes). Resizing (where ``image_shape_px`` is not the recipe's input size, or that is too small for the
        backbone), filters and normalisation are inside.

    Raises:
        WeightsError: The weights do not fit the backbone.
    """
    size = recipe.input.size_px
    backbone = build_backbone(recipe.backbone, size)
    if weights_file is not None:
        load_weights(backbone, recipe.backbone.label, weights_file)
    if for_training and recipe.backbone.batch_norm == "freeze_statistics":
        backbone = _with_frozen_statistics(backbone)

    images = layers.Input((*image_shape_px, 3), dtype="uint8", name="images")
    x = images
    if image_shape_px != (size, size):
        x = layers.Resizing(size, size, interpolation="bilinear", antialias=True, dtype="float32", name="resize")(x)
    x = apply_filters(recipe.input.filters, x)
    built = built_size_px(recipe.backbone, size)
    if built != size:
        x = layers.Resizing(built, built, interpolation="bilinear", dtype="float32", name="enlarge")(x)
    x = backbone(_scaled_pixels(pixel_scaling(recipe.backbone), x))
    logits = build_head(
        recipe.head, x, num_classes, dropout_layer=AdjustableDropout if for_training else layers.Dropout
    )
    return keras.Model(images, logits, name=f"recipe_{recipe.id}")


def trained_network(recipe: Recipe, weights: Path, *, num_classes: int, image_shape_px: tuple[int, int]) -> keras.Model:
    """The network of a recipe with the weights that a training kept, of standard layers only.

    Args:
        recipe: The recipe that was trained.
        weights: The training's ``best.npz``.
        num_classes: Number of logits.
        image_shape_px: Height and width of the images.

    Raises:
        RunError: The weights cannot be read.
    """
    network = build_network(
        recipe, num_classes=num_classes, image_shape_px=image_shape_px, weights_file=None, for_training=False
    )
    network.set_weights(NetworkWeights.read(weights).weights)
    return network


def backbone_of(network: keras.Model) -> keras.Model:
    """The backbone inside a network that ``build_network`` made."""
    return next(layer for layer in network.layers if isinstance(layer, keras.Model))


def flat_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layer itself, or the layers inside it where it is a model, as ConvNeXt's downsampling is."""
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from flat_layers(inner)
    else:
        yield layer


def apply_unfreeze(network: keras.Model, backbone: Backbone, stage: Stage) -> None:
    """Sets which layers of a network are trained in a stage. Compile afterwards.

    Args:
        network: Made by ``build_network``; its head is always trained.
        backbone: Its backbone.
        stage: Says what is unfrozen.
    """
    base = backbone_of(network)
    # The whole backbone first: a layer inside a frozen model is not trained, whatever its own flag says.
    base.trainable = True
    blocks = block_of_layers(backbone, [layer.name for layer in base.layers])
    unfreeze = stage.unfreeze
    first_block, first_layer = 0, 0
    selected: tuple[type, ...] = (layers.Layer,)
    if unfreeze == "none":
        first_layer = len(base.layers)
    elif isinstance(unfreeze, LastBlocks):
        first_block = num_blocks(backbone) - unfreeze.blocks
    elif isinstance(unfreeze, LastLayers):
        first_layer = len(base.layers) - unfreeze.layers
    if isinstance(unfreeze, LastBlocks | LastLayers) and unfreeze.kinds:
        selected = tuple(kind for name in unfreeze.kinds for kind in _KINDS[name])
    for index, (layer, block) in enumerate(zip(base.layers, blocks, strict=True)):
        reached = block >= first_block and index >= first_layer
        for inner in flat_layers(layer):
            frozen_norm = backbone.batch_norm == "freeze" and isinstance(inner, layers.BatchNormalization)
            inner.trainable = reached and isinstance(inner, selected) and not frozen_norm
