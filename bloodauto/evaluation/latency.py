"""Latency: how long networks take for an image, by one timer on an injected clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from bloodauto.clock import Clock
from bloodauto.config.recipe import Recipe
from bloodauto.evaluation.inference import BATCH_SIZE
from bloodauto.models.network import build_network
from bloodauto.types import Images

_BATCH_REPEATS = 5
_SINGLE_IMAGE_WARMUP, _SINGLE_IMAGE_REPEATS = 3, 15


def median_seconds(call: Callable[[], object], *, clock: Clock, repeats: int, warmup: int = 1) -> float:
    """Median duration of a call.

    Args:
        call: Blocks until its result is there.
        clock: Measures the duration.
        repeats: Number of timed calls, at least 1.
        warmup: Number of calls before these; the first call of a network may trace a graph.

    Example:
        >>> from bloodauto.clock import SimulatedClock
        >>> clock = SimulatedClock()
        >>> median_seconds(lambda: clock.advance(3.0), clock=clock, repeats=5)
        3.0
    """
    for _ in range(warmup):
        call()
    seconds = []
    for _ in range(repeats):
        start = clock.now()
        call()
        seconds.append(clock.now() - start)
    return statistics.median(seconds)


def batch_latency_ms(model: keras.Model, images: Images, *, clock: Clock) -> float:
    """Milliseconds per image in batches of ``BATCH_SIZE``.

    Args:
        model: Takes uint8 images (n, height, width, 3).
        images: Shape (n, height, width, 3), n at least 1; repeated to fill a batch.
        clock: Measures the duration.
    """
    batch = np.resize(images[:BATCH_SIZE], (BATCH_SIZE, *images.shape[1:]))
    seconds = median_seconds(lambda: model.predict_on_batch(batch), clock=clock, repeats=_BATCH_REPEATS)
    return 1000 * seconds / BATCH_SIZE


def single_image_latency_ms(model: keras.Model, *, clock: Clock) -> float:
    """Milliseconds for one image at a time, on this machine with the cores of this process.

    Images in batches take less each. Keras' ``predict`` adds some tens of milliseconds for each call.

    Args:
        model: Takes uint8 images (n, height, width, 3).
        clock: Measures the duration.
    """
    image = np.zeros((1, *model.input_shape[1:]), dtype=np.uint8)
    predict = tf.function(lambda images: model(images, training=False))
    seconds = median_seconds(
        lambda: np.asarray(predict(image)), clock=clock, repeats=_SINGLE_IMAGE_REPEATS, warmup=_SINGLE_IMAGE_WARMUP
    )
    return 1000 * seconds


def recipe_latency_ms(recipe: Recipe, *, num_classes: int, image_shape_px: tuple[int, int], clock: Clock) -> float:
    """Milliseconds for one image at a time of a recipe's network, which need not be trained: its weights do not matter.

    Args:
        recipe: Describes the network.
        num_classes: Number of classes.
        image_shape_px: Height and width of the images.
        clock: Measures the duration.
    """
    network = build_network(
        recipe, num_classes=num_classes, image_shape_px=image_shape_px, weights_file=None, for_training=False
    )
    return single_image_latency_ms(network, clock=clock)
