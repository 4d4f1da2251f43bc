"""One search, from its settings to finished trainings; leaves the ledger open for what comes after."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator

import optuna

from bloodauto.config.settings import SearchSettings
from bloodauto.errors import RunError
from bloodauto.models.device import Device, cached_device_settings
from bloodauto.run.directory import RunDirectory
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.executors.ray.executor import WorkerResources, execute, start_ray, stop_ray
from bloodauto.tuning.executors.ray.worker import WorkerOptions
from bloodauto.tuning.executors.shutdown import DRIVER
from bloodauto.tuning.scheduler import Scheduler, SchedulerSettings
from bloodauto.workflows.planning import SearchPlan

_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]*@")
#: At most this share of the budget is kept for the end of Ray, ensemble, export and held-out test; see ``Policy``.
_MAX_FINALIZATION_FRACTION = 0.35


@contextlib.contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Holds the run for this process; the lock is the operating system's, so a killed search leaves none behind.

    Raises:
        RunError: another process holds it, or nothing can be written there.
    """
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        opened = run.lock.open("a+")
    except OSError as error:
        raise RunError(
            f"{run.root}: expected a folder that a run can be written to, got: {error.strerror}. Take another --run."
        ) from None
    with opened as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"{run.root}: another search is running in it. Wait for it, end it, or take another --run."
            ) from None
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)


def open_study(run: RunDirectory, settings: SearchSettings) -> optuna.Study:
    """Creates or opens the run's study; this process is its only writer.

    Raises:
        RunError: the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # The sampler's grouping of conditional parameters is marked experimental; we rely on it knowingly.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    storage = settings.storage
    url = storage if storage is not None else f"sqlite:///{run.study.resolve()}"
    try:
        return optuna.create_study(
            storage=url,
            study_name=run.study_name(storage),
            directions=settings.objectives.directions,
            load_if_exists=True,
        )
    except Exception as error:
        # Neither the URL nor what the driver says of it may carry a password to the screen.
        said = _PASSWORD.sub(
            r"\1:***@", f"--storage {url}: the study could not be opened ({str(error).splitlines()[0][:200]}"
        )
        hint = ""
        if isinstance(error, ImportError):
            hint = " Its driver is missing; for PostgreSQL: pip install 'bloodauto[postgresql]'."
        raise RunError(f"{said}).{hint}") from None


def open_ledger(run: RunDirectory, settings: SearchSettings) -> Ledger:
    """The run's ledger, continued where it was left."""
    return Ledger(
        run.ledger,
        budget_device_seconds=settings.budget_device_seconds,
        now=time.monotonic,
        wall_clock=time.time,
    )


@contextlib.contextmanager
def run_trainings(
    plan: SearchPlan, study: optuna.Study, ledger: Ledger, *, address: str | None, show: Callable[[Scheduler], None]
) -> Iterator[bool]:
    """Runs trials and refits until the budget's share for them is spent; the block then concludes the search.

    All slots are reserved from the start of Ray until their workers are gone, the driver's from then to the end of the
    block. What is left of Ray holds no device any more and ends after the block.

    Yields:
        False when the user interrupted.
    """
    settings = plan.settings
    device_settings = cached_device_settings(on_gpu=settings.gpus_per_trial > 0)
    resources = WorkerResources(settings.workers, settings.cpus_per_trial, settings.gpus_per_trial, address)
    slots = tuple(f"worker {index}" for index in range(settings.workers))
    for slot in slots:
        ledger.reserve(slot, settings.devices_per_worker, "start-up")
    try:
        scheduler = Scheduler(
            study=study,
            space=plan.space,
            ledger=ledger,
            pruning=plan.pruning,
            settings=SchedulerSettings(
                seed=settings.seed,
                workers=settings.workers,
                devices_per_worker=settings.devices_per_worker,
                refit_fraction=settings.refit_fraction,
                finalization_device_seconds=_MAX_FINALIZATION_FRACTION * settings.budget_device_seconds,
                num_folds=plan.data.splits.num_folds,
                max_trials=settings.max_trials,
                objectives=settings.objectives,
            ),
            initial=plan.initial.in_space,
            now=time.monotonic,
        )
        if scheduler.is_budget_exhausted:
            scheduler.close()
            ledger.reserve(DRIVER, settings.devices_per_worker, "ensemble")
            for slot in slots:
                ledger.release_devices(slot)
            yield True
            return
        start_ray(resources)
        finished = execute(
            scheduler,
            ledger,
            plan.run,
            resources=resources,
            dataset=plan.data.dataset,
            splits=plan.data.splits,
            suite=plan.suite,
            target=plan.data.target,
            options=WorkerOptions(
                run=str(plan.run.root.resolve()),
                device=Device(max(math.floor(settings.cpus_per_trial), 1), settings.gpus_per_trial, device_settings),
                objectives=settings.objectives,
                weights_files=plan.weights_files,
                memory_limit_bytes=_memory_limit_bytes(settings.workers),
            ),
            slots=slots,
            show=lambda: show(scheduler),
        )
        if finished:
            scheduler.close()
        yield finished
    finally:
        for slot in (*slots, DRIVER):
            if ledger.is_reserved(slot):
                ledger.release(slot)
        stop_ray()


def _memory_limit_bytes(workers: int) -> int:
    """A worker beyond an even share of four fifths of the machine's memory is replaced."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return int(0.8 * pages * page / max(workers, 2))
