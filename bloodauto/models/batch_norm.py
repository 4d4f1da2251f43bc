"""Batch-normalisation statistics taken anew: of another laboratory from its images alone, or of averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import layers

from bloodauto.errors import DataError

_BATCH = 128


class _BatchStatisticsNormalization(layers.BatchNormalization):
    """Batch normalisation by the batch's own statistics, always; with a momentum of 0 it stores them as they are."""

    def call(self, inputs: object, training: bool | None = None, mask: object = None) -> object:
        return super().call(inputs, training=True, mask=mask)


class BatchNormStatisticsReader:
    """Finds the statistics of a network's activations as training would, but without dropout and without changing it.

    Made once for a network, since it builds and traces a second one; reading then costs a forward pass.

    Args:
        network: as ``build_network`` makes it.
        normalisations: the layers whose statistics are wanted; the others go by those they have stored.
    """

    def __init__(self, network: keras.Model, normalisations: Sequence[layers.BatchNormalization]) -> None:
        wanted = {id(layer) for layer in normalisations}

        def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
            config = layer.get_config()
            if id(layer) not in wanted:
                return type(layer).from_config(config)
            # A frozen layer would go by its stored statistics.
            return _BatchStatisticsNormalization.from_config({**config, "momentum": 0.0, "trainable": True})

        self._network = network
        self._clone = keras.models.clone_model(network, clone_function=clone, recursive=True)
        self._clone.compile(jit_compile=False)
        self._cloned_normalisations = [
            layer for layer in self._clone._flatten_layers() if isinstance(layer, _BatchStatisticsNormalization)
        ]
        assert [layer.name for layer in self._cloned_normalisations] == [layer.name for layer in normalisations]

    def read(self, batches: Iterable[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mean and variance, float64 (channels,), for each wanted layer, with the network's weights as they are now.

        Args:
            batches: uint8 (b, h, w, 3), at least one; each is normalised by itself, and all images count alike.
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
    network: keras.Model, images: np.ndarray, *, source_pseudo_count: int = 0, batch_size: int = _BATCH
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
        source_pseudo_count: the stored statistics count as those of so many images (Schneider et al., arXiv:2006.16971), which
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
    normalisations = [layer for layer in network._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    if not normalisations:
        return network.get_weights()
    parts = np.array_split(np.arange(len(images)), math.ceil(len(images) / batch_size))
    found = BatchNormStatisticsReader(network, normalisations).read(images[part] for part in parts)
    kept = source_pseudo_count / (source_pseudo_count + len(images))
    adapted = {}
    for layer, (mean, variance) in zip(normalisations, found, strict=True):
        adapted[id(layer.moving_mean)] = kept * layer.moving_mean.numpy() + (1 - kept) * mean
        adapted[id(layer.moving_variance)] = kept * layer.moving_variance.numpy() + (1 - kept) * variance
    return [np.asarray(adapted.get(id(one), one.numpy()), dtype=np.float32) for one in network.weights]
