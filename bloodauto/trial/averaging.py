"""Averages of a network's weights over the steps of a stage: what is judged and kept, while training goes on unaveraged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

#: An average whose standard deviation over time is a tenth of the steps so far.
_EMA_EXPONENT = 6.94
#: The share of the stage after which stochastic weight averaging begins, as in the paper.
_SWA_START = 0.75


class WeightAverage:
    """An average of the weights that learn in a stage, and of the batch-normalisation statistics that follow them.

    ``ema``: the weights after step t count t ** 6.94 (Karras et al., arXiv:2312.02696, for an average that is 10 % of the
    training wide). Unlike an average with a fixed decay it needs no correction at its start, and means the same in a stage of
    fifty steps and in one of fifty thousand, however a time limit cuts it. Keras' own ``use_ema`` has a fixed decay, holds on
    to the weights of the first step, and leaves the statistics out.

    ``swa``: the mean of the weights after each step of the stage's last quarter (Izmailov et al., arXiv:1803.05407). We
    average every step, as SWAD does (Cha et al., arXiv:2102.08604), not every epoch: a short training has few epochs. Before
    the last quarter there is no average and the weights are judged as they are. It is meant for a rate that stays high, with
    the schedule constant or a high ``final_factor``.

    The statistics of batch normalisation are averaged as the weights are; Izmailov et al. compute them anew by a pass over the
    training images. Weights that learn too little between steps to matter to the statistics make this a fair trade for a
    judgement after every epoch.

    Args:
        network: its unfrozen weights are followed; unfreeze before.
        kind: which average.
        averages, steps: where an earlier session left off; empty and 0: the start of a stage.
    """

    def __init__(
        self,
        network: keras.Model,
        kind: Literal["ema", "swa"],
        *,
        averages: Sequence[np.ndarray] = (),
        steps: int = 0,
    ) -> None:
        self._kind = kind
        statistics = [
            variable
            for layer in network._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
            for variable in layer.non_trainable_variables
        ]
        self._live = [variable.value for variable in (*network.trainable_variables, *statistics)]
        values = averages if steps > 0 else self._live
        self._averages = [tf.Variable(value, trainable=False) for value in values]
        self.steps = steps
        self._add = tf.function(self._move_towards_live)

    def _move_towards_live(self, share: tf.Tensor) -> None:
        for average, live in zip(self._averages, self._live, strict=True):
            average.assign_add(tf.cast(share, average.dtype) * (live - average))

    def add_step(self, progress: float) -> None:
        """Takes in the weights after a step, when ``progress`` (0-1) of the stage is done."""
        if self._kind == "swa" and progress < _SWA_START:
            return
        self.steps += 1
        kept = (1 - 1 / self.steps) ** (_EMA_EXPONENT + 1) if self._kind == "ema" else 1 - 1 / self.steps
        self._add(tf.constant(1 - kept, tf.float32))

    @property
    def values(self) -> list[np.ndarray]:
        """The averages, in an order that depends on the network alone; empty before the first step."""
        return [average.numpy() for average in self._averages] if self.steps > 0 else []

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the network has the averaged weights; after it, those it is trained with."""
        if self.steps == 0:
            yield
            return
        trained = [live.numpy() for live in self._live]
        for live, average in zip(self._live, self._averages, strict=True):
            live.assign(average)
        try:
            yield
        finally:
            for live, value in zip(self._live, trained, strict=True):
                live.assign(value)
