"""The synthetic cells are a fair task: a small network learns one site and does clearly worse at the others."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.data.synthetic.generator import synthesize

IMAGE_SIZE_PX = 40
NUM_TRAINING = 1600
EPOCHS = 6
BATCH_SIZE = 32


@pytest.mark.slow
@pytest.mark.timeout(300)  # about 30 s alone on a core, more on a busy machine
def test_small_network_learns_a_site_and_loses_accuracy_at_others() -> None:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential([layers.Input((IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3)), layers.Rescaling(1 / 255)])
    for filters in (24, 32, 64, 96):
        network.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        # The default momentum would need more steps than this test has.
        network.add(layers.BatchNormalization(momentum=0.9))
        network.add(layers.ReLU())
        network.add(layers.MaxPooling2D())
    network.add(layers.GlobalAveragePooling2D())
    network.add(layers.Dense(8))
    schedule = keras.optimizers.schedules.PolynomialDecay(
        2e-3, EPOCHS * NUM_TRAINING // BATCH_SIZE, end_learning_rate=0
    )
    network.compile(keras.optimizers.Adam(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    training = synthesize(NUM_TRAINING, image_size_px=IMAGE_SIZE_PX)
    network.fit(training.images, training.labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)

    accuracy = {}
    for site in ("lab_a", "lab_b", "lab_c"):
        dataset = synthesize(400, site=site, image_size_px=IMAGE_SIZE_PX, first_index=NUM_TRAINING)
        predicted = network.predict(dataset.images, verbose=0).argmax(1)
        accuracy[site] = float(np.mean(predicted == dataset.labels))
    assert accuracy["lab_a"] > 0.8, accuracy
    assert accuracy["lab_b"] < accuracy["lab_a"] - 0.15, accuracy
    assert accuracy["lab_c"] < accuracy["lab_a"] - 0.15, accuracy
