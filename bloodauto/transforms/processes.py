"""Processes that augment batches beside the one that trains.

Python's lock lets one thread at a time run Python, and OpenCV releases and takes it again for every call of a few
microseconds, so that two threads that augment small images are hardly faster than one. Each process has its own lock.

A worker is a new Python process that imports NumPy, OpenCV, the recipe's settings and ``bloodauto.transforms``: it is not
forked from a process in which TensorFlow's threads run, and it does not run the caller's script again. Images go through
shared memory without a name, so nothing remains however either process ends; requests and results go through a pipe. A
worker ends when that pipe does, and so with the process that started it, also if that is killed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NamedTuple

import cv2
import numpy as np

from bloodauto.errors import RecipeError, RunError
from bloodauto.transforms.images import empty_batch
from bloodauto.transforms.mixing import BatchMixing, Pairing
from bloodauto.transforms.policies import BatchPolicy
from bloodauto.types import Image, Images, Rows

#: Whether processes can be started that inherit memory and a pipe.
PROCESSES_AVAILABLE = os.name == "posix"

_SHUTDOWN_SECONDS = 5.0


@dataclass(frozen=True)
class BatchAugmenter:
    """Makes a batch's images from its sources; what it draws depends on the seed, the epoch and the batch's index alone.

    Attributes:
        policy: What is done to each image; None: nothing.
        mixing: How the images are then joined; None: not at all.
        seed: The seed of both, and of the order of an epoch.
    """

    policy: BatchPolicy | None = None
    mixing: BatchMixing | None = None
    seed: int = 0

    def augment(self, images: Sequence[Image], epoch: int, batch_index: int) -> tuple[Images, Pairing | None]:
        """Makes one batch.

        Args:
            images: The sources, uint8 (height, width, 3) each, all of one size; not written.
            epoch: The number of the epoch.
            batch_index: The index of the batch in the epoch.

        Returns:
            uint8 (n, height, width, 3), a new array, and what was joined with what.
        """
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, batch_index)))
        augmented = np.stack(images) if self.policy is None else self.policy.batch(images, rng)
        return (augmented, None) if self.mixing is None else self.mixing.join(augmented, rng)


class _BatchRequest(NamedTuple):
    request_id: int
    slot: int
    num_images: int
    epoch: int
    batch_index: int


class _BatchResult(NamedTuple):
    request: _BatchRequest
    pairing: Pairing | None
    error: Exception | None


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    num_requests: int = 0


def _shared_memory(size: int) -> int:
    """A descriptor of ``size`` bytes of memory without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("batches")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def _slots(descriptor: int, shape: tuple[int, ...]) -> Images:
    return np.frombuffer(mmap.mmap(descriptor, int(np.prod(shape))), np.uint8).reshape(shape)


