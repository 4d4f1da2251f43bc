"""Averages of a network's weights over the steps or epochs of a stage; training continues with the unaveraged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf
from numpy.typing import NDArray

from bloodauto.config.recipe import Stage
from bloodauto.models.batch_norm import BatchNormStatisticsReader
from bloodauto.training.optimizers import learning_rate_factor
from bloodauto.types import Images

#: Exponent of an average whose standard deviation over time is a tenth of the steps so far.
_EMA_EXPONENT = 6.94
#: Fraction of the stage after which stochastic weight averaging begins, as in the paper.
_SWA_START = 0.75
#: A learning rate below this fraction of its peak has settled the weights without an average.
_CONVERGED_RATE_FACTOR = 0.1


def may_gain_from_averaging(stage: Stage) -> bool:
    """Whether an average of the weights after a stage's last epochs may be better than its best epoch.

    That is a uniform soup of epochs (Wortsman et al., arXiv:2203.05482). After a schedule that ends near 0 it is no better: the
    last epoch has settled, the earlier ones had not. A stage that averages its steps, or keeps its last epoch in any case, has
    decided otherwise.

    Args:
        stage: The stage.
    """
    schedule = stage.schedule
    settled = schedule.name != "plateau" and learning_rate_factor(schedule, 1.0) < _CONVERGED_RATE_FACTOR
    return stage.weight_averaging == "none" and stage.restore_best and not settled


class WeightAverage:
    """An average of a network's trainable weights within a stage.

    ``ema``: the weights after step t are weighted by t ** 6.94 (Karras et al., arXiv:2312.02696, for an average that is 10 % of
    the training wide). Unlike an average with a fixed decay it needs no correction at its start, and means the same in a
    stage of fifty steps and in one of fifty thousand, however a time limit cuts it. Keras' own ``use_ema`` has a fixed
    decay, keeps the weights of the first step in the average, and does not average the statistics.

    ``swa``: the mean of the weights after each step of the stage's last quarter (Izmailov et al., arXiv:1803.05407). Deviation:
    every step is averaged, as in SWAD (Cha et al., arXiv:2102.08604), not every epoch, since a short training has few epochs.
    Until the last quarter there is no average. It suits a learning rate that stays high: a constant schedule or a high
    ``final_factor``.

    No step was computed with the averaged weights, so the statistics of batch normalisation that were kept in training do not
    fit them. Where these were trained too, they are computed again from training images whenever the average is applied, as
    Izmailov et al. do. Averaging them instead cost 9 points of accuracy (mean of 6 trainings of 236 steps, synthetic cells).

    Args:
        network: Its trainable weights are averaged; unfreeze before.
        kind: Which average.
        averages: The averages of an earlier session; empty at the start of a stage.
        steps: How many steps an earlier session averaged; 0 at the start of a stage.

    Attributes:
        steps: How many steps are averaged.
    """

    def __init__(
        self,
        network: keras.Model,
        kind: Literal["ema", "swa"],
        *,
        averages: Sequence[NDArray[Any]] = (),
        steps: int = 0,
    ) -> None:
        self._network = network
        # By its exact type: the subclass whose statistics are frozen is none of these.
        self._normalisations = [
            layer
            for layer in network._flatten_layers()
            if type(layer) is keras.layers.BatchNormalization and layer.trainable
        ]
        self._reader: BatchNormStatisticsReader | None = None
        self._live = [variable.value for variable in network.trainable_variables]
        self._averages = [tf.Variable(value, trainable=False) for value in self._live]
        self._add = tf.function(self._move_towards_live)
        self.restart(kind, averages=averages, steps=steps)

    def restart(self, kind: Literal["ema", "swa"], *, averages: Sequence[NDArray[Any]] = (), steps: int = 0) -> None:
        """Starts over for another training of the same weights, without tracing anew.

        Args:
            kind: As of the constructor.
            averages: As of the constructor.
            steps: As of the constructor.
        """
        self._kind, self.steps = kind, steps
        for average, value in zip(self._averages, averages if steps > 0 else self._live, strict=True):
            average.assign(value)

    def _move_towards_live(self, fraction: tf.Tensor) -> None:
        for average, live in zip(self._averages, self._live, strict=True):
            average.assign_add(tf.cast(fraction, average.dtype) * (live - average))

    def add_step(self, progress: float) -> None:
        """Adds the weights after a step.

        Args:
            progress: The fraction of the stage that is done, 0-1.
        """
        if self._kind == "swa" and progress < _SWA_START:
            return
        self.steps += 1
        kept = (1 - 1 / self.steps) ** (_EMA_EXPONENT + 1) if self._kind == "ema" else 1 - 1 / self.steps
        self._add(tf.constant(1 - kept, tf.float32))

    @property
    def values(self) -> list[NDArray[Any]]:
        """The averages, in an order that depends on the network alone; empty before the first step."""
        return [average.numpy() for average in self._averages] if self.steps > 0 else []

    @contextlib.contextmanager
    def applied(self, batches: Callable[[], Iterable[Images]]) -> Iterator[None]:
        """Gives the network the averaged weights within the block, and those it is trained with after it.

        Args:
            batches: Returns training images as the network sees them, uint8 (batch, height, width, 3), for the statistics of
                batch normalisation; called only where there are such layers.
        """
        if self.steps == 0:
            yield
            return
        statistics = [
            variable.value for layer in self._normalisations for variable in (layer.moving_mean, layer.moving_variance)
        ]
        changing = [*self._live, *statistics]
        trained = [variable.numpy() for variable in changing]
        try:
            for live, average in zip(self._live, self._averages, strict=True):
                live.assign(average)
            if self._normalisations:
                self._update_statistics(batches())
            yield
        finally:
            for variable, value in zip(changing, trained, strict=True):
                variable.assign(value)

    def _update_statistics(self, batches: Iterable[Images]) -> None:
        if self._reader is None:
            self._reader = BatchNormStatisticsReader(self._network, self._normalisations)
        for layer, (mean, variance) in zip(self._normalisations, self._reader.read(batches), strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
