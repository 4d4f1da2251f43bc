"""How long one image takes a network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from bloodauto.config.recipe import load_recipe
from bloodauto.data.dataset import CellDataset
from bloodauto.ensemble.record import TrainedNetwork
from bloodauto.models.network import build_network

_WARM_UP = 3
_TIMINGS = 15


def single_image_ms(model: keras.Model) -> float:
    """Milliseconds for one image alone, the median of some, on this machine with the cores this process has.

    Images in batches take less each; Keras' ``predict`` adds some tens of milliseconds a call.
    """
    image = np.zeros((1, *model.input_shape[1:]), dtype=np.uint8)
    answer = tf.function(lambda images: model(images, training=False))
    taken = []
    for number in range(_WARM_UP + _TIMINGS):
        started = time.perf_counter()
        np.asarray(answer(image))
        if number >= _WARM_UP:
            taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)


def latency_of(dataset: CellDataset) -> Callable[[TrainedNetwork], float]:
    """What measures the network of a training for images of this size; its weights do not matter."""
    _, height, width, _ = dataset.images.shape

    def measure(trained: TrainedNetwork) -> float:
        network = build_network(
            load_recipe(trained.folder / "recipe.yaml"),
            num_classes=len(dataset.class_names),
            image_shape_px=(height, width),
            weights_file=None,
            for_training=False,
        )
        return single_image_ms(network)

    return measure
