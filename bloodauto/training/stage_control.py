"""What steers a stage while it trains: the clock, the learning rate before each step, a clean stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras

from bloodauto.config.recipe import Stage
from bloodauto.training.averaging import WeightAverage
from bloodauto.training.optimizers import learning_rate_factor


class ProgressClock:
    """How much of the whole recipe is done: by steps, or by time where that is further.

    Args:
        total_steps: of the whole recipe.
        stage_ends: the share of the recipe that is done when each stage ends, the last being 1.
        time_limit_seconds: from now to the end; None: steps alone count.
        progress, seconds: what an earlier session did of it.
    """

    def __init__(
        self,
        total_steps: int,
        stage_ends: list[float],
        time_limit_seconds: float | None,
        progress: float,
        seconds: float,
    ) -> None:
        self._step = 1 / total_steps
        self._bounds = [0.0, *stage_ends]
        self._limit = time_limit_seconds
        self._start = self._by_steps = progress
        self._before = seconds
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def tick(self) -> None:
        """Counts a step."""
        self._by_steps += self._step

    def end_stage(self, stage: int) -> None:
        """Leaves out what is left of a stage."""
        self._by_steps = max(self._by_steps, self._bounds[stage + 1])

    @property
    def progress(self) -> float:
        """The share of the recipe that is done, 0-1."""
        by_time = 0.0
        if self._limit is not None:
            elapsed = time.monotonic() - self._started
            by_time = self._start + (1 - self._start) * elapsed / max(self._limit, 1e-9)
        return min(max(self._by_steps, by_time), 1.0)

    def stage_progress(self, stage: int) -> float:
        """The share of a stage that is done; 1 or more at its end."""
        start, end = self._bounds[stage], self._bounds[stage + 1]
        # A millionth of slack: sums of steps do not reach a whole number exactly.
        return (self.progress + 1e-6 - start) / (end - start)


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
