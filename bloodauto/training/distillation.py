"""Learning from what another model answers rather than from labels."""

from __future__ import annotations

from collections.abc import Callable, Generator

import keras
import numpy as np
import tensorflow as tf

from bloodauto.transforms import Batch, BatchPipeline

#: Images, uint8 (b, h, w, 3) -> probabilities, float32 (b, classes).
Teacher = Callable[[np.ndarray], np.ndarray]


def teacher_from_model(model: keras.Model) -> Teacher:
    """A model that answers with probabilities, as exported ones do, as a teacher; it may be asked from any thread."""
    answer = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    return lambda images: np.asarray(answer(tf.constant(images)))


class DistillationBatches:
    """Batches whose targets are a teacher's probabilities for the very images that the student sees.

    Teacher and student see the same augmented and mixed view (function matching; Beyer et al., arXiv:2106.05237), so that the
    student learns what the teacher would say of images that nobody has labelled; the labels take no part. The price is the
    teacher's forward pass for each image.
    """

    def __init__(self, pipeline: BatchPipeline, teacher: Teacher) -> None:
        self._pipeline, self._teacher = pipeline, teacher
        self.batches_per_epoch = pipeline.batches_per_epoch

    @property
    def wait_seconds(self) -> float:
        return self._pipeline.wait_seconds

    def epoch(self, number: int) -> Generator[Batch]:
        """As that of the pipeline."""
        batches = self._pipeline.epoch(number)
        try:
            for batch in batches:
                images = np.asarray(batch.images)
                yield Batch(images, self._teacher(images), np.ones(len(images), np.float32))
        finally:
            batches.close()


#: What a stage learns from.
Batches = BatchPipeline | DistillationBatches
