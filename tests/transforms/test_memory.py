"""Memory of batches is used again when, and only when, nobody refers to it."""

from __future__ import annotations

import threading

import numpy as np

from bloodauto.transforms import RandAugment
from bloodauto.transforms.memory import empty_batch

SHAPE = (3, 17, 19, 3)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_writable_contiguous_and_of_the_shape():
    array = empty_batch(SHAPE)
    assert array.shape == SHAPE
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert empty_batch((0, 4, 4, 3)).shape == (0, 4, 4, 3)


def test_memory_is_used_again_once_the_last_view_is_gone():
    first = empty_batch(SHAPE)
    first[:] = 1
    where = address(first)
    view = first[1:, ::2]
    del first
    while_viewed = [empty_batch(SHAPE) for _ in range(12)]
    assert where not in {address(array) for array in while_viewed}
    for array in while_viewed:
        array[:] = 9
    assert (view == 1).all()
    del view
    assert where in {address(array) for array in [empty_batch(SHAPE) for _ in range(12)]}


def test_batches_that_are_kept_are_not_written_by_later_ones():
    images = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    policy = RandAugment(2, 0.5)
    kept = [policy(images, np.random.default_rng(seed)) for seed in range(20)]
    again = [policy(images, np.random.default_rng(seed)) for seed in range(20)]
    for before, after in zip(kept, again, strict=True):
        np.testing.assert_array_equal(before, after)


def test_threads_never_share_memory():
    clashes = []

    def work(number: int) -> None:
        for _ in range(300):
            mine = empty_batch(SHAPE)
            mine[:] = number
            if not (mine == number).all():
                clashes.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes
