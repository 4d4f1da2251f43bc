"""Ray on this machine, or a cluster that is joined, for the length of a block."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from bloodauto.errors import RunError

#: Tune would otherwise change the directory, catch Ctrl-C itself and print its own table.
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    # Ray gives workers niceness 15: beside any other program they get almost no time, while the budget is charged.
    "RAY_worker_niceness": "0",
}


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


@contextlib.contextmanager
def ray_cluster(resources: WorkerResources) -> Iterator[None]:
    """Starts Ray on this machine with exactly the devices that the workers reserve, or joins a cluster.

    Ray is shut down at the end of the block. What it changes in this process is restored: environment variables, the levels of
    its loggers, the handler of SIGTERM.

    Args:
        resources: What the workers reserve.

    Raises:
        RunError: Ray does not start, or lacks the devices.
    """
    needed = {
        "CPU": resources.workers * resources.cpus_per_trial,
        "GPU": resources.workers * resources.gpus_per_trial,
    }
    with (
        _environment(_ENVIRONMENT),
        _restored_log_level("ray"),
        _restored_log_level("ray.tune"),
        _restored_sigterm_handler(),
        _without_ray_messages(),
    ):
        try:
            _init_ray(resources.address, needed)
            _check_devices(resources.workers, needed)
            yield
        finally:
            ray.shutdown()


def _init_ray(address: str | None, needed: dict[str, float]) -> None:
    arguments: dict[str, Any] = {"address": address}
    if address is None:
        arguments = {
            "num_cpus": max(int(-(-needed["CPU"] // 1)), 1),
            "num_gpus": int(-(-needed["GPU"] // 1)),
            "include_dashboard": False,
        }
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **arguments)
    except Exception as error:
        raise RunError(f"Ray did not start: {error}") from error
    # At its end Tune looks for result files of loggers that are switched off, and reports that for each trial.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _check_devices(workers: int, needed: dict[str, float]) -> None:
    available = ray.cluster_resources()
    for device, amount in needed.items():
        if amount > available.get(device, 0.0):
            raise RunError(
                f"--workers {workers}: expected {amount:g} {device} in the Ray cluster, it has "
                f"{available.get(device, 0.0):g}. Lower --workers, --cpus-per-trial or --gpus-per-trial."
            )


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets environment variables that are not set, for the length of a block."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


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
