"""Batch-normalisation statistics computed again: for another site from its unlabelled images, or for averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from bloodauto.errors import DataError
from bloodauto.types import Images

_BATCH = 128


class _BatchStatisticsNormalization(layers.BatchNormalization):
    """Batch normalisation that always uses the batch's statistics; with a momentum of 0 it stores them unchanged."""

    def call(self, inputs: object, training: bool | None = None, mask: object = None) -> object:
        return super().call(inputs, training=True, mask=mask)


class BatchNormStatisticsReader:
    """Computes the statistics of a network's activations as training does, but without dropout and without changing it.

    Create it once per network, since it builds and traces a second one; reading then costs a forward pass.

    Args:
        network: Made by ``build_network``.
        normalisations: The layers whose statistics are computed; the others use their stored statistics.
    """

    def __init__(self, network: keras.Model, normalisations: Sequence[layers.BatchNormalization]) -> None:
        selected = {id(layer) for layer in normalisations}

        def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
            config = layer.get_config()
            if id(layer) not in selected:
                return type(layer).from_config(config)
            # A frozen layer would use its stored statistics.
            return _BatchStatisticsNormalization.from_config({**config, "momentum": 0.0, "trainable": True})

        self._network = network
        self._clone = keras.models.clone_model(network, clone_function=clone, recursive=True)
        self._clone.compile(jit_compile=False)
        self._cloned_normalisations = [
            layer for layer in self._clone._flatten_layers() if isinstance(layer, _BatchStatisticsNormalization)
        ]
        assert [layer.name for layer in self._cloned_normalisations] == [layer.name for layer in normalisations]

    def read(self, batches: Iterable[Images]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """The statistics with the present weights of the network.

        Args:
            batches: uint8, shape (batch, height, width, 3), at least one; each is normalised by itself, and all images count
                equally.

        Returns:
            Mean and variance of each layer, shape (channels,).
        """
        self._clone.set_weights(self._network.get_weights())
        first = [np.zeros(layer.moving_mean.shape) for layer in self._cloned_normalisations]
        second = [np.zeros(layer.moving_mean.shape) for layer in self._cloned_normalisations]
        count = 0
        for batch in batches:
            self._clone.predict_on_batch(batch)
            count += len(batch)
            for index, layer in enumerate(self._cloned_normalisations):
                mean = layer.moving_mean.numpy().astype(np.float64)
                first[index] += len(batch) * mean
                second[index] += len(batch) * (layer.moving_variance.numpy() + mean**2)
        return [
            (mean / count, np.maximum(square / count - (mean / count) ** 2, 0.0))
            for mean, square in zip(first, second, strict=True)
        ]


def adapted_batch_norm_weights(
    network: keras.Model, images: Images, *, source_pseudo_count: int = 0, batch_size: int = _BATCH
) -> list[NDArray[np.float32]]:
    """The network's weights with its batch-normalisation statistics replaced by those of unlabelled images.

    Adaptive batch normalisation (Li et al., arXiv:1603.04779): shifts of mean and variance of a channel that come from a site's
    colours and optics are removed in the layer where they occur. The images pass the network once, each batch normalised by
    itself, as in training but without dropout; mean and variance are those of all batches together. The result depends on the
    class proportions of the images: with one class alone its features would be normalised away. A few hundred images of all
    classes are enough.

    Args:
        network: Made by ``build_network``; not changed. A network without batch normalisation keeps all its weights.
        images: uint8, shape (n, height, width, 3), at least 2; they are divided into batches of similar size in their order, so
            shuffle sorted images.
        source_pseudo_count: The stored statistics count as those of this many images (Schneider et al., arXiv:2006.16971),
            which stabilises small sets; 0 replaces them.
        batch_size: Largest batch.

    Returns:
        Weights for ``network.set_weights``, in its order.

    Raises:
        DataError: Fewer than 2 images.
    """
    if len(images) < 2:
        raise DataError(
            f"expected at least 2 images to take statistics from, got {len(images)}; a few hundred are better."
        )
    normalisations = [layer for layer in network._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    if not normalisations:
        weights: list[NDArray[np.float32]] = network.get_weights()
        return weights
    parts = np.array_split(np.arange(len(images)), math.ceil(len(images) / batch_size))
    statistics = BatchNormStatisticsReader(network, normalisations).read(images[part] for part in parts)
    kept = source_pseudo_count / (source_pseudo_count + len(images))
    adapted = {}
    for layer, (mean, variance) in zip(normalisations, statistics, strict=True):
        adapted[id(layer.moving_mean)] = kept * layer.moving_mean.numpy() + (1 - kept) * mean
        adapted[id(layer.moving_variance)] = kept * layer.moving_variance.numpy() + (1 - kept) * variance
    return [np.asarray(adapted.get(id(variable), variable.numpy()), dtype=np.float32) for variable in network.weights]
