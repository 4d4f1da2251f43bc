"""The trainings of a search: the scheduler and its executor, inside the budget's account."""

from __future__ import annotations

import math
from collections.abc import Callable

from bloodauto.config.machine import total_memory_bytes
from bloodauto.config.settings import SearchSettings
from bloodauto.config.space import covering_recipes
from bloodauto.errors import RunError
from bloodauto.models.device import Device, cached_device_settings
from bloodauto.models.tensorflow import import_tensorflow_quietly
from bloodauto.training.session import TrainingData
from bloodauto.tuning.budget.ledger import BudgetAccount
from bloodauto.tuning.constants import BUDGET_CONSTANTS
from bloodauto.tuning.executors import Executor
from bloodauto.tuning.executors.keras_trainer import KerasTrainerFactory
from bloodauto.tuning.executors.ray.cluster import WorkerResources
from bloodauto.tuning.executors.ray.executor import RayExecutor
from bloodauto.tuning.reconciliation import reconcile
from bloodauto.tuning.scheduler import Scheduler
from bloodauto.tuning.settings import SchedulerSettings
from bloodauto.tuning.study import StudyRecord, quiet_optuna
from bloodauto.workflows.machine_speed import MachineSpeed
from bloodauto.workflows.planning import SearchPlan

#: The workers together may use this fraction of the machine's memory.
_WORKERS_MEMORY_FRACTION = 0.8


def make_executor(plan: SearchPlan, *, address: str | None, on_tick: Callable[[Scheduler], None]) -> RayExecutor:
    """The executor of a search; leaving its block shuts Ray down.

    Args:
        plan: What the search is to do.
        address: Address of a Ray cluster; None: this machine.
        on_tick: Called several times a second while trainings run.
    """
    settings, data = plan.settings, plan.data
    device = Device(
        cores=max(math.floor(settings.cpus_per_trial), 1),
        gpu_fraction=settings.gpus_per_trial,
        settings=cached_device_settings(on_gpu=settings.gpus_per_trial > 0),
    )
    return RayExecutor(
        plan.run,
        WorkerResources(settings.workers, settings.cpus_per_trial, settings.gpus_per_trial, address),
        KerasTrainerFactory(
            run=plan.run.root.resolve(),
            data=TrainingData(data.dataset, data.splits, plan.suite, data.target),
            objectives=settings.objectives,
            device=device,
            weights_files=plan.weights_files,
        ),
        memory_limit_bytes=_memory_limit_bytes(settings.workers),
        on_tick=on_tick,
    )


def check_gpus(settings: SearchSettings, address: str | None) -> None:
    """Checks that TensorFlow can use the GPUs that the workers reserve: that the driver lists them does not suffice.

    Args:
        settings: Of the search.
        address: Address of a Ray cluster, whose nodes are not looked at; None: this machine.

    Raises:
        RunError: It can use fewer.
    """
    if settings.gpus_per_trial == 0 or address is not None:
        return
    needed = math.ceil(settings.workers * settings.gpus_per_trial)
    usable = len(import_tensorflow_quietly().config.list_physical_devices("GPU"))
    if usable >= needed:
        return
    mend = "Lower --workers or --gpus-per-trial."
    if usable == 0:
        mend = (
            "Install its CUDA libraries (pip install 'bloodauto[cuda]') and check CUDA_VISIBLE_DEVICES, or train on the CPU: "
            "--gpus-per-trial 0, with the budget in cpu-h."
        )
    raise RunError(
        f"--workers {settings.workers} --gpus-per-trial {settings.gpus_per_trial:g}: expected {needed} GPUs that TensorFlow "
        f"can use, got {usable}. {mend}"
    )


def run_trainings(
    plan: SearchPlan,
    study: StudyRecord,
    account: BudgetAccount,
    executor: Executor,
    *,
    speed: MachineSpeed | None = None,
) -> bool:
    """Runs trials and refits until the budget for trainings is spent.

    The slots of all workers are reserved meanwhile. Afterwards the driver's slot is, so that the caller can finalize the
    search.

    Args:
        plan: What the search is to do.
        study: Its trials so far.
        account: Pays for it.
        executor: Runs the trainings.
        speed: What is known of the machine's speed, and where it is kept; None: nothing is known or kept.

    Returns:
        False when the user interrupted. Open trials then stay open, and a later session resumes them.

    Raises:
        RunError: A failure that every training would have.
    """
    settings = plan.settings
    with quiet_optuna():
        reconcile(
            study,
            plan.run,
            settings.objectives,
            account.ledger,
            devices_per_worker=settings.devices_per_worker,
        )
    with quiet_optuna(), account.worker_slots(settings.workers) as slots:
        scheduler = Scheduler.create(
            study,
            plan.space,
            account.ledger,
            pruning=plan.pruning,
            settings=SchedulerSettings(
                seed=settings.seed,
                workers=settings.workers,
                devices_per_worker=settings.devices_per_worker,
                refit_fraction=settings.refit_fraction,
                finalization_device_seconds=BUDGET_CONSTANTS.max_finalization_fraction * settings.budget_device_seconds,
                num_folds=plan.data.splits.num_folds,
                training_images=len(plan.data.splits.train_index()),
                max_trials=settings.max_trials,
                objectives=settings.objectives,
                prior=plan.prior,
                epoch_seconds=() if speed is None else speed.epoch_seconds(covering_recipes(plan.space)),
            ),
            initial=plan.initial.in_space,
        )
        if not scheduler.is_budget_exhausted:
            completed = executor.execute(scheduler, slots)
            if speed is not None:
                speed.save(scheduler.observed_epoch_seconds())
            if scheduler.abort_reason is not None:
                raise RunError(f"the search was given up: {scheduler.abort_reason}")
            if not completed:
                return False
        scheduler.close()
        return True


def _memory_limit_bytes(workers: int) -> int:
    """A worker with more resident memory than its part of the machine's is replaced."""
    return int(_WORKERS_MEMORY_FRACTION * total_memory_bytes() / max(workers, 2))
