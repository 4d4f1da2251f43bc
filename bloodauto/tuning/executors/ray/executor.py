"""Ray Tune executes what the policy decides, through Tune's public extension points."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import numpy as np
import ray
from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.errors import RunError
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.directory import RunDirectory
from bloodauto.shift.suite import ShiftSuite
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.executors.ray.processes import kill_local_workers, kill_recorded, kill_remote_workers
from bloodauto.tuning.executors.ray.worker import HEARTBEAT_FILE, Worker, WorkerOptions
from bloodauto.tuning.executors.shutdown import WorkerShutdown
from bloodauto.tuning.scheduler import Assignment, Scheduler, TrainingEnd

#: A worker that dies (no memory, pre-emption, kill) gets the same training again this often; it goes on from its checkpoint.
_MAX_RESTARTS = 2


@dataclass(frozen=True)
class WorkerResources:
    """What each worker reserves."""

    workers: int
    cpus_per_trial: float
    gpus_per_trial: float
    address: str | None = None


class _Bridge:
    """What the four extension points share: Tune's trial ids on one side, the policy's names on the other.

    Tune pickles searcher, stopper and callbacks so that it could restore an experiment by itself. Ours is restored from
    the study and the ledger, so the bridge is pickled as a mere name, which means something in this process only.
    """

    _in_use: ClassVar[dict[str, _Bridge]] = {}

    def __init__(
        self,
        scheduler: Scheduler,
        ledger: Ledger,
        run: RunDirectory,
        slots: tuple[str, ...],
        show: Callable[[], None],
        *,
        devices_per_worker: float,
        is_cluster: bool,
    ) -> None:
        self.scheduler, self.ledger, self.run, self.show = scheduler, ledger, run, show
        self._is_cluster = is_cluster
        self._name = str(run.root.resolve())
        self._in_use[self._name] = self
        self.free_slots = list(slots)
        self.assignments: dict[str, Assignment] = {}
        #: The folder of each slot's last training, where the process that serves it is noted.
        self._last_folders: dict[str, Path] = {}
        self.interrupted = threading.Event()
        self.worker_shutdown = WorkerShutdown(
            ledger, slots, driver_devices=devices_per_worker, kill_workers=self._kill_workers
        )

    def __reduce__(self) -> tuple[Callable[[str], _Bridge], tuple[str]]:
        return _Bridge.named, (self._name,)

    @classmethod
    def named(cls, name: str) -> _Bridge:
        return cls._in_use[name]

    def _kill_workers(self) -> None:
        kill_local_workers()
        if self._is_cluster:
            kill_remote_workers(list(self._last_folders.values()))

    def folder(self, assignment: Assignment) -> str:
        path = (
            self.run.trial(int(assignment.name)).root
            if assignment.kind == "trial"
            else self.run.refit(assignment.name).root
        )
        return str(path.relative_to(self.run.root))

    def config(self, assignment: Assignment) -> dict[str, Any]:
        start, within = assignment.weights_from_trial, assignment.time_limit_with_startup_seconds
        self._last_folders[assignment.slot] = self.run.root / self.folder(assignment)
        return {
            "name": assignment.name,
            "recipe": assignment.recipe.model_dump(mode="json"),
            "folder": self.folder(assignment),
            "seed": assignment.seed,
            "fold": assignment.fold,
            "time_limit_seconds": assignment.time_limit_seconds,
            "train_until_unix": None if within is None else time.time() + within,
            "start_weights": None
            if start is None
            else str((self.run.trial(start).weights.path).relative_to(self.run.root)),
            "hard_limit_unix": time.time() + self.scheduler.seconds_until_hard_limit(assignment),
        }

    def end(self, tune_id: str, ending: TrainingEnd) -> None:
        assignment = self.assignments.pop(tune_id, None)
        if assignment is None:
            return
        self.scheduler.on_end(assignment.name, ending)
        self.free_slots.append(assignment.slot)


class _TuneSearcher(Searcher):
    """Asks the policy for the next assignment whenever a slot is free."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        bridge = self._bridge
        if bridge.worker_shutdown.requested.is_set():
            return Searcher.FINISHED
        for slot in list(bridge.free_slots):
            assignment = bridge.scheduler.next_assignment(slot)
            if assignment is not None:
                bridge.free_slots.remove(slot)
                bridge.assignments[trial_id] = assignment
                return bridge.config(assignment)
        if bridge.assignments:
            return None
        bridge.worker_shutdown.requested.set()
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error and self._bridge.worker_shutdown.requested.is_set():
            # Ended by us. It stays open: the policy closes it, or a resume goes on with it.
            return
        if error:
            ending = TrainingEnd("failed", None, self._death_reason(trial_id), "the worker process died more than once")
        elif result is not None and "ending" in result:
            said = json.loads(result["ending"])
            ending = TrainingEnd(**{**said, "secondary": tuple(said.get("secondary", ()))})
        else:
            ending = TrainingEnd("stopped")
        self._bridge.end(trial_id, ending)

    def _death_reason(self, trial_id: str) -> str:
        assignment = self._bridge.assignments.get(trial_id)
        return (
            "watchdog"
            if assignment is not None and self._bridge.scheduler.was_overdue(assignment.name)
            else "worker_died"
        )

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study and the ledger are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see ``save``."""


class _TuneScheduler(FIFOScheduler):
    """Hands each epoch's report to the policy and stops what the policy stops."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "report" not in result:
            return TrialScheduler.CONTINUE
        goes_on = self._bridge.scheduler.on_epoch(result["name"], EpochReport.model_validate_json(result["report"]))
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