def _stop_workers(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        try:
            worker.process.wait(_SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


class WorkerPool:
    """Processes that make batches; to be used by one thread at a time.

    Args:
        augmenter: What each process does.
        num_processes: At least 1.
        num_slots: The most batches that may be requested and not yet taken; each uses the memory of one batch.
        batch_shape: The largest batch: images, height, width, 3.

    Raises:
        RecipeError: The policy or the mixing cannot be sent to another process.
    """

    def __init__(
        self, augmenter: BatchAugmenter, *, num_processes: int, num_slots: int, batch_shape: tuple[int, int, int, int]
    ) -> None:
        try:
            pickled = pickle.dumps(augmenter)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise RecipeError(
                f"num_processes: expected a policy that can be sent to another process, got one that cannot ({error}). "
                "Define its class at the top of a module, or use num_threads."
            ) from error
        shape = (num_slots, *batch_shape)
        memory = _shared_memory(int(np.prod(shape)))
        self._workers: list[_Worker] = []
        # Also when this process ends in an orderly way without having closed the pool.
        self._finalizer = weakref.finalize(self, _stop_workers, self._workers)
        try:
            self._slots = _slots(memory, shape)
            for _ in range(num_processes):
                self._workers.append(_start(memory, shape))
                self._workers[-1].connection.send_bytes(pickled)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(memory)
        self._free_slots = list(range(num_slots))
        self._last_request_id = 0
        #: What is requested, neither taken nor dropped; with its result once there is one.
        self._requests: dict[int, _BatchResult | None] = {}
        # Requests may be dropped at any time, by the collector of a generator that nothing refers to.
        self._bookkeeping_lock = threading.RLock()

    @property
    def closed(self) -> bool:
        """Whether its processes have been ended."""
        return not self._finalizer.alive

    @property
    def idle(self) -> bool:
        """Whether nothing is requested that may still be taken."""
        return not self._requests

    def request(self, images: Images, rows: Rows, epoch: int, batch_index: int) -> int:
        """Has a batch made.

        There must be fewer requests than slots, without those that were dropped.

        Args:
            images: uint8 (n, height, width, 3).
            rows: int (m,), the images of the batch.
            epoch: The number of the epoch.
            batch_index: The index of the batch in the epoch.

        Returns:
            The number to take the batch by.

        Raises:
            RunError: A process has ended.
        """
        assert len(self._requests) < len(self._slots), "expected fewer requests than slots"
        self._collect(timeout_seconds=0.0)
        while not self._free_slots:
            self._collect(timeout_seconds=None)
        slot = self._free_slots.pop()
        for target, row in zip(self._slots[slot], rows.tolist(), strict=False):
            np.copyto(target, images[row])
        self._last_request_id += 1
        self._requests[self._last_request_id] = None
        worker = min(self._workers, key=lambda candidate: candidate.num_requests)
        with self._error_if_worker_died(worker):
            worker.connection.send(_BatchRequest(self._last_request_id, slot, len(rows), epoch, batch_index))
        worker.num_requests += 1
        return self._last_request_id

    def take(self, request_id: int) -> tuple[Images, Pairing | None]:
        """Waits for a batch.

        Args:
            request_id: What ``request`` returned.

        Returns:
            As ``BatchAugmenter.augment``.

        Raises:
            RunError: A process has ended.
            Exception: What the policy raised.
        """
        try:
            while (result := self._requests[request_id]) is None:
                self._collect(timeout_seconds=None)
            if result.error is not None:
                raise result.error
            images = empty_batch((result.request.num_images, *self._slots.shape[2:]))
            np.copyto(images, self._slots[result.request.slot, : result.request.num_images])
            return images, result.pairing
        finally:
            self.drop(request_id)

    def drop(self, request_id: int) -> None:
        """Forgets a request, whether its batch is finished or not; no effect for one that is unknown."""
        with self._bookkeeping_lock:
            result = self._requests.pop(request_id, None)
            if result is not None:
                self._free_slots.append(result.request.slot)

    def close(self) -> None:
        """Ends the processes."""
        self._finalizer()

    def _collect(self, timeout_seconds: float | None) -> None:
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout_seconds):
            worker = by_connection[connection]  # type: ignore[index]
            with self._error_if_worker_died(worker):
                result: _BatchResult = worker.connection.recv()
            worker.num_requests -= 1
            with self._bookkeeping_lock:
                if result.request.request_id in self._requests:
                    self._requests[result.request.request_id] = result
                else:
                    self._free_slots.append(result.request.slot)

    @contextlib.contextmanager
    def _error_if_worker_died(self, worker: _Worker) -> Generator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self.close()
            raise RunError(
                "expected the processes that augment to run as long as the training, but one ended with code "
                f"{worker.process.returncode}. A code of -9 often means that memory ran out: use fewer of them."
            ) from error


def _start(memory: int, shape: tuple[int, ...]) -> _Worker:
    ours, theirs = Pipe()
    # The worker finds modules where this process does; it does not run this process's script.
    code = f"import sys; sys.path[:] = {sys.path!r}; from bloodauto.transforms import processes; processes.serve("
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code}{theirs.fileno()}, {memory}, {shape!r})"],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory),
            # Ctrl-C goes to the whole group of a terminal; the process that trains decides what it means.
            process_group=0,
            # The only thread that works calls no BLAS.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
    return _Worker(process, ours)


def serve(pipe: int, memory: int, shape: tuple[int, ...]) -> None:
    """The main function of a worker: makes batches in shared memory, in place of their sources, until its pipe ends.

    Args:
        pipe: The descriptor of its end of the pipe.
        memory: The descriptor of the shared memory.
        shape: The shape of that memory: slots, images, height, width, 3.
    """
    cv2.setNumThreads(1)
    slots = _slots(memory, shape)
    with Connection(pipe) as connection, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        augmenter, import_error = _unpickle_augmenter(connection.recv_bytes())
        while True:
            request: _BatchRequest = connection.recv()
            pairing, batch_error = None, import_error
            if augmenter is not None:
                batch = slots[request.slot, : request.num_images]
                try:
                    images, pairing = augmenter.augment(list(batch), request.epoch, request.batch_index)
                    np.copyto(batch, images)
                except Exception as error:
                    batch_error = _sendable(error)
            connection.send(_BatchResult(request, pairing, batch_error))


def _unpickle_augmenter(pickled: bytes) -> tuple[BatchAugmenter | None, Exception | None]:
    """The augmenter that the starting process sent, or why it cannot be used here."""
    try:
        return pickle.loads(pickled), None
    except (AttributeError, ImportError) as error:
        return None, RecipeError(
            f"num_processes: expected a policy whose class another process can import, got {error}. "
            "Define it in a module of its own, not in the script that is run, or use num_threads."
        )


def _sendable(error: Exception) -> Exception:
    """The error with the place where it was raised; a RunError that quotes it, if it cannot be sent to another process."""
    error.add_note("In a process that augments:\n" + "".join(traceback.format_tb(error.__traceback__)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{type(error).__name__} in a process that augments: {error}")
    return error
