"""Keras networks of the backbones: built, with their ImageNet weights found, downloaded and loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
from keras import layers

from bloodauto.config.recipe import Backbone
from bloodauto.errors import WeightsError
from bloodauto.models.backbone_table import OWN_CNN, BackboneInfo
from bloodauto.models.backbones import backbone_info, built_size_px, own_cnn_size
from bloodauto.models.weights_file import check_weights_file

_LARGEST_REASON = 200


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
        blocks, width = own_cnn_size(backbone)
        return build_own_cnn(size_px, blocks=blocks, width=width)
    return _keras_application(backbone_info(backbone.name), None, built_size_px(backbone, size_px))


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


def _keras_application(info: BackboneInfo, weights: str | None, size_px: int) -> keras.Model:
    arguments: dict[str, Any] = {} if info.alpha is None else {"alpha": info.alpha}
    constructor = getattr(keras.applications, info.constructor)
    return constructor(include_top=False, weights=weights, input_shape=(size_px, size_px, 3), **arguments)


def find_weights(name: str, weights: str, weights_dir: Path | None) -> Path | None:
    """The file of the pre-trained weights.

    ``imagenet`` is searched in ``weights_dir`` (official name, then ``<name>_224_no_top.weights.h5``), then in Keras' own
    cache, and otherwise downloaded by Keras into that cache.

    Args:
        name: Of the backbone.
        weights: ``imagenet``, ``none``, or a path.
        weights_dir: Folder that is searched first; None: none.

    Returns:
        The file; None for random weights.

    Raises:
        WeightsError: Neither found nor downloaded, with a list of where it was searched; or a file that is damaged.
    """
    if weights == "none":
        return None
    if weights != "imagenet":
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"backbone.weights: expected imagenet, none or a weights file, found no file at {path}.")
        return check_weights_file(path)
    if name == OWN_CNN:
        raise WeightsError(f"backbone.weights: {name} has no ImageNet weights; write weights: none.")
    candidates = imagenet_weights_paths(name, weights_dir)
    for candidate in candidates:
        if candidate.is_file():
            return check_weights_file(candidate)
    return _download(name, backbone_info(name), candidates)


def imagenet_weights_paths(name: str, weights_dir: Path | None) -> list[Path]:
    """Where ImageNet weights are looked for, in order.

    Args:
        name: Of the backbone.
        weights_dir: Folder that is searched first; None: none.
    """
    info = backbone_info(name)
    paths = [_keras_models_folder() / info.weights_file]
    if weights_dir is not None:
        paths = [weights_dir / info.weights_file, weights_dir / f"{name}_224_no_top.weights.h5", *paths]
    return paths


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
            f"{path}: expected weights of {name} without its top, could not load them "
            f"({str(error).splitlines()[0][:_LARGEST_REASON]})."
        ) from error


def _download(name: str, info: BackboneInfo, candidates: list[Path]) -> Path:
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


def _keras_models_folder() -> Path:
    return Path(os.environ.get("KERAS_HOME", str(Path.home() / ".keras"))) / "models"
