"""Processes that augment batches beside the one that trains.

Python's lock lets one thread at a time run Python, and OpenCV gives it back and takes it again for every call of a few
microseconds, so that two threads that augment small images are hardly faster than one. Processes have a lock each.

A worker is a fresh Python that imports nothing but NumPy, OpenCV and ``bloodauto.transforms``: it is neither forked from a
process in which TensorFlow's threads run, nor does it run the caller's script again. Images go through memory that both
share and that has no name, so nothing is left behind however either ends; orders and answers go through a pipe. A
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
from typing import NamedTuple

import cv2
import numpy as np

from bloodauto.errors import RecipeError, RunError
from bloodauto.transforms.memory import empty_batch
from bloodauto.transforms.mixing import Mixing, Pairing
from bloodauto.transforms.policies import BatchPolicy

#: Whether processes can be started that inherit memory and a pipe.
PROCESSES_AVAILABLE = os.name == "posix"

_SHUTDOWN_SECONDS = 5.0


@dataclass(frozen=True)
class BatchMaker:
    """Makes a batch's images of its sources; what it draws depends on the seed, the epoch and the batch's place alone.

    Attributes:
        policy: what is done to each image; None for nothing.
        mixing: how the images are joined then; None for not at all.
        seed: of both.
    """

    policy: BatchPolicy | None
    mixing: Mixing | None
    seed: int

    def make(self, images: Sequence[np.ndarray], epoch: int, batch_index: int) -> tuple[np.ndarray, Pairing | None]:
        """Sources, uint8 (height, width, 3) each and not written -> new images, and what was joined with what."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, batch_index)))
        made = np.stack(images) if self.policy is None else self.policy.batch(images, rng)
        return (made, None) if self.mixing is None else self.mixing.join(np.asarray(made), rng)


class _BatchRequest(NamedTuple):
    request_id: int
    slot: int
    num_images: int
    epoch: int
    batch_index: int


class _BatchResult(NamedTuple):
    order: _BatchRequest
    pairing: Pairing | None
    error: Exception | None


@dataclass
class _Worker:
    process: subprocess.Popen
    connection: Connection
    orders: int = 0


