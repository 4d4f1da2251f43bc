"""The batch pipeline: the same batches whatever the threads, every image visited, labels with their images."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from bloodauto.errors import DataError, RecipeError
from bloodauto.transforms import Batch, BatchPipeline, CutMix, MixUp, Policy, RandAugment, Sequence, Symmetries

POLICY = Sequence((Symmetries(), RandAugment(3, 0.5, operations="cells")))


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """50 images whose level is their number, of three classes of 30, 15 and 5."""
    images = np.broadcast_to(np.arange(50, dtype=np.uint8)[:, None, None, None], (50, 12, 12, 3)).copy()
    return images, np.eye(3)[np.repeat([0, 1, 2], [30, 15, 5])]


def batches(data, **settings) -> list[Batch]:
    epoch = settings.pop("epoch", 0)
    return list(BatchPipeline(*data, **{"batch_size": 8, "policy": None, "seed": 1} | settings).epoch(epoch))


def together(parts: list[Batch]) -> Batch:
    return Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@pytest.mark.parametrize("mixing", [None, MixUp(1.0), CutMix(1.0, rate=0.5)])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_batches_however_many_threads(data, mixing, threads):
    expected = batches(data, policy=POLICY, mixing=mixing, num_threads=0, epoch=4)
    got = batches(data, policy=POLICY, mixing=mixing, num_threads=threads, prefetch_batches=5, epoch=4)
    for one, other in zip(expected, got, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype


def test_an_epoch_does_not_depend_on_the_ones_before(data):
    pipeline = BatchPipeline(*data, batch_size=8, policy=POLICY, seed=1)
    first = [together(list(pipeline.epoch(number))) for number in (0, 1, 2)]
    np.testing.assert_array_equal(together(list(pipeline.epoch(1))).images, first[1].images)
    assert (first[0].targets != first[1].targets).any()
    other_seed = BatchPipeline(*data, batch_size=8, policy=POLICY, seed=2)
    assert (together(list(other_seed.epoch(0))).images != first[0].images).any()


#: Moves pixels only, so images of one level stay what they are.
MOVES = RandAugment(3, 0.8, operations=("rotate_any", "shear_x", "zoom", "flip_vertical", "translate"))


@pytest.mark.parametrize("policy", [None, MOVES])
@pytest.mark.parametrize("last_batch", ["short", "drop", "fill"])
def test_every_image_once_with_its_label(data, last_batch, policy):
    parts = batches(data, last_batch=last_batch, policy=policy, num_threads=2)
    whole = together(parts)
    numbers = whole.images[:, 0, 0, 0]
    np.testing.assert_array_equal(whole.targets, data[1][numbers])
    assert len(parts) == {"short": 7, "drop": 6, "fill": 7}[last_batch]
    assert {len(part.images) for part in parts[:-1]} == {8}
    assert len(parts[-1].images) == {"short": 2, "drop": 8, "fill": 8}[last_batch]
    weighing = numbers[whole.weights > 0]
    assert len(weighing) == len(set(weighing.tolist())) == {"short": 50, "drop": 48, "fill": 50}[last_batch]
    assert not np.array_equal(numbers, np.sort(numbers))
    assert [array.dtype for array in whole] == [np.uint8, np.float32, np.float32]


def test_fewer_images_than_a_batch(data):
    images, targets = data[0][:3], data[1][:3]
    assert [len(b.images) for b in batches((images, targets), last_batch="short")] == [3]
    assert batches((images, targets), last_batch="drop") == []
    (filled,) = batches((images, targets), last_batch="fill")
    assert filled.weights.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_weights_and_order_are_kept_without_shuffling(data):
    weights = np.linspace(0, 1, 50)
    whole = together(batches(data, shuffle=False, sample_weights=weights))
    np.testing.assert_array_equal(whole.images[:, 0, 0, 0], np.arange(50))
    np.testing.assert_allclose(whole.weights, weights, rtol=1e-6)


@dataclass(frozen=True)
class Slow(Policy):
    """Takes its time for each batch, outside Python's lock, and counts how many batches are being made."""

    seconds: float

    def draw(self, count, height, width, rng):
        time.sleep(self.seconds)
        return [[] for _ in range(count)]


def test_waiting_is_measured_and_prefetching_saves_it(data):
    def run(num_threads: int) -> float:
        pipeline = BatchPipeline(*data, batch_size=8, policy=Slow(0.02), seed=0, num_threads=num_threads)
        for _ in pipeline.epoch(0):
            time.sleep(0.03)
        return pipeline.wait_seconds

    assert run(num_threads=0) >= 7 * 0.02
    # Only the first batch has to be waited for; the rest is made while the consumer computes.
    assert run(num_threads=1) < 4 * 0.02


def test_waiting_adds_up_over_epochs(data):
    pipeline = BatchPipeline(*data, batch_size=25, policy=Slow(0.01), seed=0, num_threads=0)
    list(pipeline.epoch(0))
    once = pipeline.wait_seconds
    list(pipeline.epoch(1))
    assert pipeline.wait_seconds >= once + 2 * 0.01


def test_leaving_an_epoch_early_stops_its_threads(data):
    pipeline = BatchPipeline(*data, batch_size=2, policy=Slow(0.005), seed=0, num_threads=2)
    epoch = pipeline.epoch(0)
    next(epoch)
    assert any(thread.name.startswith("augment") for thread in threading.enumerate())
    epoch.close()
    assert not any(thread.name.startswith("augment") for thread in threading.enumerate())


def test_memory_does_not_grow_with_the_epochs(data):
    pipeline = BatchPipeline(*data, batch_size=8, policy=POLICY, mixing=MixUp(), seed=0, num_threads=2)

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
def test_keras_trains_on_it(data):
    import keras

    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    pipeline = BatchPipeline(*data, batch_size=8, policy=POLICY, seed=0, last_batch="fill")
    history = model.fit(pipeline.epoch(0), steps_per_epoch=pipeline.batches_per_epoch, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(model.train_on_batch(*next(pipeline.epoch(1))))


@dataclass(frozen=True)
class Broken(Policy):
    def draw(self, count, height, width, rng):
        raise ValueError("no draw")


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_reach_the_consumer(data, threads):
    with pytest.raises(ValueError, match="no draw"):
        batches(data, policy=Broken(), num_threads=threads)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 0}, RecipeError, "batch_size: expected an integer of at least 1, got 0"),
        ({"num_threads": -1}, RecipeError, "num_threads"),
        ({"last_batch": "pad"}, RecipeError, "short, drop or fill"),
        ({"sample_weights": np.ones(3)}, DataError, r"sample_weights as \(50,\)"),
    ],
)
def test_mistakes_are_told(data, changes, error, message):
    with pytest.raises(error, match=message):
        batches(data, **changes)
    with pytest.raises(DataError, match=r"targets as \(50, classes\)"):
        batches((data[0], data[1][:4]))
    with pytest.raises(DataError, match="uint8"):
        batches((data[0].astype(float), data[1]))
