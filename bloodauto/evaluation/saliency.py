"""Saliency maps: how much each part of an image contributes to the score of a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from bloodauto.errors import RunError
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.types import Floats, Images, Labels, Probabilities, check_images

SaliencyMethod = Literal["grad_cam", "occlusion"]
#: Rows and columns of a feature map at least. The last one of a deep network on small images has 3 x 3 cells, which tell no
#: nucleus from its cytoplasm.
MIN_FEATURE_MAP_SIDE = 6
#: Side of the occluding square as a fraction of the image's shorter side.
OCCLUSION_FRACTION = 0.2
_GRAD_CAM_BATCH = 16
_SMALLEST_PROBABILITY = 1e-12
#: Opacity of the overlay where the map is 1.
_OVERLAY_OPACITY = 0.7
_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.Conv2DTranspose,
)


def saliency_maps(model: keras.Model, images: Images, labels: Labels, method: SaliencyMethod) -> Floats:
    """Saliency maps by a named method.

    Args:
        model: uint8 images (n, height, width, 3) -> class probabilities (n, classes).
        images: uint8 (n, height, width, 3), RGB, 0-255, n at least 1.
        labels: int (n,), the class whose score each map explains.
        method: ``grad_cam`` or ``occlusion``.

    Returns:
        float32 (n, height, width), 0 to 1.

    Raises:
        DataError: other images.
        RunError: ``grad_cam`` of a model without convolutions.
    """
    return grad_cam(model, images, labels) if method == "grad_cam" else occlusion(model, images, labels)


def grad_cam(model: keras.Model, images: Images, labels: Labels) -> Floats:
    """Gradient-weighted class activation maps (Selvaraju et al., arXiv:1610.02391).

    A channel of a feature map weighs as much as the gradient of the class's score by that channel, averaged over positions; the
    weighted sum of channels, where it is positive, is the map. Our deviations: the feature map is the last one with at least
    ``MIN_FEATURE_MAP_SIDE`` rows and columns through which all computation passes; of an ensemble, the maps of its members are
    scaled to a maximum of 1 and averaged with equal weights, without test-time augmentation.

    Args:
        model: of ``build_ensemble_model``, whose members are nested models that return logits, or any functional model of uint8
            images (n, height, width, 3) that returns class probabilities.
        images: uint8 (n, height, width, 3), RGB, 0-255, n at least 1.
        labels: int (n,), the class whose score each map explains.

    Returns:
        float32 (n, height, width), 0 to 1, the largest value of each map being 1; all 0 where nothing speaks for the class.

    Raises:
        DataError: other images.
        RunError: no member has a feature map of convolutions that all its computation passes through.

    Example:
        >>> images = keras.Input((12, 12, 3), dtype="uint8")
        >>> features = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(images))
        >>> outputs = keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(features))
        >>> grad_cam(keras.Model(images, outputs), np.zeros((2, 12, 12, 3), np.uint8), np.array([0, 1])).shape
        (2, 12, 12)
    """
    check_images(images, "Grad-CAM")
    parts = [_split(network) for network in _networks(model)]
    total = np.zeros(images.shape[:3], np.float32)
    for part in parts:
        for start in range(0, len(images), _GRAD_CAM_BATCH):
            rows = slice(start, start + _GRAD_CAM_BATCH)
            total[rows] += _scaled(_class_activation(part, images[rows], labels[rows]))
    return _scaled(total / len(parts))


def occlusion(model: keras.Model, images: Images, labels: Labels) -> Floats:
    """How much less likely a class becomes where a square is covered (Zeiler and Fergus, arXiv:1311.2901).

    The square has ``OCCLUSION_FRACTION`` of the image's shorter side and moves by half of its own. A pixel's value is the mean
    fall over all squares that cover it. Our deviations: the fall is that of the log-odds, since a probability near 1 hardly
    moves; the square has the mean colour of its image instead of grey, which would be the strangest part of a bright smear;
    rises count as 0. It takes about 100 predictions for each image.

    Args:
        model: any model of uint8 images (n, height, width, 3) that returns class probabilities (n, classes).
        images: uint8 (n, height, width, 3), RGB, 0-255, n at least 1.
        labels: int (n,), the class whose log-odds each map explains.

    Returns:
        float32 (n, height, width), 0 to 1, the largest value of each map being 1; all 0 where no square lowers the log-odds.

    Raises:
        DataError: other images.

    Example:
        >>> images = keras.Input((12, 12, 3), dtype="uint8")
        >>> outputs = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(0.1)(images)))
        >>> occlusion(keras.Model(images, outputs), np.zeros((2, 12, 12, 3), np.uint8), np.array([0, 1])).shape
        (2, 12, 12)
    """
    check_images(images, "occlusion")
    height, width = images.shape[1:3]
    side = max(round(OCCLUSION_FRACTION * min(height, width)), 1)
    corners = [(top, left) for top in _starts(height, side) for left in _starts(width, side)]
    maps = np.zeros(images.shape[:3], np.float32)
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        covered = np.repeat(image[None], len(corners) + 1, axis=0)
        mean_colour = image.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
        # The first stays as it is.
        for changed, (top, left) in zip(covered[1:], corners, strict=True):
            changed[top : top + side, left : left + side] = mean_colour
        log_odds = _log_odds(predict_outputs(model, covered)[0], label)
        times_covered = np.zeros((height, width), np.float32)
        for fall, (top, left) in zip(log_odds[0] - log_odds[1:], corners, strict=True):
            maps[index, top : top + side, left : left + side] += fall
            times_covered[top : top + side, left : left + side] += 1
        maps[index] /= times_covered
    return _scaled(np.maximum(maps, 0))


def overlay(images: Images, maps: Floats) -> Images:
    """Images with their saliency maps on them: yellow where a map is 1, the image as it is where it is 0.

    Args:
        images: uint8 (n, height, width, 3), RGB, 0-255.
        maps: float (n, height, width), 0 to 1.

    Returns:
        uint8 (n, height, width, 3), RGB. The colours (viridis) differ in lightness, so that they can be told apart without hue.
    """
    coloured = np.empty_like(images)
    for target, saliency in zip(coloured, maps, strict=True):
        target[:] = cv2.applyColorMap(np.rint(255 * saliency).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    opacity = _OVERLAY_OPACITY * maps[..., None]
    return np.asarray(np.rint((1 - opacity) * images + opacity * coloured), dtype=np.uint8)


def _log_odds(probabilities: Probabilities, label: int) -> Floats:
    """Of one class, float (n,); exact where its probability rounds to 1."""
    others = np.delete(probabilities, label, axis=1).sum(axis=1)
    return np.asarray(
        np.log(np.maximum(probabilities[:, label], _SMALLEST_PROBABILITY))
        - np.log(np.maximum(others, _SMALLEST_PROBABILITY))
    )


def _starts(length: int, side: int) -> list[int]:
    """Where squares begin so that every pixel is covered."""
    step = max(side // 2, 1)
    return sorted({*range(0, length - side, step), length - side})


def _scaled(maps: Floats) -> Floats:
    """Each map divided by its maximum; a map of zeros stays."""
    largest = maps.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0), dtype=np.float32)


@dataclass(frozen=True)
class _SplitNetwork:
    """A network in two parts, with the feature map between them.

    Attributes:
        to_features: images -> feature map (n, rows, columns, channels).
        to_scores: feature map -> scores (n, classes).
    """

    to_features: keras.Model
    to_scores: Callable[[Any], Any]


def _class_activation(network: _SplitNetwork, images: Images, labels: Labels) -> Floats:
    features = network.to_features(images, training=False)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(features)
        scores = network.to_scores(features)
        score = tf.reduce_sum(tf.gather(scores, labels.astype(np.int64), axis=1, batch_dims=1))
    gradient = tape.gradient(score, features)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    maps = np.asarray(tf.nn.relu(tf.reduce_sum(tf.cast(weights * features, tf.float32), axis=-1)).numpy())
    height, width = images.shape[1:3]
    return np.stack([cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR) for saliency in maps])


def _networks(model: keras.Model) -> list[keras.Model]:
    """The members of an ensemble: nested models that classify images; the model itself where there are none."""
    members = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.Model) and _is_classifier(layer, int(model.output_shape[-1]))
    ]
    return members if members else [model]


def _is_classifier(network: keras.Model, num_classes: int) -> bool:
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        return False
    takes_images = len(network.inputs[0].shape) == 4 and network.inputs[0].shape[-1] == 3
    return takes_images and tuple(network.outputs[0].shape[1:]) == (num_classes,)


def _split(network: keras.Model) -> _SplitNetwork:
    """Splits a network at its last feature map that is large enough, else at its last one.

    Raises:
        RunError: there is none.
    """
    candidates = list(_feature_maps(network))
    is_large = [min(tensor.shape[1:3]) >= MIN_FEATURE_MAP_SIDE for _, tensor in candidates]
    # The last large one first; then smaller ones from the end.
    order = sorted(range(len(candidates)), key=lambda index: (not is_large[index], -index))
    for index in order:
        backbone, tensor = candidates[index]
        split = _split_at(network, tensor) if backbone is None else _split_inside(network, backbone, tensor)
        if split is not None:
            return split
    raise RunError(
        f"Grad-CAM of {network.name}: expected a feature map of convolutions that all computation passes through, found none. "
        "Take the method occlusion, which works for any model."
    )


def _feature_maps(network: keras.Model) -> Iterator[tuple[keras.Model | None, Any]]:
    """(nested model that it is inside of, or None; feature map) in the order of computation, from the first convolution on."""
    has_convolution = False
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            inside = [(layer, tensor) for nested, tensor in _feature_maps(layer) if nested is None]
            has_convolution |= bool(inside)
            yield from inside
            continue
        has_convolution |= isinstance(layer, _CONVOLUTIONS)
        # The padded rows and columns of a map belong to no part of the image.
        if has_convolution and not isinstance(layer, layers.ZeroPadding2D) and _is_map(layer.output):
            yield None, layer.output


def _is_map(output: Any) -> bool:
    return not isinstance(output, list) and len(output.shape) == 4 and None not in output.shape[1:3]


def _split_at(network: keras.Model, tensor: Any) -> _SplitNetwork | None:
    """The network in two parts; None where some computation goes around the tensor."""
    try:
        to_scores = keras.Model(tensor, network.outputs[0])
    except ValueError:
        return None
    return _SplitNetwork(keras.Model(network.inputs[0], tensor), _score_function(network, to_scores))


def _split_inside(network: keras.Model, backbone: keras.Model, tensor: Any) -> _SplitNetwork | None:
    """As ``_split_at``, at a feature map inside a nested model."""
    if len(backbone.outputs) != 1:
        return None
    try:
        last_part = keras.Model(tensor, backbone.outputs[0])
    except ValueError:
        return None
    first_part = keras.Model(backbone.inputs[0], tensor)
    between: list[Any] = []

    def call(layer: keras.layers.Layer, *arguments: Any, **keywords: Any) -> Any:
        if layer is not backbone:
            return layer(*arguments, **keywords)
        between.append(first_part(arguments[0]))
        return last_part(between[-1])

    # The layers are shared, not copied: only the graph is new.
    opened = keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)
    return _split_at(opened, between[0]) if len(between) == 1 else None


def _score_function(network: keras.Model, to_scores: keras.Model) -> Callable[[Any], Any]:
    """Scores before softmax: logits as they are, logarithms of probabilities."""
    if network.layers[-1].name == "logits":
        return lambda features: to_scores(features, training=False)
    return lambda features: tf.math.log(tf.maximum(to_scores(features, training=False), _SMALLEST_PROBABILITY))