def _shared_memory(size: int) -> int:
    """A descriptor of ``size`` bytes of memory without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("batches")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def _slots(descriptor: int, shape: tuple[int, ...]) -> np.ndarray:
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
        maker: what each process does.
        num_processes: at least 1.
        num_slots: how many batches may be ordered and not yet taken; each takes the memory of one batch.
        batch_shape: (images at most, height, width, 3).

    Raises:
        RecipeError: the policy or the mixing cannot be sent to another process.
    """

    def __init__(
        self, maker: BatchMaker, *, num_processes: int, num_slots: int, batch_shape: tuple[int, int, int, int]
    ) -> None:
        try:
            pickled = pickle.dumps(maker)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise RecipeError(
                f"num_processes: expected a policy that another process can be sent, got one that cannot ({error}). "
                "Define its class at the top of a module, or use num_threads."
            ) from None
        shape = (num_slots, *batch_shape)
        memory = _shared_memory(int(np.prod(shape)))
        self._workers: list[_Worker] = []
        # Also when this process ends in an orderly way without having closed the team.
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
        self._free = list(range(num_slots))
        self._last_request_id = 0
        #: What is ordered, neither taken nor dropped; with its answer once there is one.
        self._orders: dict[int, _BatchResult | None] = {}
        # Orders may be dropped at any time, by the collector of a generator that nobody refers to any more.
        self._bookkeeping_lock = threading.RLock()

    @property
    def closed(self) -> bool:
        """Whether its processes have been ended."""
        return not self._finalizer.alive

    @property
    def idle(self) -> bool:
        """Whether nothing is ordered that may still be taken."""
        return not self._orders

    def order(self, images: np.ndarray, index: np.ndarray, epoch: int, batch_index: int) -> int:
        """Has a batch made of the images at ``index``; the ticket to take it by.

        There must be fewer orders than slots, those that were dropped not counted.

        Raises:
            RunError: a process has ended.
        """
        assert len(self._orders) < len(self._slots), "expected fewer orders than slots"
        self._collect(timeout_seconds=0.0)
        while not self._free:
            self._collect(timeout_seconds=None)
        slot = self._free.pop()
        for target, row in zip(self._slots[slot], index.tolist(), strict=False):
            np.copyto(target, images[row])
        self._last_request_id += 1
        self._orders[self._last_request_id] = None
        worker = min(self._workers, key=lambda one: one.orders)
        with self._error_if_worker_died(worker):
            worker.connection.send(_BatchRequest(self._last_request_id, slot, len(index), epoch, batch_index))
        worker.orders += 1
        return self._last_request_id

    def take(self, request_id: int) -> tuple[np.ndarray, Pairing | None]:
        """Waits for a batch.

        Raises:
            RunError: a process has ended.
            Exception: what the policy raised.
        """
        try:
            while (answer := self._orders[request_id]) is None:
                self._collect(timeout_seconds=None)
            if answer.error is not None:
                raise answer.error
            images = empty_batch((answer.order.num_images, *self._slots.shape[2:]))
            np.copyto(images, self._slots[answer.order.slot, : answer.order.num_images])
            return images, answer.pairing
        finally:
            self.drop(request_id)

    def drop(self, request_id: int) -> None:
        """Lets go of an order, made or not; of one that is gone already, nothing."""
        with self._bookkeeping_lock:
            answer = self._orders.pop(request_id, None)
            if answer is not None:
                self._free.append(answer.order.slot)

    def close(self) -> None:
        """Ends the processes."""
        self._finalizer()

    def _collect(self, timeout_seconds: float | None) -> None:
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout_seconds):
            worker = by_connection[connection]  # type: ignore[index]
            with self._error_if_worker_died(worker):
                answer: _BatchResult = worker.connection.recv()
            worker.orders -= 1
            with self._bookkeeping_lock:
                if answer.order.request_id in self._orders:
                    self._orders[answer.order.request_id] = answer
                else:
                    self._free.append(answer.order.slot)

    @contextlib.contextmanager
    def _error_if_worker_died(self, worker: _Worker) -> Generator[None]:
        try:
            yield
        except (EOFError, OSError):
            self.close()
            raise RunError(
                "expected the processes that augment to run as long as the training, but one ended with code "
                f"{worker.process.returncode}. A code of -9 often means that memory ran out: use fewer of them."
            ) from None


def _start(memory: int, shape: tuple[int, ...]) -> _Worker:
    ours, theirs = Pipe()
    # Where modules are found here, they are found there; that alone is taken over, not the script this process runs.
    code = f"import sys; sys.path[:] = {sys.path!r}; from bloodauto.transforms import processes; processes.serve("
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code}{theirs.fileno()}, {memory}, {shape!r})"],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory),
            # Ctrl-C goes to a terminal's whole group; the process that trains decides what it means.
            process_group=0,
            # The one thread that works calls no BLAS.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
    return _Worker(process, ours)


def serve(pipe: int, memory: int, shape: tuple[int, ...]) -> None:
    """What a worker does until its pipe ends: makes batches in shared memory, in place of their sources."""
    cv2.setNumThreads(1)
    slots = _slots(memory, shape)
    with Connection(pipe) as connection, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        maker, failure = _unpickle_maker(connection.recv_bytes())
        while True:
            order: _BatchRequest = connection.recv()
            pairing, problem = None, failure
            if maker is not None:
                batch = slots[order.slot, : order.num_images]
                try:
                    images, pairing = maker.make(list(batch), order.epoch, order.batch_index)
                    np.copyto(batch, images)
                except Exception as error:
                    problem = _sendable(error)
            connection.send(_BatchResult(order, pairing, problem))


def _unpickle_maker(pickled: bytes) -> tuple[BatchMaker | None, Exception | None]:
    """What the process that started this one sent, or why that cannot be used here."""
    try:
        return pickle.loads(pickled), None
    except (AttributeError, ImportError) as error:
        return None, RecipeError(
            f"num_processes: expected a policy whose class another process can import, got {error}. "
            "Define it in a module of its own, not in the script that is run, or use num_threads."
        )


def _sendable(error: Exception) -> Exception:
    """The error with where it was raised, or one that says so, if it cannot be sent to another process."""
    error.add_note("In a process that augments:\n" + "".join(traceback.format_tb(error.__traceback__)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{type(error).__name__} in a process that augments: {error}")
    return error
