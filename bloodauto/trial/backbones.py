"""The backbones: one table of what is known of each, and functions that build, load and cut them into blocks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bloodauto.errors import RecipeError, WeightsError
from bloodauto.grammar_errors import nearest
from bloodauto.recipe import LastBlocks, Recipe
from bloodauto.trial.wake import wake_tensorflow

if TYPE_CHECKING:
    import keras

Scaling = Literal["inside", "inside_but_for_root", "signed", "imagenet_statistics"]


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of one backbone.

    Attributes:
        constructor: its name in ``keras.applications``; ``own_cnn`` is the one network of ours.
        arguments: further arguments of the constructor.
        scaling: how 0-255 becomes what it was trained on. ``inside``: the network does it; ``inside_but_for_root``: it does,
            but for a division by the root of ImageNet's standard deviation, a layer that Keras adds only to an
            EfficientNet that it loads the weights of itself; ``signed``: to -1..1; ``imagenet_statistics``: to 0..1,
            then by ImageNet's mean and standard deviation per channel.
        block_starts: prefixes of layer names; each begins a block at its first layer. What lies before the first is
            the first block's.
        weights_file: the official name of the ImageNet weights without the top, at 224 px where there are several.
        parameters: of the backbone alone, without a head.
    """

    constructor: str
    arguments: tuple[tuple[str, float | int], ...]
    scaling: Scaling
    block_starts: tuple[str, ...]
    weights_file: str | None
    parameters: int


_MOBILENET = ("conv1", "conv_pad_2", "conv_pad_4", "conv_pad_6", "conv_pad_12")
_MOBILENET_V2 = ("Conv1", "block_1_", "block_3_", "block_6_", "block_13_")
_RESNET = ("conv1", "conv3_block1", "conv4_block1", "conv5_block1")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"block{index}a_" for index in range(1, count + 1))


def _mobilenet(alpha: float, code: str, parameters: int) -> BackboneInfo:
    return BackboneInfo(
        "MobileNet", (("alpha", alpha),), "signed", _MOBILENET, f"mobilenet_{code}_224_tf_no_top.h5", parameters
    )


def _mobilenet_v2(alpha: float, parameters: int) -> BackboneInfo:
    file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5"
    return BackboneInfo("MobileNetV2", (("alpha", alpha),), "signed", _MOBILENET_V2, file, parameters)


def _efficientnet(size: str, parameters: int) -> BackboneInfo:
    file = f"efficientnet{size.lower()}_notop.h5"
    return BackboneInfo(f"EfficientNet{size}", (), "inside_but_for_root", _numbered(7), file, parameters)


def _convnext(size: str, parameters: int) -> BackboneInfo:
    starts = tuple(f"convnext_{size.lower()}_downsampling_block_{index}" for index in range(3))
    stem = f"convnext_{size.lower()}_stem"
    return BackboneInfo(
        f"ConvNeXt{size}", (), "inside", (stem, *starts), f"convnext_{size.lower()}_notop.h5", parameters
    )


BACKBONES: dict[str, BackboneInfo] = {
    "cnn_16": BackboneInfo("own_cnn", (("width", 16),), "signed", _numbered(4), None, 123_040),
    "cnn_32": BackboneInfo("own_cnn", (("width", 32),), "signed", _numbered(4), None, 483_136),
    "mobilenet_0.25": _mobilenet(0.25, "2_5", 218_544),
    "mobilenet_0.5": _mobilenet(0.5, "5_0", 829_536),
    "mobilenet_1.0": _mobilenet(1.0, "1_0", 3_228_864),
    "mobilenet_v2_0.35": _mobilenet_v2(0.35, 410_208),
    "mobilenet_v2_1.0": _mobilenet_v2(1.0, 2_257_984),
    "densenet121": BackboneInfo(
        "DenseNet121",
        (),
        "imagenet_statistics",
        _RESNET,
        "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        7_037_504,
    ),
    "resnet50_v2": BackboneInfo(
        "ResNet50V2", (), "signed", _RESNET, "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", 23_564_800
    ),
    "efficientnet_b0": _efficientnet("B0", 4_049_571),
    "efficientnet_b2": _efficientnet("B2", 7_768_569),
    "efficientnet_v2_b0": BackboneInfo(
        "EfficientNetV2B0", (), "inside", _numbered(6), "efficientnetv2-b0_notop.h5", 5_919_312
    ),
    "efficientnet_v2_s": BackboneInfo(
        "EfficientNetV2S", (), "inside", _numbered(6), "efficientnetv2-s_notop.h5", 20_331_360
    ),
    "convnext_tiny": _convnext("Tiny", 27_820_128),
    "convnext_small": _convnext("Small", 49_454_688),
    "convnext_base": _convnext("Base", 87_566_464),
    "convnext_large": _convnext("Large", 196_230_336),
}


