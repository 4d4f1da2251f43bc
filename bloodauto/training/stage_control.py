"""What steers a stage while it trains: the clock, the learning rate before each step, a clean stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from bloodauto.clock import Clock
from bloodauto.config.recipe import Stage
from bloodauto.training.averaging import WeightAverage
from bloodauto.training.limits import ScheduleProgress
from bloodauto.training.optimizers import learning_rate_factor


class ProgressClock:
    """How much of the whole recipe is done: by steps, or by time where that is further.

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
        self._progress = ScheduleProgress(stage_ends, training_seconds=training_seconds, done=done)
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

    def tick(self) -> None:
        """Counts a step."""
        self._progress.advance(self._step_fraction)

    def end_stage(self, stage: int) -> None:
        """Skips the rest of a stage."""
        self._progress.end_stage(stage)

    @property
    def progress(self) -> float:
        """The fraction of the recipe that is done, 0-1."""
        return self._progress.fraction(self._elapsed_seconds)

    def stage_progress(self, stage: int) -> float:
        """The fraction of a stage that is done; 1 or more at its end."""
        return self._progress.stage_fraction(stage, self._elapsed_seconds)


class StageControl(keras.callbacks.Callback):
    """Sets the learning rate before each batch and averages weights after it; ends the epoch when told to, or in time.

    Args:
        settings: the stage; ``stage`` is its number.
        rate_factor: what the epochs before make of the learning rate (1 but for a plateau).
        should_stop: asked after every batch.

    Attributes:
        stopped: it was told to stop.
    """

    def __init__(
        self,
        settings: Stage,
        stage: int,
        *,
        clock: ProgressClock,
        average: WeightAverage | None,
        rate_factor: float,
        should_stop: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._settings, self._stage, self._clock, self._average = settings, stage, clock, average
        self._rate = settings.optimizer.learning_rate * rate_factor
        self._should_stop = should_stop
        self.stop_requested = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        factor = learning_rate_factor(self._settings.schedule, self._clock.stage_progress(self._stage))
        self.model.optimizer.learning_rate.assign(self._rate * factor)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._clock.tick()
        progress = self._clock.stage_progress(self._stage)
        if self._average is not None:
            self._average.add_step(progress)
        # An exception here would skip Keras' own cleaning up; the flag does not.
        if self._should_stop():
            self.stop_requested = True
            self.model.stop_training = True
        elif progress >= 1.0:
            self.model.stop_training = True
