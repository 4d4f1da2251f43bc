"""One epoch of Keras' ``fit`` on the batches of a pipeline."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from bloodauto.models.network import reseed_dropout
from bloodauto.training.distillation import Batches
from bloodauto.training.stage_control import StageControl
from bloodauto.transforms import Batch

#: Drawn ahead by TensorFlow, beside what the pipeline makes ahead.
_PREFETCHED_BATCHES = 2
#: So many images tell a channel's mean and spread.
_STATISTICS_IMAGES = 1024


def fit_epoch(network: keras.Model, pipeline: Batches, control: StageControl, epoch: int) -> tuple[float, float]:
    """Trains for an epoch, or until ``control`` ends it; loss and accuracy on the images as it learned from them."""
    reseed_dropout(network, epoch)
    batches = pipeline.epoch(epoch)
    try:
        logs = network.fit(
            as_tf_dataset(batches),
            steps_per_epoch=pipeline.batches_per_epoch,
            epochs=1,
            verbose=0,
            shuffle=False,
            callbacks=[control],
        ).history
    finally:
        # TensorFlow may still be drawing a batch ahead; its thread then ends the iterator itself.
        with contextlib.suppress(ValueError):
            batches.close()
    return float(logs["loss"][-1]), float(logs["accuracy"][-1])


def as_tf_dataset(batches: Iterator[Batch]) -> tf.data.Dataset:
    """The batches as TensorFlow takes them, in tuples of images, targets and weights; there must be one at least.

    Keras would wrap a generator alike, but leave autotuning on. Its thread sleeps for longer and longer, up to a minute, and
    the end of an epoch waits for it: measured, a fifth of the time of trainings whose epochs take a minute.
    """
    first = next(batches)
    specs = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in first)
    everything = itertools.chain((first,), batches)
    dataset = tf.data.Dataset.from_generator(lambda: map(tuple, everything), output_signature=specs)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(_PREFETCHED_BATCHES).with_options(options)


def first_images(pipeline: Batches, epoch: int) -> Iterator[np.ndarray]:
    """The images of an epoch's first batches, uint8 (b, h, w, 3), about a thousand in all."""
    batches, seen = pipeline.epoch(epoch), 0
    try:
        for batch in batches:
            yield np.asarray(batch.images)
            seen += len(batch.weights)
            if seen >= _STATISTICS_IMAGES:
                return
    finally:
        batches.close()
