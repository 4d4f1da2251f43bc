"""Ray Tune executes what the scheduler assigns, through Tune's public extension points."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Self

from ray import tune
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.tune import Callback, Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.errors import UserError
from bloodauto.printable import shell_word
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.tuning.budget.ledger import WorkerSlots
from bloodauto.tuning.constants import SCHEDULER_CONSTANTS
from bloodauto.tuning.executors import WorkersLost
from bloodauto.tuning.executors.failures import failure_from
from bloodauto.tuning.executors.ray.cluster import RunningRay, WorkerResources, ray_cluster
from bloodauto.tuning.executors.ray.processes import (
    has_local_workers,
    kill_local_workers,
    kill_recorded,
    kill_remote_workers,
)
from bloodauto.tuning.executors.ray.worker import END, REPORT, REQUEST, Worker
from bloodauto.tuning.executors.shutdown import WorkerShutdown
from bloodauto.tuning.executors.trainer import TrainerFactory
from bloodauto.tuning.messages import (
    Assignment,
    Completed,
    Crashed,
    Interrupted,
    Stopped,
    TrainingEnd,
    TrainingFailure,
    TrainingRequest,
)
from bloodauto.tuning.scheduler import Scheduler

_log = logging.getLogger(__name__)

#: Tune wants a number of trials in advance; the searcher ends the search.
_NUM_SAMPLES = 1_000_000
#: How long the workers may take to save what they train when the search is interrupted.
_SAVE_SECONDS = 5.0
_SAVE_POLL_SECONDS = 0.1


def _show_nothing(scheduler: Scheduler) -> None:
    """For searches that nobody watches."""


class RayExecutor:
    """Runs trainings on Ray Tune workers; leaving its block shuts Ray down.

    Ray starts with ``execute``, and holds no device afterwards, so that its slow shutdown need not be paid for.

    Args:
        run: The run directory.
        resources: What the workers reserve.
        factory: Makes the trainer of each worker.
        memory_limit_bytes: Resident memory above which a worker is replaced before its next training.
        on_tick: Called several times a second, for display.
        clock: The scheduler's clock.
        max_restarts: How often a training whose process died is restarted from its checkpoint.
    """

    def __init__(
        self,
        run: RunDirectory,
        resources: WorkerResources,
        factory: TrainerFactory,
        *,
        memory_limit_bytes: int,
        on_tick: Callable[[Scheduler], None] = _show_nothing,
        clock: Clock = SYSTEM_CLOCK,
        max_restarts: int = SCHEDULER_CONSTANTS.max_restarts,
    ) -> None:
        self._run, self._resources, self._factory = run, resources, factory
        self._memory_limit_bytes, self._on_tick, self._clock = memory_limit_bytes, on_tick, clock
        self._max_restarts = max_restarts
        self._started = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.shut_down()

    def execute(self, scheduler: Scheduler, slots: WorkerSlots) -> bool:
        """Runs one session; see ``Executor.execute``.

        The first Ctrl-C or SIGTERM interrupts it, a second one raises ``KeyboardInterrupt``.

        Args:
            scheduler: Assigns trainings.
            slots: The reserved worker slots.

        Returns:
            False when the user interrupted.

        Raises:
            RunError: Ray does not start, or lacks the devices.
            WorkersLost: A process of Ray has ended. Call ``shut_down`` before the next session.
        """
        running = self._started.enter_context(ray_cluster(self._resources))
        bridge = _Bridge(
            scheduler,
            slots,
            self._run,
            self._clock,
            end_on_disk=self._factory.end_on_disk,
            on_tick=self._on_tick,
            is_cluster=self._resources.address is not None,
            running=running,
        )
        folder = running.folder / "tune"
        with bridge.registered(), _interruptible(bridge):
            bridge.worker_shutdown.limit_device_seconds = scheduler.training_limit_device_seconds
            bridge.worker_shutdown.start()
            try:
                self._tuner(bridge, folder).fit()
            except _RayLost:
                _log.warning("a process of Ray has ended; what ran is resumed from its checkpoints")
            except Exception:
                # Tune may fail on workers that were killed; everything that matters is on disk by then.
                if running.is_lost:
                    bridge.worker_shutdown.lost.set()
                elif not bridge.worker_shutdown.requested.is_set():
                    raise
            finally:
                bridge.worker_shutdown.finish()
            bridge.end_finished_trainings()
        if bridge.worker_shutdown.lost.is_set() and not bridge.interrupted.is_set():
            raise WorkersLost
        return not bridge.interrupted.is_set()

    def shut_down(self) -> None:
        """Shuts Ray down, as the end of the block does; another session starts it again."""
        self._started.close()

    def _tuner(self, bridge: _Bridge, folder: Path) -> tune.Tuner:
        trainable = tune.with_parameters(
            Worker,
            run=self._run.root.resolve(),
            factory=self._factory,
            memory_limit_bytes=self._memory_limit_bytes,
        )
        resources = {"cpu": self._resources.cpus_per_trial, "gpu": self._resources.gpus_per_trial}
        return tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=_TuneSearcher(bridge),
                scheduler=_TuneScheduler(bridge),
                num_samples=_NUM_SAMPLES,
                # Without it Tune lets one trial wait at a time, and starts the workers one after another.
                max_concurrent_trials=self._resources.workers,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                verbose=0,
                stop=_ShutdownStopper(bridge),
                callbacks=[_TickCallback(bridge)],
                failure_config=tune.FailureConfig(max_failures=self._max_restarts),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )


class _RayLost(BaseException):
    """Leaves Tune without its own cleaning up, which would wait for a minute for what has ended."""


@contextlib.contextmanager
def _interruptible(bridge: _Bridge) -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM interrupt the search inside the block, where Python allows it: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if bridge.interrupted.is_set():
            raise KeyboardInterrupt
        bridge.interrupted.set()
        bridge.worker_shutdown.requested.set()

    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Bridge:
    """What the four extension points share: Tune's trial ids on one side, the scheduler's names on the other.

    Tune pickles searcher, scheduler, stopper and callbacks, so that it could restore an experiment by itself. Ours is resumed
    from the study and the ledger, so the bridge is pickled as a mere name, which means something in this process only.
    """

    _registered: ClassVar[dict[str, _Bridge]] = {}

    def __init__(
        self,
        scheduler: Scheduler,
        slots: WorkerSlots,
        run: RunDirectory,
        clock: Clock,
        *,
        end_on_disk: Callable[[TrainingDirectory], Completed | None],
        on_tick: Callable[[Scheduler], None],
        is_cluster: bool,
        running: RunningRay,
    ) -> None:
        self._end_on_disk = end_on_disk
        self.scheduler, self.ledger = scheduler, slots.ledger
        self._run, self._clock, self._on_tick, self._is_cluster = run, clock, on_tick, is_cluster
        self._free_slots = list(slots.names)
        self._assignments: dict[str, Assignment] = {}
        #: Of each slot, the directory of its last training, where the process that serves the slot is recorded.
        self._last_directories: dict[str, TrainingDirectory] = {}
        self._heartbeats: dict[str, int] = {}
        self._errors: dict[str, BaseException] = {}
        self.interrupted = threading.Event()
        self.worker_shutdown = WorkerShutdown(
            slots,
            self._kill_workers,
            save=self._save_open_trainings,
            are_lost=lambda: running.is_lost,
            give_up=self._give_up,
        )

    @property
    def _name(self) -> str:
        return str(self._run.root.resolve())

    def __reduce__(self) -> tuple[Callable[[str], _Bridge], tuple[str]]:
        return _Bridge._by_name, (self._name,)

    @classmethod
    def _by_name(cls, name: str) -> _Bridge:
        return cls._registered[name]

    @contextlib.contextmanager
    def registered(self) -> Iterator[None]:
        """Lets the bridge be unpickled inside the block."""
        self._registered[self._name] = self
        try:
            yield
        finally:
            del self._registered[self._name]

    def _save_open_trainings(self) -> None:
        """Asks the workers to save what they train, and waits a few seconds for it: one that evaluates does not answer."""
        directories = [self._directory(assignment) for assignment in list(self._assignments.values())]
        for directory in directories:
            directory.request_stop()
        until = self._clock.now() + _SAVE_SECONDS
        while self._clock.now() < until and not all(directory.is_saved_as_requested for directory in directories):
            if not (self._is_cluster or has_local_workers()):
                return
            time.sleep(_SAVE_POLL_SECONDS)

    def _kill_workers(self) -> None:
        kill_local_workers()
        if self._is_cluster:
            kill_remote_workers(list(self._last_directories.values()))

    def _directory(self, assignment: Assignment) -> TrainingDirectory:
        if assignment.kind == "trial":
            return self._run.trial(int(assignment.name))
        return self._run.refit(assignment.name)

    # -- from Tune to the scheduler ------------------------------------------------------------------------------------

    def next_request(self, tune_id: str) -> TrainingRequest | None:
        """The next training of any free slot; requests the shutdown when nothing runs and nothing is to be started."""
        for slot in self._free_slots:
            assignment = self.scheduler.next_assignment(slot)
            if assignment is not None:
                self._free_slots.remove(slot)
                self._assignments[tune_id] = assignment
                self._last_directories[slot] = self._directory(assignment)
                return self._request(assignment)
        if not self._assignments:
            self.worker_shutdown.requested.set()
        return None

    def _request(self, assignment: Assignment) -> TrainingRequest:
        directory, start = self._directory(assignment), assignment.weights_from_trial
        start_weights = None if start is None else self._run.trial(start).weights.path
        return TrainingRequest(
            name=assignment.name,
            recipe=assignment.recipe,
            seed=assignment.seed,
            fold=assignment.fold,
            limits=assignment.limits.shifted(self._clock.wall() - self._clock.now()),
            folder=self._relative(directory.root),
            start_weights=None if start_weights is None else self._relative(start_weights),
        )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._run.root).as_posix()

    def continues(self, tune_id: str, result: dict[str, Any]) -> bool:
        """Passes the report of an epoch on; returns whether the training continues."""
        if REPORT not in result or tune_id not in self._assignments:
            return True
        return self.scheduler.on_epoch(self._assignments[tune_id].name, result[REPORT])

    def keep_error(self, tune_id: str, error: BaseException | None) -> None:
        """Keeps why Ray gave a training up, until its end is passed on."""
        if error is not None:
            self._errors[tune_id] = error

    def end_training(self, tune_id: str, result: dict[str, Any] | None) -> None:
        """Passes on how a training ended: by itself, or because it was stopped."""
        end = Stopped() if result is None or END not in result else result[END]
        if isinstance(end, Stopped) and self.interrupted.is_set():
            # It saved its state and left, as it was asked to. It stays open for a later session.
            return
        self._pass_on(tune_id, end)

    def end_lost_training(self, tune_id: str) -> None:
        """Passes on that Ray gave a training up."""
        if self.worker_shutdown.requested.is_set():
            # Its worker was killed by the shutdown. It stays open: the scheduler closes it, or a later session resumes it.
            return
        assignment = self._assignments.get(tune_id)
        completed = None if assignment is None else self._end_on_disk(self._directory(assignment))
        if completed is not None:
            self._pass_on(tune_id, completed)
            return
        was_overdue = assignment is not None and self.scheduler.was_overdue(assignment.name)
        self._pass_on(tune_id, failure_from_ray(self._errors.pop(tune_id, None), was_overdue=was_overdue))

    def end_finished_trainings(self) -> None:
        """Passes on the ends of trainings that finished when nobody listened any more: during the shutdown, or without Ray."""
        for tune_id, assignment in list(self._assignments.items()):
            completed = self._end_on_disk(self._directory(assignment))
            if completed is not None:
                self._pass_on(tune_id, completed)

    def _pass_on(self, tune_id: str, end: TrainingEnd) -> None:
        assignment = self._assignments.pop(tune_id, None)
        if assignment is None:
            return
        if isinstance(end, Crashed):
            _log.error("%s crashed: %s\n%s", assignment.phase, end.message, end.traceback)
        self.scheduler.on_end(assignment.name, end)
        self._free_slots.append(assignment.slot)

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def is_shutting_down(self) -> bool:
        """Whether the workers are being shut down, so that no training starts."""
        return self.worker_shutdown.requested.is_set()

    def check_ray(self) -> None:
        """Leaves Tune before it asks for anything of a Ray that has ended.

        Raises:
            _RayLost: Ray has ended.
        """
        if self.worker_shutdown.lost.is_set():
            raise _RayLost

    def _give_up(self) -> None:
        """Ends this process with a sentence: Ray's library would do so half a minute later, without one."""
        # The screen of a search has taken over the standard streams and hidden the cursor.
        stream = sys.stderr if sys.__stderr__ is None else sys.__stderr__
        if stream.isatty():
            stream.write("\x1b[?25h\n")
        stream.write(
            "error: a process of Ray has ended and Ray does not answer any more. Nothing is lost; go on with: "
            f"bloodauto search --resume --run {shell_word(self._run.root)}\n"
        )
        stream.flush()
        os._exit(UserError.exit_code)

    def tick(self) -> None:
        """Writes the ledger's heartbeat, passes the trainings' heartbeats on, kills hanging workers, shows the progress.

        Raises:
            _RayLost: Ray is lost.
        """
        self.check_ray()
        self.ledger.heartbeat()
        self.worker_shutdown.limit_device_seconds = self.scheduler.training_limit_device_seconds
        if self.scheduler.abort_reason is not None:
            self.worker_shutdown.requested.set()
        for assignment in self._assignments.values():
            self._check_heartbeat(assignment)
        overdue = set(self.scheduler.overdue())
        for assignment in self._assignments.values():
            if assignment.name in overdue:
                kill_recorded(self._directory(assignment))
        self._on_tick(self.scheduler)

    def _check_heartbeat(self, assignment: Assignment) -> None:
        """A change of the file is a heartbeat. When it changed does not matter: another node's clock may be wrong."""
        try:
            changed = self._directory(assignment).heartbeat.stat().st_mtime_ns
        except OSError:
            return
        if self._heartbeats.get(assignment.name) != changed:
            self._heartbeats[assignment.name] = changed
            self.scheduler.on_heartbeat(assignment.name)


