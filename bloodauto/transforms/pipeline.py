"""Batches for training: shuffled, augmented and mixed while the network computes on the batch before."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.errors import DataError, RecipeError
from bloodauto.transforms.mixing import Pairing, mix_targets
from bloodauto.transforms.processes import PROCESSES_AVAILABLE, BatchAugmenter, WorkerPool
from bloodauto.types import Images, Rows, Scores, Targets, check_images


class Batch(NamedTuple):
    """One batch; a tuple as ``model.train_on_batch`` and ``model.fit`` take it.

    Attributes:
        images: uint8 (b, height, width, 3).
        targets: float32 (b, classes), distributions.
        weights: float32 (b,), sample weights.
    """

    images: Images
    targets: Targets
    weights: Scores


def _check_count(value: int, name: str, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise RecipeError(f"{name}: expected an integer of at least {minimum}, got {value!r}.")


@dataclass(frozen=True)
class BatchWorkers:
    """Who makes batches ahead, and how many.

    One thread suits a training on one core: it works while the network waits for a device. More threads hardly help, since
    Python's lock changes hands at every call of OpenCV; each process has its own lock.

    Attributes:
        num_threads: Threads that make batches ahead; 0: each batch is made when it is taken.
        num_processes: Processes that do so instead; 0: none. They start with the first epoch, in some tenths of a second. The
            policy must be one that another process can import. Where a process cannot inherit memory (Windows), as many
            threads.
        prefetch_batches: Finished batches kept ready beyond those in the making.

    Raises:
        RecipeError: A number is not an integer of at least 0.
    """

    num_threads: int = 1
    num_processes: int = 0
    prefetch_batches: int = 2

    def __post_init__(self) -> None:
        for name in ("num_threads", "num_processes", "prefetch_batches"):
            _check_count(getattr(self, name), name, minimum=0)


class BatchPipeline:
    """Makes the batches of each epoch.

    What a batch holds depends on the seed, the epoch's number and the batch's index alone: not on the number of threads or
    processes, nor on which epochs were made before. All batches have one size; images that are left over at the end of an
    epoch are not used in it. At most ``num_threads + prefetch_batches`` batches exist at a time, with processes
    ``2 * num_processes + prefetch_batches`` and the memory of a batch for each, so memory does not grow with the epochs.

    Sets OpenCV to one thread in this process: the pipeline's threads or processes, and the trainings beside this one, are
    the parallel ones.

    Args:
        images: uint8 (n, height, width, 3), RGB; not copied and never written.
        targets: (n, classes), each row a distribution, for instance one-hot.
        augmenter: What is done to the images, and the seed.
        batch_size: Images in each batch.
        sample_weights: (n,), 0 or more; None: all 1.
        order: The number of an epoch -> the images it visits, int (m,), in their order, as many in every epoch; None: all of
            them, shuffled.
        workers: Who makes batches ahead.
        clock: What waiting is measured with.

    Attributes:
        wait_seconds: How long the consumer has waited for batches, over all epochs.
        batches_per_epoch: How many batches an epoch has.

    Raises:
        DataError: Arrays of other shapes or types.
        RecipeError: A batch size below 1.

    Example:
        >>> images, targets = np.zeros((10, 8, 8, 3), np.uint8), np.eye(2, dtype=np.float32)[[0, 1] * 5]
        >>> pipeline = BatchPipeline(images, targets, BatchAugmenter(seed=0), batch_size=4)
        >>> [batch.images.shape for batch in pipeline.epoch(1)]
        [(4, 8, 8, 3), (4, 8, 8, 3)]
    """

    def __init__(
        self,
        images: Images,
        targets: Targets,
        augmenter: BatchAugmenter,
        *,
        batch_size: int,
        sample_weights: Scores | None = None,
        order: Callable[[int], Rows] | None = None,
        workers: BatchWorkers | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_images(images, "BatchPipeline")
        if targets.ndim != 2 or len(targets) != len(images):
            raise DataError(f"BatchPipeline: expected targets as ({len(images)}, classes), got {targets.shape}.")
        if sample_weights is not None and sample_weights.shape != (len(images),):
            raise DataError(f"BatchPipeline: expected sample_weights as ({len(images)},), got {sample_weights.shape}.")
        _check_count(batch_size, "batch_size", minimum=1)
        workers = BatchWorkers() if workers is None else workers
        cv2.setNumThreads(1)
        self._images = images
        self._targets = np.ascontiguousarray(targets, dtype=np.float32)
        self._weights = (np.ones(len(images)) if sample_weights is None else sample_weights).astype(np.float32)
        self._augmenter = augmenter
        self._batch_size = batch_size
        self._order_of_epoch = order
        self._num_processes = workers.num_processes if PROCESSES_AVAILABLE else 0
        self._num_threads = (
            workers.num_threads if self._num_processes == workers.num_processes else workers.num_processes
        )
        self._prefetch_batches = workers.prefetch_batches
        self._worker_pool: WorkerPool | None = None
        self._clock = clock
        self.batches_per_epoch = (len(images) if order is None else len(order(1))) // batch_size
        self.wait_seconds = 0.0

    def epoch(self, number: int, first_batch: int = 0) -> Generator[Batch]:
        """The batches of one epoch, in order; closing the iterator early stops the threads.

        Args:
            number: The number of the epoch.
            first_batch: Index of the first batch that is made: those before it were used by an earlier session.

        Yields:
            The batches.

        Raises:
            RunError: A process that augments has ended.
            Exception: What the policy raised.
        """
        order = self._order(number)
        rows = {
            index: order[index * self._batch_size : (index + 1) * self._batch_size]
            for index in range(first_batch, self.batches_per_epoch)
        }
        if self._num_processes > 0 and (
            self._worker_pool is None or self._worker_pool.closed or self._worker_pool.idle
        ):
            yield from self._epoch_by_processes(rows, number)
        # An epoch that begins while the processes are busy with another is made here as well.
        elif self._num_threads == 0 or self._num_processes > 0:
            for batch_index, batch_rows in rows.items():
                with self._waiting():
                    batch = self._augmented(batch_rows, number, batch_index)
                yield batch
        else:
            yield from self._epoch_by_threads(rows, number)

    def close(self) -> None:
        """Ends the processes, if there are any; another epoch starts them again."""
        if self._worker_pool is not None:
            self._worker_pool.close()

    def _epoch_by_threads(self, rows: dict[int, Rows], epoch: int) -> Generator[Batch]:
        pool = ThreadPoolExecutor(self._num_threads, thread_name_prefix="augment")
        try:
            ahead: deque[Future[Batch]] = deque()
            for batch_index, batch_rows in rows.items():
                ahead.append(pool.submit(self._augmented, batch_rows, epoch, batch_index))
                if len(ahead) >= self._num_threads + self._prefetch_batches:
                    yield self._result(ahead.popleft())
            while ahead:
                yield self._result(ahead.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _epoch_by_processes(self, rows: dict[int, Rows], epoch: int) -> Generator[Batch]:
        slots = 2 * self._num_processes + self._prefetch_batches
        if self._worker_pool is None or self._worker_pool.closed:
            self._worker_pool = WorkerPool(
                self._augmenter,
                num_processes=self._num_processes,
                num_slots=slots,
                batch_shape=(self._batch_size, *self._images.shape[1:]),
            )
        pool = self._worker_pool

        def take(batch_rows: Rows, request_id: int) -> Batch:
            with self._waiting():
                images, pairing = pool.take(request_id)
            return self._batch(images, pairing, batch_rows)

        ahead: deque[tuple[Rows, int]] = deque()
        try:
            for batch_index, batch_rows in rows.items():
                ahead.append((batch_rows, pool.request(self._images, batch_rows, epoch, batch_index)))
                if len(ahead) == slots:
                    yield take(*ahead.popleft())
            while ahead:
                yield take(*ahead.popleft())
        finally:
            for _, request_id in ahead:
                pool.drop(request_id)

    @contextlib.contextmanager
    def _waiting(self) -> Generator[None]:
        """Adds the time that passes inside to ``wait_seconds``."""
        started = self._clock.now()
        yield
        self.wait_seconds += self._clock.now() - started

    def _result(self, future: Future[Batch]) -> Batch:
        with self._waiting():
            return future.result()

    def _order(self, epoch: int) -> Rows:
        if self._order_of_epoch is not None:
            return self._order_of_epoch(epoch)
        rng = np.random.default_rng(np.random.SeedSequence(self._augmenter.seed, spawn_key=(epoch,)))
        return rng.permutation(len(self._images))

    def _augmented(self, rows: Rows, epoch: int, batch_index: int) -> Batch:
        images, pairing = self._augmenter.augment([self._images[i] for i in rows.tolist()], epoch, batch_index)
        return self._batch(images, pairing, rows)

    def _batch(self, images: Images, pairing: Pairing | None, rows: Rows) -> Batch:
        targets, weights = self._targets[rows], self._weights[rows]
        if pairing is not None:
            targets, weights = mix_targets(targets, weights, pairing)
        return Batch(images, targets, weights)
