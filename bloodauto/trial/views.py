"""The views of test-time augmentation, as operations that both a judgement and an exported model are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from bloodauto.recipe import ViewName
from bloodauto.trial.material import probabilities

_ROTATION_DEGREES = 10.0
_BRIGHTNESS = 0.1
#: Views that exchange height and width.
OF_SQUARES = frozenset({"turn_90", "turn_270", "transpose"})


def _rotated(degrees: float) -> Callable[[Any], Any]:
    def view(images: Any) -> Any:
        height, width = images.shape[1:3]
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        x, y = (width - 1) / 2, (height - 1) / 2
        # From a place in the answer to the place in the image that it shows.
        matrix = [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y, 0.0, 0.0]
        turned = ops.image.affine_transform(
            ops.cast(images, "float32"),
            np.array(matrix, dtype=np.float32),
            interpolation="bilinear",
            fill_mode="reflect",
        )
        return _to_uint8(turned)

    return view


def _scaled(factor: float) -> Callable[[Any], Any]:
    return lambda images: _to_uint8(ops.cast(images, "float32") * factor)


def _to_uint8(values: Any) -> Any:
    return ops.cast(ops.clip(ops.round(values), 0, 255), "uint8")


#: Each view as the operation that makes it from uint8 (n, height, width, 3). Turns are counter-clockwise, as numpy's.
VIEW_OPERATIONS: Mapping[ViewName, Callable[[Any], Any]] = {
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

_VIEW_BATCH = 512


def probabilities_over_views(network: keras.Model, images: np.ndarray, shares: Mapping[ViewName, float]) -> np.ndarray:
    """The average over the views of what a network of ``build_network`` answers, float32 (n, c).

    Args:
        images: uint8, (n, h, w, 3).
        shares: of each view, summing to 1; the price is one pass over the images for each.
    """
    answers = []
    for start in range(0, len(images), _VIEW_BATCH):
        batch = images[start : start + _VIEW_BATCH]
        looks = {name: np.asarray(VIEW_OPERATIONS[name](ops.convert_to_tensor(batch))) for name in shares}
        answers.append(sum(share * probabilities(network, looks[name]) for name, share in shares.items()))
    return np.concatenate(answers).astype(np.float32)