def backbone_info(name: str) -> BackboneInfo:
    """The table's row.

    Raises:
        RecipeError: no such backbone; the message names the nearest.
    """
    if name not in BACKBONES:
        raise RecipeError(f"backbone.name: expected a known backbone, got {name!r}; {nearest(name, BACKBONES)}")
    return BACKBONES[name]


def num_blocks(name: str) -> int:
    """How many blocks the backbone has for unfreezing."""
    return len(backbone_info(name).block_starts)


def check_recipe(recipe: Recipe) -> None:
    """Checks what the grammar cannot: the backbone is known, and has the blocks that the stages unfreeze.

    Raises:
        RecipeError: no such backbone, or more blocks than it has.
    """
    available = num_blocks(recipe.backbone.name)
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage.unfreeze, LastBlocks) and stage.unfreeze.blocks > available:
            raise RecipeError(
                f"stages.{index}.unfreeze.blocks: expected 1 to {available} for {recipe.backbone.name}, "
                f"got {stage.unfreeze.blocks}; write 'all' to unfreeze everything."
            )


def _own_cnn(size_px: int, width: int) -> keras.Model:
    """A small residual-free network for tests and small images: four blocks of two 3x3 convolutions, halving in between."""
    from keras import layers

    inputs = layers.Input((size_px, size_px, 3))
    x = inputs
    for block in range(1, 5):
        filters = width * 2 ** (block - 1)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"block{block}a_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}a_bn")(x)
        x = layers.ReLU(name=f"block{block}a_relu")(x)
        x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=f"block{block}b_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}b_bn")(x)
        x = layers.ReLU(name=f"block{block}b_relu")(x)
    import keras

    return keras.Model(inputs, x, name=f"own_cnn_{width}")


def build_backbone(name: str, size_px: int) -> keras.Model:
    """The backbone with random weights: float images (n, size, size, 3), scaled as ``scaling`` says -> feature maps."""
    import keras

    info = backbone_info(name)
    if info.constructor == "own_cnn":
        return _own_cnn(size_px, int(dict(info.arguments)["width"]))
    constructor = getattr(keras.applications, info.constructor)
    return constructor(include_top=False, weights=None, input_shape=(size_px, size_px, 3), **dict(info.arguments))


def block_of_layers(name: str, layer_names: list[str]) -> list[int]:
    """For each layer, in order, the index of the block it belongs to (0 is nearest to the image)."""
    starts = backbone_info(name).block_starts
    block, result = 0, []
    for layer_name in layer_names:
        for index in range(block + 1, len(starts)):
            if layer_name.startswith(starts[index]):
                block = index
        result.append(block)
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
    info = backbone_info(name)
    if weights == "none":
        return None
    if weights != "imagenet":
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"backbone.weights: expected imagenet, none or a weights file, found no file at {path}.")
        return path
    if info.weights_file is None:
        raise WeightsError(f"backbone.weights: {name} has no ImageNet weights; write weights: none.")
    places = [_keras_models_folder() / info.weights_file]
    if weights_dir is not None:
        places = [weights_dir / info.weights_file, weights_dir / f"{name}_224_no_top.weights.h5", *places]
    for place in places:
        if place.is_file():
            return place
    return _download(name, info, places)


def _download(name: str, info: BackboneInfo, places: list[Path]) -> Path:
    wake_tensorflow()
    import keras

    constructor = getattr(keras.applications, info.constructor)
    try:
        constructor(include_top=False, weights="imagenet", input_shape=(224, 224, 3), **dict(info.arguments))
    except Exception as error:
        looked = "\n".join(f"  {place}" for place in places)
        raise WeightsError(
            f"{name}: expected its ImageNet weights, found no file at\n{looked}\n"
            f"and they could not be downloaded ({str(error).splitlines()[0][:200]}). "
            "Put the file into a folder and pass --weights-dir, or use weights: none."
        ) from None
    return _keras_models_folder() / str(info.weights_file)


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
