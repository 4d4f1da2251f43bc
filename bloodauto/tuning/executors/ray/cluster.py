"""Ray on this machine, or a cluster that is joined, for the length of a block."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import site
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

import bloodauto
from bloodauto.errors import RunError
from bloodauto.tuning.executors.ray.guard import guarded

#: Environment variables that are set while Ray runs; None: removed. What a user, a job or a container has set for other
#: programs does not count: the search relies on these.
_ENVIRONMENT: dict[str, str | None] = {
    # Tune would otherwise change the directory, catch Ctrl-C itself and print its own table.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    # Ray gives workers niceness 15: beside any other program they get almost no time, while the budget is charged.
    "RAY_worker_niceness": "0",
    # Workers look for modules where this process does, and not in the folder in which the user happens to stand.
    "PYTHONSAFEPATH": "1",
    # What a job of Ray, or Ray's own launcher, leaves for the processes that it starts.
    "RAY_ADDRESS": None,
    "RAY_NAMESPACE": None,
    "RAY_RUNTIME_ENV_HOOK": None,
    "RAY_JOB_CONFIG_JSON_ENV_VAR": None,
}
#: A socket's path may have 107 bytes; Ray appends this to its folder.
_MAX_FOLDER_BYTES = 107 - len("/session_2026-11-27_21-33-37_123456_4194304/sockets/plasma_store.1")
#: Names of the processes without which a Ray of one's own does nothing more.
_RAY_SERVERS = ("gcs_server", "raylet")
_FOLDER_PREFIX = "bloodauto-"
#: Where Ray's folder goes if the user's own temporary folder has too long a path.
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


@dataclass(frozen=True)
class WorkerResources:
    """What the workers reserve.

    Attributes:
        workers: How many there are.
        cpus_per_trial: CPU cores of each.
        gpus_per_trial: GPUs of each, or a fraction of one.
        address: Of a Ray cluster to join; None: this machine.
    """

    workers: int
    cpus_per_trial: float
    gpus_per_trial: float
    address: str | None = None


class RunningRay:
    """Ray while it runs.

    Args:
        folder: The temporary folder of the search's own that Ray and its workers have.
        processes: Those of this machine without which Ray cannot work; none where a cluster was joined.

    Attributes:
        folder: The same.
    """

    def __init__(self, folder: Path, processes: Sequence[psutil.Process]) -> None:
        self.folder, self._processes = folder, processes

    @property
    def is_lost(self) -> bool:
        """Whether one of its processes has ended, for example because the machine was out of memory."""
        return any(not _is_alive(process) for process in self._processes)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _own_ray_processes() -> list[psutil.Process]:
    """The servers of a Ray that this process has started."""
    servers = []
    for child in psutil.Process().children():
        # It may end between the two calls.
        with contextlib.suppress(psutil.Error):
            if child.name() in _RAY_SERVERS:
                servers.append(child)
    return servers


@contextlib.contextmanager
def ray_cluster(resources: WorkerResources) -> Iterator[RunningRay]:
    """Starts Ray on this machine with exactly the devices that the workers reserve, or joins a cluster.

    Ray is shut down at the end of the block. What it changes in this process is restored: environment variables, the levels of
    its loggers, the handler of SIGTERM.

    Args:
        resources: What the workers reserve.

    Yields:
        What tells whether it still runs.

    Raises:
        RunError: Ray does not start, or lacks the devices.
    """
    needed = {
        "CPU": resources.workers * resources.cpus_per_trial,
        "GPU": resources.workers * resources.gpus_per_trial,
    }
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_short_temporary_folder())
        stack.enter_context(guarded(folder))
        # What the libraries of the workers leave in the temporary folder goes with it, also of those that are killed.
        stack.enter_context(_environment({**_ENVIRONMENT, "PYTHONPATH": _python_path(), "TMPDIR": str(folder)}))
        stack.enter_context(_restored_log_level("ray"))
        stack.enter_context(_restored_log_level("ray.tune"))
        stack.enter_context(_restored_sigterm_handler())
        stack.enter_context(_without_ray_messages())
        try:
            _init_ray(resources.address, needed, folder)
            _check_devices(resources.workers, needed)
            yield RunningRay(folder, _own_ray_processes() if resources.address is None else [])
        finally:
            ray.shutdown()


def _init_ray(address: str | None, needed: dict[str, float], folder: Path) -> None:
    arguments: dict[str, Any] = {"address": address}
    if address is None:
        arguments = {
            # Not None: that would look for a Ray of somebody else on this machine.
            "address": "local",
            "num_cpus": max(int(-(-needed["CPU"] // 1)), 1),
            "num_gpus": int(-(-needed["GPU"] // 1)),
            "include_dashboard": False,
            "_temp_dir": str(folder),
        }
    try:
        with _working_folder_at_root():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **arguments)
    except Exception as error:
        raise RunError(f"Ray did not start: {error}") from error
    # At its end Tune looks for result files of loggers that are switched off, and reports that for each trial.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _working_folder_at_root() -> Iterator[None]:
    """Changes to the root folder: Ray puts the working folder first on the workers' module path, with a user's random.py."""
    folder = Path.cwd()
    os.chdir("/")
    try:
        yield
    finally:
        os.chdir(folder)


def _python_path() -> str:
    """``PYTHONPATH`` of the workers: this process's entries, absolute, and the folder that this package comes from."""
    entries = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    package_root = str(Path(bloodauto.__file__).resolve().parent.parent)
    installed = {str(Path(folder).resolve()) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    if package_root not in installed and package_root not in entries:
        entries.append(package_root)
    return os.pathsep.join(entries)


@contextlib.contextmanager
def _short_temporary_folder() -> Iterator[Path]:
    """A folder of this search's own for Ray's sockets and logs, deleted at the end.

    Raises:
        RunError: No folder with a path short enough can be created.
    """
    reasons = []
    for parent in dict.fromkeys((tempfile.gettempdir(), *_SHORT_FOLDERS)):
        try:
            folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
        except OSError as error:
            reasons.append(f"{parent}: {error.strerror}")
            continue
        if len(os.fsencode(folder)) <= _MAX_FOLDER_BYTES:
            break
        folder.rmdir()
        reasons.append(f"{parent}: its path is too long for a socket")
    else:
        raise RunError(
            f"Ray needs a temporary folder, none can be used ({'; '.join(reasons)}). Set TMPDIR to a short path."
        )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_devices(workers: int, needed: dict[str, float]) -> None:
    available = ray.cluster_resources()
    for device, amount in needed.items():
        if amount > available.get(device, 0.0):
            raise RunError(
                f"--workers {workers}: expected {amount:g} {device} in the Ray cluster, it has "
                f"{available.get(device, 0.0):g}. Lower --workers, --cpus-per-trial or --gpus-per-trial."
            )


@contextlib.contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Sets environment variables, or removes them where the value is None, for the length of a block."""
    earlier = {name: os.environ.get(name) for name in variables}
    _set_environment(variables)
    try:
        yield
    finally:
        _set_environment(earlier)


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _restored_sigterm_handler() -> Iterator[None]:
    """Restores the handler that Ray replaces, where Python allows it: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _without_ray_messages() -> Iterator[None]:
    """Keeps Ray from printing on the caller's standard output, which ``log_to_driver`` does not do for lost workers.

    The executor reports a lost worker itself. Ray's debugger sets the same variable.
    """
    module = ray._private.worker
    enabled = module._worker_logs_enabled
    module._worker_logs_enabled = False
    try:
        yield
    finally:
        module._worker_logs_enabled = enabled


@contextlib.contextmanager
def _restored_log_level(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    try:
        yield
    finally:
        logger.setLevel(level)
