"""A student is shown what its teacher answers for the very images that it sees."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from bloodauto.config.recipe import MixingSettings, RandAugmentSettings
from bloodauto.training.distillation import DistillationBatches, teacher_from_model
from bloodauto.transforms import BatchAugmenter, BatchPipeline, PairMixing, RandAugment


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Answers by the mean colour, so that every change of an image shows."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3), dtype="uint8")
    colour = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 32)(images))
    return keras.Model(images, layers.Dense(3, activation="softmax")(colour))


def test_targets_are_the_teachers_predictions_for_the_augmented_and_mixed_images(model, noise):
    images, labels = noise(20, 16, 16), np.eye(3, dtype=np.float32)[np.arange(20) % 3]
    policy = RandAugment(RandAugmentSettings(num_ops=2, magnitude=0.5))
    augmenter = BatchAugmenter(policy, PairMixing(MixingSettings(name="mixup", alpha=1.0)), seed=0)
    pipeline = BatchPipeline(images, labels, augmenter, batch_size=8)
    distillation = DistillationBatches(pipeline, teacher_from_model(model))
    batches = list(distillation.epoch(1))
    assert len(batches) == distillation.batches_per_epoch == 2
    for batch, plain in zip(batches, pipeline.epoch(1), strict=True):
        np.testing.assert_array_equal(batch.images, np.asarray(plain.images))
        np.testing.assert_allclose(batch.targets, model.predict(batch.images, verbose=0), atol=1e-5)
        assert not np.allclose(batch.targets, plain.targets, atol=0.05)
        assert (batch.weights == 1).all()
