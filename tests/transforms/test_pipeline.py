"""The batch pipeline: the same batches whatever the threads, every image visited, labels with their images."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest

from bloodauto.config.recipe import MixingSettings, RandAugmentSettings
from bloodauto.errors import DataError, RecipeError
from bloodauto.transforms import (
    Batch,
    BatchAugmenter,
    BatchMixing,
    BatchPipeline,
    BatchWorkers,
    PairMixing,
    Policy,
    RandAugment,
    Sequence,
    Symmetries,
)
from bloodauto.transforms.steps import Chain
from bloodauto.types import Images, Targets

Data: TypeAlias = tuple[Images, Targets]

POLICY = Sequence((Symmetries(), RandAugment(RandAugmentSettings(num_ops=3, magnitude=0.5, operations="cells"))))
MIXUP = PairMixing(MixingSettings(name="mixup", alpha=1.0))
CUTMIX = PairMixing(MixingSettings(name="cutmix", alpha=1.0, rate=0.5))


@pytest.fixture
def data() -> Data:
    """50 images whose level is their number, of three classes of 30, 15 and 5."""
    images = np.broadcast_to(np.arange(50, dtype=np.uint8)[:, None, None, None], (50, 12, 12, 3)).copy()
    return images, np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], [30, 15, 5])]


def batches(
    data: Data, policy: Policy | None = None, mixing: BatchMixing | None = None, *, epoch: int = 0, **settings: Any
) -> list[Batch]:
    settings = {"batch_size": 8} | settings
    return list(BatchPipeline(*data, BatchAugmenter(policy, mixing, seed=1), **settings).epoch(epoch))


def joined(parts: list[Batch]) -> Batch:
    return Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@pytest.mark.parametrize("mixing", [None, MIXUP, CUTMIX])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_batches_however_many_threads(data: Data, mixing: BatchMixing | None, threads: int) -> None:
    expected = batches(data, POLICY, mixing, workers=BatchWorkers(num_threads=0), epoch=4)
    results = batches(data, POLICY, mixing, workers=BatchWorkers(threads, prefetch_batches=5), epoch=4)
    for first, second in zip(expected, results, strict=True):
        for left, right in zip(first, second, strict=True):
            np.testing.assert_array_equal(left, right)
            assert np.asarray(left).dtype == np.asarray(right).dtype


def test_an_epoch_does_not_depend_on_the_ones_before(data: Data) -> None:
    pipeline = BatchPipeline(*data, BatchAugmenter(POLICY, seed=1), batch_size=8)
    first = [joined(list(pipeline.epoch(number))) for number in (0, 1, 2)]
    np.testing.assert_array_equal(joined(list(pipeline.epoch(1))).images, first[1].images)
    assert (first[0].targets != first[1].targets).any()
    other_seed = BatchPipeline(*data, BatchAugmenter(POLICY, seed=2), batch_size=8)
    assert (joined(list(other_seed.epoch(0))).images != first[0].images).any()


#: Moves pixels only, so images of one level stay as they are.
MOVES = RandAugment(
    RandAugmentSettings(
        num_ops=3, magnitude=0.8, operations=("rotate_any", "shear_x", "zoom", "flip_vertical", "translate")
    )
)


@pytest.mark.parametrize("policy", [None, MOVES])
def test_every_image_once_with_its_label_but_for_a_remainder(data: Data, policy: Policy | None) -> None:
    parts = batches(data, policy, workers=BatchWorkers(num_threads=2))
    epoch = joined(parts)
    numbers = epoch.images[:, 0, 0, 0]
    np.testing.assert_array_equal(epoch.targets, data[1][numbers])
    assert [len(part.images) for part in parts] == [8] * 6
    assert len(set(numbers.tolist())) == 48
    assert not np.array_equal(numbers, np.sort(numbers))
    assert [array.dtype for array in epoch] == [np.uint8, np.float32, np.float32]


def test_fewer_images_than_a_batch_make_none(data: Data) -> None:
    assert batches((data[0][:3], data[1][:3])) == []


def test_an_order_and_weights_are_kept(data: Data) -> None:
    weights = np.linspace(0, 1, 50)
    epoch = joined(batches(data, batch_size=10, order=lambda _: np.arange(50), sample_weights=weights))
    np.testing.assert_array_equal(epoch.images[:, 0, 0, 0], np.arange(50))
    np.testing.assert_allclose(epoch.weights, weights, rtol=1e-6)


@dataclass(frozen=True)
class SlowPolicy(Policy):
    """Takes its time for each batch, outside Python's lock."""

    seconds: float

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        time.sleep(self.seconds)
        return [[] for _ in range(count)]

    def max_strengths(self) -> Mapping[str, float]:
        return {}