class _BudgetStopper(Stopper):
    """Ends everything when the budget is over, or when the user wishes."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._bridge.worker_shutdown.requested.is_set() or self._bridge.scheduler.is_past_hard_limit()


class _HeartbeatCallback(Callback):
    """Several times a second: the ledger's heartbeat, the trainings' heartbeats, the watchdog, the display."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._heartbeats: dict[str, int] = {}

    def _check_heartbeats(self) -> None:
        """A change is a heartbeat; when it was is not asked, since another node's clock may be wrong."""
        for assignment in self._bridge.assignments.values():
            try:
                changed = (self._bridge.run.root / self._bridge.folder(assignment) / HEARTBEAT_FILE).stat().st_mtime_ns
            except OSError:
                continue
            if self._heartbeats.get(assignment.name) != changed:
                self._heartbeats[assignment.name] = changed
                self._bridge.scheduler.on_heartbeat(assignment.name)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        bridge = self._bridge
        bridge.ledger.heartbeat()
        bridge.worker_shutdown.limit_device_seconds = bridge.scheduler.training_limit_device_seconds
        self._check_heartbeats()
        overdue = set(bridge.scheduler.overdue())
        for assignment in bridge.assignments.values():
            if assignment.name in overdue:
                kill_recorded(bridge.run.root / bridge.folder(assignment))
        bridge.show()


def start_ray(resources: WorkerResources, *, quiet: bool = True) -> None:
    """Starts Ray on this machine with exactly the devices the search reserves, or joins a cluster.

    Raises:
        RunError: Ray does not start, or has not got what the workers need.
    """
    # Tune would otherwise change directory, catch Ctrl-C itself and print its own table.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    needed = {
        "CPU": resources.workers * resources.cpus_per_trial,
        "GPU": resources.workers * resources.gpus_per_trial,
    }
    arguments: dict[str, Any] = (
        {"address": resources.address}
        if resources.address is not None
        else {
            "num_cpus": max(int(-(-needed["CPU"] // 1)), 1),
            "num_gpus": int(-(-needed["GPU"] // 1)),
            "include_dashboard": False,
            "_temp_dir": None,
        }
    )
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=not quiet, **arguments)
    except Exception as error:
        raise RunError(f"Ray did not start: {error}") from None
    have = ray.cluster_resources()
    for device, amount in needed.items():
        if amount > have.get(device, 0.0):
            raise RunError(
                f"--workers {resources.workers}: expected {amount:g} {device} in the Ray cluster, it has "
                f"{have.get(device, 0.0):g}. Lower --workers, --cpus-per-trial or --gpus-per-trial."
            )


def stop_ray() -> None:
    """Ends what ``start_ray`` started; does nothing when Ray does not run."""
    ray.shutdown()


def execute(
    scheduler: Scheduler,
    ledger: Ledger,
    run: RunDirectory,
    *,
    resources: WorkerResources,
    dataset: CellDataset,
    splits: Splits,
    suite: ShiftSuite,
    target: np.ndarray,
    options: WorkerOptions,
    slots: tuple[str, ...],
    show: Callable[[], None],
) -> bool:
    """Runs Tune until the policy has nothing more to start, or the budget's share for trainings is over.

    Workers are then ended without ceremony and their devices handed back, so that the driver's slot alone is charged.

    Returns:
        False when the user interrupted; what was open then stays open in the study and is gone on with by a resume.

    Raises:
        RunError: a failure of every trial alike.
    """
    bridge = _Bridge(
        scheduler,
        ledger,
        run,
        slots,
        show,
        devices_per_worker=options.device.gpu_fraction if options.device.gpu_fraction > 0 else resources.cpus_per_trial,
        is_cluster=resources.address is not None,
    )

    def interrupt(number: int, frame: FrameType | None) -> None:
        if bridge.interrupted.is_set():
            raise KeyboardInterrupt
        bridge.interrupted.set()
        bridge.worker_shutdown.requested.set()

    scratch = Path(tempfile.mkdtemp(prefix="bloodauto-tune-"))
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        trainable = tune.with_resources(
            tune.with_parameters(Worker, dataset=dataset, splits=splits, suite=suite, target=target, options=options),
            {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_TuneSearcher(bridge),
                scheduler=_TuneScheduler(bridge),
                num_samples=1_000_000,
                # Without it Tune lets one trial wait at a time, and starts the workers one after another.
                max_concurrent_trials=resources.workers,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                stop=_BudgetStopper(bridge),
                callbacks=[_HeartbeatCallback(bridge)],
                failure_config=tune.FailureConfig(max_failures=_MAX_RESTARTS),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )
        # At its end Tune looks for the result files of loggers that we switched off, and says so for each trial.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        bridge.worker_shutdown.limit_device_seconds = scheduler.training_limit_device_seconds
        bridge.worker_shutdown.start()
        try:
            tuner.fit()
        except Exception:
            # Tune may stumble over workers that were ended; all that matters is on disk by then.
            if not bridge.worker_shutdown.requested.is_set():
                raise
        finally:
            bridge.worker_shutdown.finish()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        shutil.rmtree(scratch, ignore_errors=True)
    if scheduler.abort_reason is not None:
        raise RunError(f"the search was given up: {scheduler.abort_reason}")
    return not bridge.interrupted.is_set()
