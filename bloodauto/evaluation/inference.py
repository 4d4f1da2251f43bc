"""Batch inference: the one place where a network's predictions for an array of images are computed."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from bloodauto.config.recipe import TransformName
from bloodauto.evaluation.metrics import softmax
from bloodauto.evaluation.tta import with_tta
from bloodauto.types import Floats, Images, Probabilities, Rows

#: Images per batch.
BATCH_SIZE = 128


def predict_batches(
    network: keras.Model,
    images: Images,
    rows: Rows | None = None,
    *,
    tta: Mapping[TransformName, float] | None = None,
) -> Probabilities:
    """Predicts class probabilities with a network that returns logits, as those of ``build_network`` do.

    Args:
        network: uint8 images (n, height, width, 3) -> logits (n, classes).
        images: Shape (n, height, width, 3).
        rows: Rows of ``images`` to predict, shape (k,); all when None.
        tta: Weight of each test-time augmentation transform, summing to 1; None for the image alone.

    Returns:
        float32, shape (k, classes).

    Example:
        >>> import keras
        >>> images = keras.Input((8, 8, 3), dtype="uint8")
        >>> network = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))
        >>> predict_batches(network, np.zeros((5, 8, 8, 3), np.uint8)).shape
        (5, 3)
    """
    return softmax(predict_outputs(network if tta is None else with_tta(network, tta), images, rows)[0])


def predict_outputs(
    model: keras.Model, images: Images, rows: Rows | None = None, *, batch_size: int = BATCH_SIZE
) -> list[Floats]:
    """Computes every output of a model.

    With ``rows`` one batch at a time is read from ``images``, which saves a copy. The last batch is padded, so that a graph
    is traced for one batch size only. Keras' own ``predict`` feeds through ``tf.data`` and may pause at its end; see
    ``training.epoch.as_tf_dataset``.

    Args:
        model: Takes uint8 images (n, height, width, 3).
        images: Shape (n, height, width, 3), n at least 1.
        rows: Rows of ``images``, shape (k,), k at least 1; all when None.
        batch_size: Images per batch.

    Returns:
        One array for each output of the model, with k rows.
    """
    count = len(images) if rows is None else len(rows)
    batches: list[list[Floats]] = []
    for start in range(0, count, batch_size):
        part = slice(start, min(start + batch_size, count))
        batch = images[part] if rows is None else images[rows[part]]
        size = len(batch)
        if size < batch_size:
            batch = np.concatenate([batch, np.zeros((batch_size - size, *batch.shape[1:]), dtype=batch.dtype)])
        outputs = model.predict_on_batch(batch)
        # Keras unpacks a list of one.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        batches.append([np.asarray(output)[:size] for output in outputs])
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
