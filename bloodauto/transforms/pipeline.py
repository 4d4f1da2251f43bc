"""Batches for training: shuffled, augmented and mixed while the network computes on the batch before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

import cv2
import numpy as np

from bloodauto.errors import DataError, RecipeError
from bloodauto.transforms.mixing import Mixing, Pairing, mix_targets
from bloodauto.transforms.policies import BatchPolicy, check_count
from bloodauto.transforms.processes import PROCESSES_AVAILABLE, BatchMaker, WorkerPool
from bloodauto.types import check_images

LastBatch = Literal["short", "drop", "fill"]


class Batch(NamedTuple):
    """One batch; a tuple as ``model.train_on_batch`` and ``model.fit`` take it.

    Attributes:
        images: uint8 (b, height, width, 3); a tensor on the device if the policy leaves it there.
        targets: float32 (b, classes), distributions.
        weights: float32 (b,), sample weights.
    """

    images: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class BatchPipeline:
    """Makes the batches of each epoch.

    What a batch holds depends on the seed, the epoch's number and the batch's place alone: not on the number of threads or
    processes, nor on which epochs were made before. At most ``num_threads + prefetch_batches`` batches exist at a time,
    with processes ``2 * num_processes + prefetch_batches`` and a batch's memory for each, so memory does not grow with
    the epochs.

    One thread suits a trial with one core: it fills the time in which the network waits for a device. More threads hardly
    help, since Python's lock changes hands at every call of OpenCV; processes have locks of their own. They start with
    the first epoch, in some tenths of a second, and end with the pipeline, or when it is closed.

    Sets OpenCV to one thread in this process: the pipeline's threads or processes, and the trials beside this one, are
    the parallel ones.

    Args:
        images: uint8 (n, height, width, 3), RGB; not copied and never written.
        targets: (n, classes), each row a distribution, for instance one-hot.
        batch_size: images in each batch.
        policy: what is done to each image; None for nothing.
        mixing: how images of a batch are joined; None for not at all.
        seed: of shuffling, drawing and mixing.
        num_threads: threads that make batches ahead; 0 makes each batch when it is asked for.
        num_processes: processes that do so in the threads' place; 0 for none. The policy must be one that another process
            can import, and leave its images in memory. Where a process cannot inherit memory (Windows) as many threads.
        prefetch_batches: finished batches kept ready beyond those in the making.
        sample_weights: (n,); all 1 when None.
        shuffle: whether an epoch visits the images in a drawn order.
        order: which images an epoch visits, by its number, int (m,), in their order, as many in every epoch; takes the
            place of ``shuffle``.
        last_batch: what becomes of the images left over: a ``short`` batch, ``drop``, or ``fill``, a whole batch whose
            surplus images (the first of the epoch again) weigh nothing, so that every batch has one shape.

    Attributes:
        wait_seconds: how long the consumer has waited for batches, over all epochs.
        batches_per_epoch: how many batches an epoch has.

    Raises:
        DataError: arrays of other shapes or types.
        RecipeError: numbers out of their range.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        *,
        batch_size: int,
        policy: BatchPolicy | None,
        seed: int,
        mixing: Mixing | None = None,
        num_threads: int = 1,
        num_processes: int = 0,
        prefetch_batches: int = 2,
        sample_weights: np.ndarray | None = None,
        shuffle: bool = True,
        order: Callable[[int], np.ndarray] | None = None,
        last_batch: LastBatch = "short",
    ) -> None:
        check_images(images, "BatchPipeline")
        if targets.ndim != 2 or len(targets) != len(images):
            raise DataError(f"BatchPipeline: expected targets as ({len(images)}, classes), got {targets.shape}.")
        if sample_weights is not None and sample_weights.shape != (len(images),):
            raise DataError(f"BatchPipeline: expected sample_weights as ({len(images)},), got {sample_weights.shape}.")
        check_count(batch_size, "batch_size", minimum=1)
        check_count(num_threads, "num_threads", minimum=0)
        check_count(num_processes, "num_processes", minimum=0)
        check_count(prefetch_batches, "prefetch_batches", minimum=0)
        if last_batch not in ("short", "drop", "fill"):
            raise RecipeError(f"last_batch: expected short, drop or fill, got {last_batch!r}.")
        cv2.setNumThreads(1)
        self._images = images
        self._targets = np.ascontiguousarray(targets, dtype=np.float32)
        weights = np.ones(len(images)) if sample_weights is None else sample_weights
        self._weights = weights.astype(np.float32)
        self._batch_size = batch_size
        self._batch_maker = BatchMaker(policy, mixing, seed)
        self._seed = seed
        self._num_processes = num_processes if PROCESSES_AVAILABLE else 0
        self._num_threads = num_threads if PROCESSES_AVAILABLE or num_processes == 0 else num_processes
        self._worker_pool: WorkerPool | None = None
        self._prefetch_batches = prefetch_batches
        self._shuffle = shuffle
        self._order_fn = order
        self._last_batch = last_batch
        whole, rest = divmod(len(images) if order is None else len(order(1)), batch_size)
        self.batches_per_epoch = whole + (1 if rest and last_batch != "drop" else 0)
        self.wait_seconds = 0.0

    def epoch(self, number: int) -> Generator[Batch]:
        """The batches of one epoch, in order; closing the iterator early stops the threads."""
        order = self._order(number)
        if self._num_processes > 0 and (
            self._worker_pool is None or self._worker_pool.closed or self._worker_pool.idle
        ):
            yield from self._epoch_by_processes(order, number)
            return
        # Also an epoch that is begun while the processes are busy with another.
        if self._num_threads == 0 or self._num_processes > 0:
            for batch_index in range(self.batches_per_epoch):
                started = time.perf_counter()
                batch = self._make(order, number, batch_index)
                self.wait_seconds += time.perf_counter() - started
                yield batch
            return
        pool = ThreadPoolExecutor(self._num_threads, thread_name_prefix="augment")
        try:
            ahead: deque[Future[Batch]] = deque()
            for batch_index in range(self.batches_per_epoch):
                ahead.append(pool.submit(self._make, order, number, batch_index))
                if len(ahead) >= self._num_threads + self._prefetch_batches:
                    yield self._take(ahead)
            while ahead:
                yield self._take(ahead)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Ends the processes, if there are any; another epoch starts them again."""
        if self._worker_pool is not None:
            self._worker_pool.close()

    def _epoch_by_processes(self, order: np.ndarray, epoch: int) -> Generator[Batch]:
        slots = 2 * self._num_processes + self._prefetch_batches
        if self._worker_pool is None or self._worker_pool.closed:
            self._worker_pool = WorkerPool(
                self._batch_maker,
                num_processes=self._num_processes,
                num_slots=slots,
                batch_shape=(self._batch_size, *self._images.shape[1:]),
            )
        team = self._worker_pool

        def take(batch_index: int, request_id: int) -> Batch:
            started = time.perf_counter()
            images, pairing = team.take(request_id)
            self.wait_seconds += time.perf_counter() - started
            return self._mixed_batch(images, pairing, *self._index(order, batch_index))

        ahead: deque[tuple[int, int]] = deque()
        try:
            for batch_index in range(self.batches_per_epoch):
                ahead.append(
                    (batch_index, team.order(self._images, self._index(order, batch_index)[0], epoch, batch_index))
                )
                if len(ahead) == slots:
                    yield take(*ahead.popleft())
            while ahead:
                yield take(*ahead.popleft())
        finally:
            for _, request_id in ahead:
                team.drop(request_id)

    def _take(self, ahead: deque[Future[Batch]]) -> Batch:
        started = time.perf_counter()
        batch = ahead.popleft().result()
        self.wait_seconds += time.perf_counter() - started
        return batch

    def _order(self, epoch: int) -> np.ndarray:
        if self._order_fn is not None:
            return self._order_fn(epoch)
        if not self._shuffle:
            return np.arange(len(self._images))
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(epoch,)))
        return rng.permutation(len(self._images))

    def _index(self, order: np.ndarray, batch_index: int) -> tuple[np.ndarray, int]:
        """Which images the batch at a place is made of, and how many of them count."""
        index = order[batch_index * self._batch_size : (batch_index + 1) * self._batch_size]
        real = len(index)
        if self._last_batch == "fill" and real < self._batch_size:
            index = np.concatenate([index, np.resize(order, self._batch_size - real)])
        return index, real

    def _make(self, order: np.ndarray, epoch: int, batch_index: int) -> Batch:
        index, real = self._index(order, batch_index)
        images, pairing = self._batch_maker.make([self._images[i] for i in index.tolist()], epoch, batch_index)
        return self._mixed_batch(images, pairing, index, real)

    def _mixed_batch(self, images: np.ndarray, pairing: Pairing | None, index: np.ndarray, real: int) -> Batch:
        targets, weights = self._targets[index], self._weights[index]
        weights[real:] = 0.0
        if pairing is not None:
            targets, weights = mix_targets(targets, weights, pairing)
        return Batch(images, targets, weights)