def slow_pipeline(data: Data, seconds: float, num_threads: int, batch_size: int = 8) -> BatchPipeline:
    augmenter = BatchAugmenter(SlowPolicy(seconds), seed=0)
    return BatchPipeline(*data, augmenter, batch_size=batch_size, workers=BatchWorkers(num_threads))


def test_waiting_is_measured_and_prefetching_saves_it(data: Data) -> None:
    def run(num_threads: int) -> float:
        pipeline = slow_pipeline(data, 0.02, num_threads)
        for _ in pipeline.epoch(0):
            time.sleep(0.03)
        return pipeline.wait_seconds

    assert run(num_threads=0) >= 6 * 0.02
    # Only the first batch has to be waited for; the others are made while the consumer computes.
    assert run(num_threads=1) < 4 * 0.02


def test_waiting_adds_up_over_epochs(data: Data) -> None:
    pipeline = slow_pipeline(data, 0.01, num_threads=0, batch_size=25)
    list(pipeline.epoch(0))
    after_first = pipeline.wait_seconds
    list(pipeline.epoch(1))
    assert pipeline.wait_seconds >= after_first + 2 * 0.01


def test_leaving_an_epoch_early_stops_its_threads(data: Data) -> None:
    pipeline = slow_pipeline(data, 0.005, num_threads=2, batch_size=2)
    epoch = pipeline.epoch(0)
    next(epoch)
    assert any(thread.name.startswith("augment") for thread in threading.enumerate())
    epoch.close()
    assert not any(thread.name.startswith("augment") for thread in threading.enumerate())


def test_memory_does_not_grow_with_the_epochs(data: Data) -> None:
    pipeline = BatchPipeline(*data, BatchAugmenter(POLICY, MIXUP, seed=0), batch_size=8, workers=BatchWorkers(2))

    def held_bytes(epochs: range) -> int:
        for number in epochs:
            for _ in pipeline.epoch(number):
                pass
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        after_few = held_bytes(range(3))
        assert held_bytes(range(3, 40)) - after_few < 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_keras_trains_on_it(data: Data) -> None:
    import keras

    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    pipeline = BatchPipeline(*data, BatchAugmenter(POLICY, seed=0), batch_size=8)
    history = model.fit(pipeline.epoch(0), steps_per_epoch=pipeline.batches_per_epoch, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(model.train_on_batch(*next(pipeline.epoch(1))))


@dataclass(frozen=True)
class BrokenPolicy(Policy):
    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        raise ValueError("no draw")

    def max_strengths(self) -> Mapping[str, float]:
        return {}


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_reach_the_consumer(data: Data, threads: int) -> None:
    with pytest.raises(ValueError, match="no draw"):
        batches(data, BrokenPolicy(), workers=BatchWorkers(threads))


def test_wrong_numbers_and_arrays_are_refused(data: Data) -> None:
    with pytest.raises(RecipeError, match="batch_size: expected an integer of at least 1, got 0"):
        batches(data, batch_size=0)
    with pytest.raises(RecipeError, match="num_threads: expected an integer of at least 0, got -1"):
        BatchWorkers(num_threads=-1)
    with pytest.raises(DataError, match=r"sample_weights as \(50,\)"):
        batches(data, sample_weights=np.ones(3))
    with pytest.raises(DataError, match=r"targets as \(50, classes\)"):
        batches((data[0], data[1][:4]))
    with pytest.raises(DataError, match="uint8"):
        batches((data[0].astype(float), data[1]))