def failure_from_ray(error: BaseException | None, *, was_overdue: bool) -> TrainingFailure:
    """The kind of failure that Ray's error stands for.

    Args:
        error: What Ray raised; None when it did not say.
        was_overdue: Whether the training was killed because it was silent.
    """
    if isinstance(error, RayTaskError):
        # The worker raised outside of a training, for example when it claimed its device.
        failure = failure_from(error.cause)
        return Crashed(failure.message, traceback=str(error)) if isinstance(failure, Crashed) else failure
    message = "the worker process died more than once"
    if was_overdue:
        return Interrupted("watchdog", message, process_lost=True)
    if isinstance(error, OutOfMemoryError):
        return Interrupted("out_of_memory", f"Ray killed the worker: {error}", process_lost=True)
    return Interrupted("worker_died", message, process_lost=True)


class _TuneSearcher(Searcher):  # Ray has no types
    """Asks the scheduler for the next assignment whenever a slot is free."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self._bridge.is_shutting_down:
            request = self._bridge.next_request(trial_id)
            if request is not None:
                return {REQUEST: request}
        return Searcher.FINISHED if self._bridge.is_shutting_down else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            self._bridge.end_lost_training(trial_id)
        else:
            self._bridge.end_training(trial_id, result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study and the ledger hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see ``save``."""


class _TuneScheduler(FIFOScheduler):  # Ray has no types
    """Passes each epoch's report to the scheduler, and stops what it stops."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        continues = self._bridge.continues(trial.trial_id, result)
        decision: str = TrialScheduler.CONTINUE if continues else TrialScheduler.STOP
        return decision

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Tune tells the searcher afterwards, without the error.
        self._bridge.keep_error(trial.trial_id, trial.get_pickled_error())


class _ShutdownStopper(Stopper):  # Ray has no types
    """Stops everything when the workers have to go."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self._bridge.check_ray()
        return self._bridge.is_shutting_down or self._bridge.scheduler.is_past_training_limit()


class _TickCallback(Callback):  # Ray has no types
    """Lets the bridge do what has to be done several times a second."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._bridge.tick()
