"""One epoch of Keras' ``fit`` on the batches of a pipeline: learning rate, weight averages, time and stop between batches."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bloodauto.clock import Clock
from bloodauto.config.recipe import Stage
from bloodauto.models.initial_weights import dropout_state, reseed_dropout
from bloodauto.run.artifacts import Checkpoint
from bloodauto.training.averaging import WeightAverage
from bloodauto.training.distillation import Batches
from bloodauto.training.limits import ScheduleProgress
from bloodauto.training.optimizers import learning_rate_factor
from bloodauto.transforms import Batch
from bloodauto.types import Images

#: Batches that TensorFlow prefetches, beside those that the pipeline prepares ahead.
_PREFETCHED_BATCHES = 2
#: Images from which a channel's mean and variance are known well enough.
_STATISTICS_IMAGES = 1024


class TrainingProgress:
    """How much of a recipe is done, by steps, or by time where that is further; and the seconds it took.

    Args:
        total_steps: Steps of the whole recipe.
        stage_ends: The fraction of the recipe that is done when each stage ends, the last being 1.
        training_seconds: Seconds from now to the end of the schedule; None: steps alone count.
        done: The fraction of the recipe that an earlier session did, 0-1.
        seconds: Training time of earlier sessions.
        clock: Measures the time since now.
    """

    def __init__(
        self,
        total_steps: int,
        stage_ends: Sequence[float],
        *,
        training_seconds: float | None,
        done: float,
        seconds: float,
        clock: Clock,
    ) -> None:
        self._step_fraction = 1 / total_steps
        self._schedule = ScheduleProgress(stage_ends, training_seconds=training_seconds, done=done)
        self._earlier_seconds = seconds
        self._clock = clock
        self._started_at = clock.now()

    @property
    def _elapsed_seconds(self) -> float:
        return self._clock.now() - self._started_at

    @property
    def seconds(self) -> float:
        """Training time so far, that of earlier sessions included."""
        return self._earlier_seconds + self._elapsed_seconds

    @property
    def fraction(self) -> float:
        """The fraction of the recipe that is done, 0-1."""
        return self._schedule.fraction(self._elapsed_seconds)

    def stage_fraction(self, stage: int) -> float:
        """The fraction of a stage that is done; 1 or more at its end.

        Args:
            stage: Its index.
        """
        return self._schedule.stage_fraction(stage, self._elapsed_seconds)

    def count_step(self) -> None:
        """Counts a training step."""
        self._schedule.advance(self._step_fraction)

    def end_stage(self, stage: int) -> None:
        """Skips the rest of a stage.

        Args:
            stage: Its index.
        """
        self._schedule.end_stage(stage)


@dataclass(frozen=True)
class EpochPosition:
    """Where within an epoch a training goes on.

    Attributes:
        steps: How many steps of the epoch are done.
        metrics: The running means of loss and accuracy, as ``Checkpoint`` has them; empty at the epoch's start.
        dropout: The states of dropout's generators, likewise.

    Example:
        >>> EpochPosition().steps
        0
    """

    steps: int = 0
    metrics: tuple[NDArray[Any], ...] = ()
    dropout: tuple[NDArray[Any], ...] = ()

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint | None) -> EpochPosition:
        """Where a checkpoint was written; the epoch's start where there is none.

        Args:
            checkpoint: Of the training.
        """
        if checkpoint is None:
            return cls()
        return cls(checkpoint.epoch_steps, checkpoint.epoch_metrics, checkpoint.dropout)

    @classmethod
    def of_model(cls, model: keras.Model, steps: int) -> EpochPosition:
        """Where a model in training is.

        Args:
            model: Compiled.
            steps: How many steps of the epoch are done.
        """
        metrics = tuple(np.asarray(variable) for variable in model.metrics_variables)
        return cls(steps, metrics, tuple(np.asarray(variable) for variable in dropout_state(model)))

    def restore(self, model: keras.Model) -> None:
        """Gives a model the means and the generators' states; at the epoch's start it keeps its own.

        Args:
            model: Compiled.
        """
        if self.steps > 0:
            pairs = ((model.metrics_variables, self.metrics), (dropout_state(model), self.dropout))
            for variables, values in pairs:
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)


class StageControl(keras.callbacks.Callback):
    """Sets the learning rate before each batch, and averages weights, counts time and checks for a stop after it.

    Args:
        settings: The stage.
        stage: Its index.
        progress: Is told of every step, and says how much of the stage is done.
        average: Is told of every step; None: the weights are not averaged over steps.
        rate_factor: Factor on the learning rate that follows from earlier epochs: 1 but for a plateau.
        should_stop: Called after every batch.
        start: Where within the epoch the training goes on.
        after_step: Called after every batch after which the epoch goes on, with the epoch's steps so far.

    Attributes:
        stop_requested: Whether ``should_stop`` returned True.
        steps: How many steps were done, without those before ``start``.
    """

    def __init__(
        self,
        settings: Stage,
        stage: int,
        *,
        progress: TrainingProgress,
        average: WeightAverage | None,
        rate_factor: float,
        should_stop: Callable[[], bool],
        start: EpochPosition,
        after_step: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.start, self._after_step = start, after_step
        self._settings, self._stage, self._progress, self._average = settings, stage, progress, average
        self._rate = settings.optimizer.learning_rate * rate_factor
        self._should_stop = should_stop
        self.stop_requested = False
        self.steps = 0

    @property
    def is_stage_over(self) -> bool:
        """Whether the stage ends here, whatever is left of the epoch."""
        return self._progress.stage_fraction(self._stage) >= 1.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Goes on with the epoch's means; Keras has just reset them."""
        self.start.restore(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the learning rate."""
        factor = learning_rate_factor(self._settings.schedule, self._progress.stage_fraction(self._stage))
        self.model.optimizer.learning_rate.assign(self._rate * factor)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Averages the weights, and ends the epoch at the end of the stage or when a stop is requested."""
        self._progress.count_step()
        self.steps += 1
        stage_fraction = self._progress.stage_fraction(self._stage)
        if self._average is not None:
            self._average.add_step(stage_fraction)
        # An exception here would skip Keras' own clean-up; the flag does not.
        if self._should_stop():
            self.stop_requested = True
            self.model.stop_training = True
        elif stage_fraction >= 1.0:
            self.model.stop_training = True
        else:
            self._after_step(self.start.steps + self.steps)


def fit_epoch(network: keras.Model, pipeline: Batches, control: StageControl, epoch: int) -> tuple[float, float]:
    """Trains for an epoch, or for what is left of it, or until ``control`` ends it.

    Args:
        network: Compiled.
        pipeline: Its batches.
        control: Steers and ends the epoch.
        epoch: Its number, 1-based over all stages.

    Returns:
        Mean loss and accuracy over the epoch's batches, on augmented images and with the weights as they were at each batch.
    """
    reseed_dropout(network, epoch)
    first_batch = control.start.steps
    if first_batch == pipeline.batches_per_epoch or (first_batch > 0 and control.is_stage_over):
        # Only its evaluation is missing.
        control.start.restore(network)
        means = network.get_metrics_result()
        return float(means["loss"]), float(means["accuracy"])
    batches = pipeline.epoch(epoch, first_batch)
    try:
        logs = network.fit(
            as_tf_dataset(batches),
            steps_per_epoch=pipeline.batches_per_epoch - first_batch,
            epochs=1,
            verbose=0,
            shuffle=False,
            callbacks=[control],
        ).history
    finally:
        # TensorFlow may still be prefetching a batch; its thread then closes the iterator itself.
        with contextlib.suppress(ValueError):
            batches.close()
    return float(logs["loss"][-1]), float(logs["accuracy"][-1])


def as_tf_dataset(batches: Iterator[Batch]) -> tf.data.Dataset:
    """The batches as a dataset of (images, targets, weights).

    Keras would wrap a generator in the same way, but leave autotuning on. Its thread sleeps for longer and longer, up to a
    minute, and the end of an epoch waits for it: measured, a fifth of the time of trainings whose epochs take a minute.

    Args:
        batches: At least one; the first tells shapes and dtypes.
    """
    first = next(batches)
    specs = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in first)
    all_batches = itertools.chain((first,), batches)
    dataset = tf.data.Dataset.from_generator(lambda: map(tuple, all_batches), output_signature=specs)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(_PREFETCHED_BATCHES).with_options(options)


def first_images(pipeline: Batches, epoch: int) -> Iterator[Images]:
    """The images of an epoch's first batches, about a thousand in all.

    Args:
        pipeline: Gives the batches.
        epoch: The epoch's number, 1-based over all stages.

    Yields:
        Images of a batch, uint8 (batch, height, width, 3).
    """
    batches, count = pipeline.epoch(epoch), 0
    try:
        for batch in batches:
            yield np.asarray(batch.images)
            count += len(batch.weights)
            if count >= _STATISTICS_IMAGES:
                return
    finally:
        batches.close()
