"""Knowledge distillation: a network learns from another model's class probabilities instead of from labels."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from bloodauto.transforms import Batch, BatchPipeline
from bloodauto.types import Images, Probabilities

#: Images, uint8 (batch, height, width, 3) -> class probabilities, float32 (batch, classes).
Teacher: TypeAlias = Callable[[Images], Probabilities]


def teacher_from_model(model: keras.Model) -> Teacher:
    """A model as a teacher; it may be called from any thread.

    Args:
        model: Returns class probabilities for uint8 images, as exported models do.
    """
    predict = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    return lambda images: np.asarray(predict(tf.constant(images)))


class DistillationBatches:
    """Batches whose targets are a teacher's probabilities for the very images that the student sees.

    Teacher and student see the same augmented and mixed images (function matching; Beyer et al., arXiv:2106.05237), so that the
    student learns what the teacher predicts for images that nobody has labelled; labels and sample weights take no part. The
    price is the teacher's forward pass for each image.

    Args:
        pipeline: Gives the images.
        teacher: Gives the targets.

    Attributes:
        batches_per_epoch: As of the pipeline.
    """

    def __init__(self, pipeline: BatchPipeline, teacher: Teacher) -> None:
        self._pipeline, self._teacher = pipeline, teacher
        self.batches_per_epoch = pipeline.batches_per_epoch

    @property
    def wait_seconds(self) -> float:
        """Seconds that the training has waited for images, as of the pipeline."""
        return self._pipeline.wait_seconds

    def epoch(self, number: int, first_batch: int = 0) -> Generator[Batch]:
        """The batches of an epoch.

        Args:
            number: 1-based over all stages.
            first_batch: Index of the first batch that is made.
        """
        batches = self._pipeline.epoch(number, first_batch)
        try:
            for batch in batches:
                images = np.asarray(batch.images)
                yield Batch(images, self._teacher(images), np.ones(len(images), np.float32))
        finally:
            batches.close()


#: What a stage is trained on.
Batches: TypeAlias = BatchPipeline | DistillationBatches
