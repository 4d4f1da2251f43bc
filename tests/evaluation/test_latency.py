"""One timer, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from bloodauto.clock import SimulatedClock
from bloodauto.config.recipe import Recipe
from bloodauto.evaluation.inference import BATCH_SIZE
from bloodauto.evaluation.latency import (
    batch_latency_ms,
    median_seconds,
    recipe_latency_ms,
    single_image_latency_ms,
)


class TickingClock(SimulatedClock):
    """Later by a step at every reading."""

    def __init__(self, step_seconds: float) -> None:
        super().__init__()
        self._step_seconds = step_seconds

    def now(self) -> float:
        self.advance(self._step_seconds)
        return super().now()


def test_the_median_leaves_warm_up_calls_and_outliers_out() -> None:
    clock = SimulatedClock()
    durations = iter([50.0, 60.0, 1.0, 100.0, 2.0])
    seconds = median_seconds(lambda: clock.advance(next(durations)), clock=clock, repeats=3, warmup=2)
    assert seconds == 2.0


@pytest.fixture(scope="module")
def network() -> keras.Model:
    images = keras.Input((4, 4, 3), dtype="uint8")
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))


def test_batches_are_filled_and_shared_by_their_images(network: keras.Model) -> None:
    latency_ms = batch_latency_ms(network, np.zeros((3, 4, 4, 3), np.uint8), clock=TickingClock(0.064))
    assert latency_ms == pytest.approx(64 / BATCH_SIZE)


def test_a_single_image_has_a_latency_of_its_own(network: keras.Model) -> None:
    assert single_image_latency_ms(network, clock=TickingClock(0.002)) == pytest.approx(2.0)


def test_the_network_of_a_recipe_need_not_be_trained(recipe_of: Callable[..., Recipe]) -> None:
    latency_ms = recipe_latency_ms(recipe_of(), num_classes=3, image_shape_px=(32, 32), clock=TickingClock(0.003))
    assert latency_ms == pytest.approx(3.0)
