"""One epoch of Keras' ``fit`` on the batches of a pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np

from bloodauto.trial.network import restart_randomness
from bloodauto.trial.stage_control import StageControl
from bloodauto.trial.teaching import Batches

#: So many images tell a channel's mean and spread.
_STATISTICS_IMAGES = 1024


def fit_epoch(network: keras.Model, pipeline: Batches, control: StageControl, epoch: int) -> tuple[float, float]:
    """Trains for an epoch, or until ``control`` ends it; loss and accuracy on the images as it learned from them."""
    restart_randomness(network, epoch)
    batches = pipeline.epoch(epoch)
    try:
        logs = network.fit(
            batches,
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
