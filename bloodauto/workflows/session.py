"""One search, from its settings to finished trainings; leaves the ledger open for what comes after."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna

from bloodauto.config.settings import SearchSettings
from bloodauto.config.space import Space, corners
from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.suite_weights import suite_for
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.executors.shutdown import DRIVER
from bloodauto.tuning.pruning import Pruning, plan_pruning
from bloodauto.tuning.scheduler import Policy, PolicySettings
from bloodauto.workflows.prepare import (
    Declared,
    PreparedData,
    WeightsFiles,
    checked_space,
    declared_recipes,
    prepare_data,
    resolve_weights,
)

_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]*@")
#: At most this share of the budget is kept for the end of Ray, ensemble, export and sealed test; see ``Policy``.
_FINAL_SHARE = 0.35


@dataclass(frozen=True)
class Plan:
    """Everything that is known before any budget is spent."""

    run: RunDirectory
    settings: SearchSettings
    data: PreparedData
    space: Space
    declared: Declared
    weights_files: WeightsFiles
    pruning: Pruning
    suite: ShiftSuite


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


def make_plan(run: RunDirectory, settings: SearchSettings, space_path: Path) -> Plan:
    """Reads and checks all there is to read and check; writes nothing.

    Raises:
        UserError: anything the user must mend first; no budget has been spent.
    """
    space = checked_space(space_path)
    declared = declared_recipes(settings.warm_start, space, settings.objectives)
    # Before the weights: nobody should download these for images that cannot be used.
    data = prepare_data(run, settings)
    weights = resolve_weights(space, Path(settings.weights_dir) if settings.weights_dir is not None else None)
    longest = max(recipe.total_epochs for recipe in corners(space))
    pruning = plan_pruning(settings.pruner, max_epochs=longest)  # type: ignore[arg-type]
    suite = suite_for(itertools.chain(corners(space), corners(space, at_last=True)), seed=settings.seed)
    return Plan(run, settings, data, space, declared, weights, pruning, suite)


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
def trainings(
    plan: Plan, study: optuna.Study, ledger: Ledger, *, address: str | None, show: Callable[[Policy], None]
) -> Iterator[bool]:
    """Runs trials and refits until the budget's share for them is spent; the block then concludes the search.

    All lanes are reserved from the start of Ray until their workers are gone, the driver's from then to the end of the
    block. What is left of Ray holds no device any more and ends after the block.

    Yields:
        False when the user interrupted.
    """
    # Ray reads it once, when it is imported; it would report every worker that we end as a disaster, over many lines.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")
    from bloodauto.models.device import choose_once
    from bloodauto.tuning.executors.ray.executor import Resources, execute, start_ray
    from bloodauto.tuning.executors.ray.worker import WorkerOptions

    settings = plan.settings
    choice = choose_once(on_gpu=settings.gpus_per_trial > 0, image_size_px=max(plan.data.cells.images.shape[1:3]))
    resources = Resources(settings.workers, settings.cpus_per_trial, settings.gpus_per_trial, address)
    lanes = tuple(f"worker {index}" for index in range(settings.workers))
    for lane in lanes:
        ledger.reserve(lane, settings.devices_per_worker, "start-up")
    import ray

    try:
        policy = Policy(
            study=study,
            space=plan.space,
            ledger=ledger,
            pruning=plan.pruning,
            settings=PolicySettings(
                seed=settings.seed,
                workers=settings.workers,
                devices_per_worker=settings.devices_per_worker,
                refit_share=settings.refit_share,
                final_device_seconds=_FINAL_SHARE * settings.budget_device_seconds,
                num_folds=plan.data.splits.num_folds,
                max_trials=settings.max_trials,
                objectives=settings.objectives,
            ),
            declared=plan.declared.inside,
            now=time.monotonic,
        )
        if policy.is_too_late:
            policy.close()
            ledger.reserve(DRIVER, settings.devices_per_worker, "ensemble")
            for lane in lanes:
                ledger.hand_back(lane)
            yield True
            return
        start_ray(resources)
        finished = execute(
            policy,
            ledger,
            plan.run,
            resources=resources,
            cells=plan.data.cells,
            splits=plan.data.splits,
            suite=plan.suite,
            target=plan.data.target,
            options=WorkerOptions(
                run=str(plan.run.root.resolve()),
                cores=max(math.floor(settings.cpus_per_trial), 1),
                gpu_share=settings.gpus_per_trial,
                objectives=settings.objectives,
                jit_compile=choice.jit_compile,
                precision=choice.precision,
                augmentation_engine=choice.augmentation_engine,
                weights_files=plan.weights_files,
                memory_limit_bytes=_memory_limit_bytes(settings.workers),
            ),
            lanes=lanes,
            show=lambda: show(policy),
        )
        if finished:
            policy.close()
        yield finished
    finally:
        for lane in (*lanes, DRIVER):
            if ledger.has(lane):
                ledger.release(lane)
        ray.shutdown()


def _memory_limit_bytes(workers: int) -> int:
    """A worker beyond an even share of four fifths of the machine's memory is replaced."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return int(0.8 * pages * page / max(workers, 2))
