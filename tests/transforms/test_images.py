"""Memory of batches is used again when, and only when, nobody refers to it."""

from __future__ import annotations

import threading

import numpy as np

from bloodauto.config.recipe import RandAugmentSettings
from bloodauto.transforms import RandAugment
from bloodauto.transforms.images import empty_batch
from bloodauto.types import Images

SHAPE = (3, 17, 19, 3)


def address(array: Images) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_writable_contiguous_and_of_the_shape() -> None:
    array = empty_batch(SHAPE)
    assert array.shape == SHAPE
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert empty_batch((0, 4, 4, 3)).shape == (0, 4, 4, 3)


def test_memory_is_used_again_once_the_last_slice_is_gone() -> None:
    first = empty_batch(SHAPE)
    first[:] = 1
    first_address = address(first)
    slices = first[1:, ::2]
    del first
    others = [empty_batch(SHAPE) for _ in range(12)]
    assert first_address not in {address(array) for array in others}
    for array in others:
        array[:] = 9
    assert (slices == 1).all()
    del slices
    assert first_address in {address(array) for array in [empty_batch(SHAPE) for _ in range(12)]}


def test_batches_that_are_kept_are_not_written_by_later_ones() -> None:
    images = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    policy = RandAugment(RandAugmentSettings(num_ops=2, magnitude=0.5))
    kept = [policy(images, np.random.default_rng(seed)) for seed in range(20)]
    repeated = [policy(images, np.random.default_rng(seed)) for seed in range(20)]
    for first, second in zip(kept, repeated, strict=True):
        np.testing.assert_array_equal(first, second)


def test_threads_never_get_the_same_memory() -> None:
    clashes = []

    def work(number: int) -> None:
        for _ in range(300):
            array = empty_batch(SHAPE)
            array[:] = number
            if not (array == number).all():
                clashes.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes
