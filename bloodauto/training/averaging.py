"""Averages of a network's weights over the steps of a stage: what is judged and kept, while training goes on unaveraged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from bloodauto.config.recipe import Stage
from bloodauto.models.batch_norm import BatchNormStatisticsReader
from bloodauto.training.optimizers import learning_rate_factor

#: An average whose standard deviation over time is a tenth of the steps so far.
_EMA_EXPONENT = 6.94
#: The share of the stage after which stochastic weight averaging begins, as in the paper.
_SWA_START = 0.75
#: Below this share of its peak a learning rate has settled the weights itself.
_CONVERGED_RATE_FACTOR = 0.1


def may_gain_from_averaging(stage: Stage) -> bool:
    """Whether the weights after a stage's last epochs are worth averaging (uniform soup; Wortsman et al., arXiv:2203.05482).

    After a schedule that ends near 0 they are not: the last epoch has settled, the ones before had not. In a stage that
    averages its steps, or keeps its last epoch whatever it is worth, the recipe has decided.
    """
    schedule = stage.schedule
    settled = schedule.name != "plateau" and learning_rate_factor(schedule, 1.0) < _CONVERGED_RATE_FACTOR
    return stage.weight_averaging == "none" and stage.restore_best and not settled


class WeightAverage:
    """An average of the weights that learn in a stage.

    ``ema``: the weights after step t count t ** 6.94 (Karras et al., arXiv:2312.02696, for an average that is 10 % of the
    training wide). Unlike an average with a fixed decay it needs no correction at its start, and means the same in a stage of
    fifty steps and in one of fifty thousand, however a time limit cuts it. Keras' own ``use_ema`` has a fixed decay, holds on
    to the weights of the first step, and leaves the statistics as they are.

    ``swa``: the mean of the weights after each step of the stage's last quarter (Izmailov et al., arXiv:1803.05407). We
    average every step, as SWAD does (Cha et al., arXiv:2102.08604), not every epoch: a short training has few epochs. Before
    the last quarter there is no average and the weights are judged as they are. It is meant for a rate that stays high, with
    the schedule constant or a high ``final_factor``.

    No step has seen the averaged weights, so the statistics of batch normalisation that were kept while training do not fit
    them. Where they were learned too, they are taken anew from training images whenever the average is applied, as Izmailov
    et al. do. Averaging them instead cost 9 points of accuracy (mean of 6 trainings of 236 steps, synthetic cells).

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
        self._network = network
        # By its exact type: a kind that keeps its stored statistics for ever is none of these.
        self._normalisations = [
            layer
            for layer in network._flatten_layers()
            if type(layer) is keras.layers.BatchNormalization and layer.trainable
        ]
        self._reader: BatchNormStatisticsReader | None = None
        self._live = [variable.value for variable in network.trainable_variables]
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
    def applied(self, batches: Callable[[], Iterable[np.ndarray]]) -> Iterator[None]:
        """Within the block the network has the averaged weights; after it, those it is trained with.

        Args:
            batches: gives images as they are trained on, uint8 (b, h, w, 3), to take statistics from; asked where needed.
        """
        if self.steps == 0:
            yield
            return
        statistics = [one.value for layer in self._normalisations for one in (layer.moving_mean, layer.moving_variance)]
        changing = [*self._live, *statistics]
        trained = [variable.numpy() for variable in changing]
        try:
            for live, average in zip(self._live, self._averages, strict=True):
                live.assign(average)
            if self._normalisations:
                self._take_statistics(batches())
            yield
        finally:
            for variable, value in zip(changing, trained, strict=True):
                variable.assign(value)

    def _take_statistics(self, batches: Iterable[np.ndarray]) -> None:
        if self._reader is None:
            self._reader = BatchNormStatisticsReader(self._network, self._normalisations)
        for layer, (mean, variance) in zip(self._normalisations, self._reader.read(batches), strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
