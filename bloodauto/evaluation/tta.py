"""The views of test-time augmentation, as operations that both a judgement and an exported model are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bloodauto.config.recipe import TransformName

#: Before a logarithm.
_FLOOR = 1e-12
_ROTATION_DEGREES = 10.0
_BRIGHTNESS = 0.1
#: Views that exchange height and width.
SQUARE_ONLY_TRANSFORMS = frozenset({"turn_90", "turn_270", "transpose"})


def _rotated(degrees: float) -> Callable[[Any], Any]:
    def view(images: Any) -> Any:
        height, width = images.shape[1:3]
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        x, y = (width - 1) / 2, (height - 1) / 2
        # From a place in the answer to the place in the image that it shows.
        matrix = [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y, 0.0, 0.0]
        turned = ops.image.affine_transform(
            images,
            np.array(matrix, dtype=np.float32),
            interpolation="bilinear",
            fill_mode="reflect",
        )
        return _to_grey_levels(turned)

    return view


def _scaled(factor: float) -> Callable[[Any], Any]:
    return lambda images: _to_grey_levels(images * factor)


def _to_grey_levels(values: Any) -> Any:
    return ops.clip(ops.round(values), 0, 255)


#: Each view as the operation that makes it from (n, height, width, 3), float32 whole numbers of 0-255, and answers with the
#: like. Turns are counter-clockwise, as numpy's.
TTA_OPERATIONS: Mapping[TransformName, Callable[[Any], Any]] = {
    "identity": lambda images: images,
    "flip_left_right": lambda images: ops.flip(images, axis=2),
    "flip_up_down": lambda images: ops.flip(images, axis=1),
    "turn_90": lambda images: ops.rot90(images, k=1, axes=(1, 2)),
    "turn_180": lambda images: ops.rot90(images, k=2, axes=(1, 2)),
    "turn_270": lambda images: ops.rot90(images, k=3, axes=(1, 2)),
    "transpose": lambda images: ops.transpose(images, (0, 2, 1, 3)),
    "rotate_left": _rotated(_ROTATION_DEGREES),
    "rotate_right": _rotated(-_ROTATION_DEGREES),
    "brighter": _scaled(1 + _BRIGHTNESS),
    "darker": _scaled(1 - _BRIGHTNESS),
}


def tta_batch(images: Any, names: Sequence[TransformName]) -> Any:
    """All views of a batch, one view after another: uint8 (n, h, w, 3) -> uint8 (views x n, h, w, 3)."""
    if list(names) == ["identity"]:
        return images
    # On a CPU TensorFlow moves floats faster than bytes, and complains of bytes.
    values = ops.cast(images, "float32")
    return ops.cast(ops.concatenate([TTA_OPERATIONS[name](values) for name in names], axis=0), "uint8")


def with_tta(network: keras.Model, shares: Mapping[TransformName, float]) -> keras.Model:
    """A network that answers with the average over views of what ``network`` answers; the weights are shared.

    Args:
        network: of ``build_network``: uint8 (n, h, w, 3) -> logits (n, c).
        shares: of each view, summing to 1; the price is one forward pass for each.

    Returns:
        A model of the same kind: its softmax is the average of the views' softmaxes.
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="images")
    batch = tta_batch(images, list(shares))
    answers = ops.softmax(ops.cast(network(batch, training=False), "float32"), axis=-1)
    by_view = ops.reshape(answers, (len(shares), -1, network.output_shape[-1]))
    weights = np.array(list(shares.values()), dtype=np.float32).reshape(-1, 1, 1)
    average = ops.sum(by_view * weights, axis=0)
    return keras.Model(images, ops.log(ops.maximum(average, _FLOOR)), name=f"{network.name}_with_tta")
