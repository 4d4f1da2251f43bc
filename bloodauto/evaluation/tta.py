"""Test-time augmentation (TTA): the transforms, and networks that average their predictions over some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bloodauto.config.recipe import TransformName
from bloodauto.evaluation.calibration import PROBABILITY_FLOOR
from bloodauto.types import Images

_ROTATION_DEGREES = 10.0
_BRIGHTNESS = 0.1
_ZOOM = 0.15
#: Images that are zoomed at a time.
_ZOOM_BATCH = 64
#: Transforms that exchange height and width.
SQUARE_ONLY_TRANSFORMS = frozenset({"turn_90", "turn_270", "transpose"})

#: A Keras tensor; Keras has no type for the tensors of all its backends.
Tensor = Any


def _rotation(degrees: float) -> Callable[[Tensor], Tensor]:
    def transform(images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        x, y = (width - 1) / 2, (height - 1) / 2
        # From a position in the output to the position in the input that it shows.
        matrix = [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y, 0.0, 0.0]
        rotated = ops.image.affine_transform(
            images,
            np.array(matrix, dtype=np.float32),
            interpolation="bilinear",
            fill_mode="reflect",
        )
        return _to_grey_levels(rotated)

    return transform


def zoom(images: Tensor, factor: float) -> Tensor:
    """Enlarges images about their centre; the frame keeps its size.

    Args:
        images: float32 (n, height, width, 3), integers in 0-255.
        factor: above 0; below 1 images become smaller and the border is filled by reflection.

    Returns:
        float32 of the same shape, integers in 0-255.
    """
    height, width = images.shape[1:3]
    x, y, scale = (width - 1) / 2, (height - 1) / 2, 1 / factor
    matrix = [scale, 0.0, x - scale * x, 0.0, scale, y - scale * y, 0.0, 0.0]
    return _to_grey_levels(
        ops.image.affine_transform(
            images, np.array(matrix, dtype=np.float32), interpolation="bilinear", fill_mode="reflect"
        )
    )


def zoom_images(images: Images, factor: float) -> Images:
    """Enlarges images about their centre outside a graph, with the operations of the graph.

    Args:
        images: uint8 (n, height, width, 3).
        factor: above 0; see ``zoom``.

    Returns:
        uint8 of the same shape; the same array for a factor of 1 and where there are no images.
    """
    if factor == 1.0 or len(images) == 0:
        return images
    starts = range(0, len(images), _ZOOM_BATCH)
    batches = (images[start : start + _ZOOM_BATCH].astype(np.float32) for start in starts)
    return np.concatenate([np.asarray(ops.convert_to_numpy(zoom(batch, factor))).astype(np.uint8) for batch in batches])


def _brightness(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda images: _to_grey_levels(images * factor)


def _to_grey_levels(values: Tensor) -> Tensor:
    return ops.clip(ops.round(values), 0, 255)


#: Each transform as an operation on float32 images (n, height, width, 3) of integers in 0-255, which returns the same.
#: Turns are counter-clockwise, as numpy's.
TTA_OPERATIONS: Mapping[TransformName, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "flip_left_right": lambda images: ops.flip(images, axis=2),
    "flip_up_down": lambda images: ops.flip(images, axis=1),
    "turn_90": lambda images: ops.rot90(images, k=1, axes=(1, 2)),
    "turn_180": lambda images: ops.rot90(images, k=2, axes=(1, 2)),
    "turn_270": lambda images: ops.rot90(images, k=3, axes=(1, 2)),
    "transpose": lambda images: ops.transpose(images, (0, 2, 1, 3)),
    "rotate_left": _rotation(_ROTATION_DEGREES),
    "rotate_right": _rotation(-_ROTATION_DEGREES),
    "brighter": _brightness(1 + _BRIGHTNESS),
    "darker": _brightness(1 - _BRIGHTNESS),
    "smaller": lambda images: zoom(images, 1 - _ZOOM),
    "larger": lambda images: zoom(images, 1 + _ZOOM),
}


def tta_batch(images: Tensor, names: Sequence[TransformName]) -> Tensor:
    """Transforms a batch.

    Args:
        images: uint8, shape (n, height, width, 3).
        names: The transforms.

    Returns:
        uint8, shape (transforms x n, height, width, 3), one transform after the other.
    """
    if list(names) == ["identity"]:
        return images
    # On a CPU TensorFlow moves floats faster than bytes, and warns about bytes.
    values = ops.cast(images, "float32")
    return ops.cast(ops.concatenate([TTA_OPERATIONS[name](values) for name in names], axis=0), "uint8")


def tta_images(images: Images, names: Sequence[TransformName]) -> Images:
    """Transforms images outside a graph.

    Args:
        images: uint8, shape (n, height, width, 3).
        names: The transforms.

    Returns:
        uint8, shape (transforms x n, height, width, 3), one transform after the other.
    """
    return np.asarray(ops.convert_to_numpy(tta_batch(ops.convert_to_tensor(images), names)))


def with_tta(network: keras.Model, weights: Mapping[TransformName, float]) -> keras.Model:
    """Builds a network that averages the class probabilities of ``network`` over transforms; the variables are shared.

    Args:
        network: Of ``build_network``: uint8 images (n, height, width, 3) -> logits (n, classes).
        weights: Weight of each transform, summing to 1; each costs one forward pass.

    Returns:
        A network of the same kind, whose softmax is the weighted average.
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="images")
    batch = tta_batch(images, list(weights))
    probabilities = ops.softmax(ops.cast(network(batch, training=False), "float32"), axis=-1)
    by_transform = ops.reshape(probabilities, (len(weights), -1, network.output_shape[-1]))
    average = ops.sum(by_transform * np.array(list(weights.values()), dtype=np.float32).reshape(-1, 1, 1), axis=0)
    return keras.Model(images, ops.log(ops.maximum(average, PROBABILITY_FLOOR)), name=f"{network.name}_with_tta")
