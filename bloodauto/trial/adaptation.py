"""Batch-normalisation statistics of another laboratory, from its images alone: no labels, no training."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers

from bloodauto.errors import DataError

_BATCH = 128


class _OfTheBatch(layers.BatchNormalization):
    """Batch normalisation by the batch's own statistics, always; with a momentum of 0 it stores them as they are."""

    def call(self, inputs: object, training: bool | None = None, mask: object = None) -> object:
        return super().call(inputs, training=True, mask=mask)


def _clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = layer.get_config()
    if not isinstance(layer, layers.BatchNormalization):
        return type(layer).from_config(config)
    # A frozen layer would go by its stored statistics.
    return _OfTheBatch.from_config({**config, "momentum": 0.0, "trainable": True})


def _normalisations(network: keras.Model) -> list[layers.BatchNormalization]:
    return [layer for layer in network._flatten_layers() if isinstance(layer, layers.BatchNormalization)]


def adapted_statistics(
    network: keras.Model, images: np.ndarray, *, source_images: int = 0, batch_size: int = _BATCH
) -> list[np.ndarray]:
    """The network's weights with its batch-normalisation statistics replaced by those of unlabelled images.

    Adaptive batch normalisation (Li et al., arXiv:1603.04779): what a laboratory's colours and optics do to mean and spread
    of each channel is taken out where it arises. The images go through the network once, each batch normalised by itself, as
    in training but without dropout; mean and variance are those of all batches together. The result depends on which classes
    the images show and in which shares: one class alone would be normalised away. A few hundred images of all kinds will do.

    Args:
        network: as ``build_network`` makes it; not changed. One without batch normalisation keeps all its weights.
        images: uint8 (n, h, w, 3), at least 2; they are dealt into batches of like size in the order given, so shuffle
            images that are sorted.
        source_images: the stored statistics count as those of so many images (Schneider et al., arXiv:2006.16971), which
            steadies small sets; 0 replaces them.

    Returns:
        Weights for ``network.set_weights``, in its order.

    Raises:
        DataError: fewer than 2 images.
    """
    if len(images) < 2:
        raise DataError(
            f"expected at least 2 images to take statistics from, got {len(images)}; a few hundred are better."
        )
    normalisations = _normalisations(network)
    if not normalisations:
        return network.get_weights()
    follower = keras.models.clone_model(network, clone_function=_clone, recursive=True)
    follower.set_weights(network.get_weights())
    follower.compile(jit_compile=False)
    following = _normalisations(follower)
    assert [layer.name for layer in following] == [layer.name for layer in normalisations]
    first = [np.zeros(layer.moving_mean.shape) for layer in following]
    second = [np.zeros(layer.moving_mean.shape) for layer in following]
    for part in np.array_split(np.arange(len(images)), math.ceil(len(images) / batch_size)):
        follower.predict_on_batch(images[part])
        share = len(part) / len(images)
        for index, layer in enumerate(following):
            mean = layer.moving_mean.numpy().astype(np.float64)
            first[index] += share * mean
            second[index] += share * (layer.moving_variance.numpy() + mean**2)
    kept = source_images / (source_images + len(images))
    adapted = {}
    for layer, mean, square in zip(normalisations, first, second, strict=True):
        adapted[id(layer.moving_mean)] = kept * layer.moving_mean.numpy() + (1 - kept) * mean
        variance = np.maximum(square - mean**2, 0.0)
        adapted[id(layer.moving_variance)] = kept * layer.moving_variance.numpy() + (1 - kept) * variance
    return [np.asarray(adapted.get(id(one), one.numpy()), dtype=np.float32) for one in network.weights]
