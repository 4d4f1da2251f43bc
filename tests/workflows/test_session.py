"""The trainings of a search, in simulated time: what is finished, what is interrupted, what is given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.config.settings import resolve_settings
from bloodauto.config.shipped import find_space
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.testing.simulated_search import generated_curves
from bloodauto.tuning.budget.ledger import DRIVER_SLOT, BudgetAccount, WorkerSlots
from bloodauto.tuning.executors.simulated import Fault, SimulatedExecutor, SimulatedMachine
from bloodauto.tuning.scheduler import Scheduler
from bloodauto.tuning.study import StudyRecord
from bloodauto.workflows.planning import SearchPlan, plan_search
from bloodauto.workflows.session import run_trainings


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SearchPlan:
    folder = tmp_path_factory.mktemp("session")
    write_dataset(synthesize(160, site="lab_a", seed=3, image_size_px=24), folder / "cells.npz")
    settings = resolve_settings(
        {"data": str(folder / "cells.npz"), "budget": "900cpu-s", "space": "tiny", "workers": 2, "warm_start": "none"}
    )
    return plan_search(RunDirectory(folder / "run"), settings, find_space("tiny"))


def open_study(plan: SearchPlan, folder: Path) -> StudyRecord:
    return StudyRecord.open(RunDirectory(folder), plan.space, plan.settings.objectives)


def open_account(plan: SearchPlan, folder: Path, executor: SimulatedExecutor) -> BudgetAccount:
    return BudgetAccount(
        RunDirectory(folder).ledger,
        budget_device_seconds=plan.settings.budget_device_seconds,
        devices_per_slot=plan.settings.devices_per_worker,
        clock=executor.clock,
    )


def test_a_session_trains_inside_the_budget_and_leaves_the_driver_to_pay(plan: SearchPlan, tmp_path: Path) -> None:
    executor, study = SimulatedExecutor(generated_curves()), open_study(plan, tmp_path)
    account = open_account(plan, tmp_path, executor)
    assert run_trainings(plan, study, account, executor)
    assert account.ledger.is_reserved(DRIVER_SLOT)
    assert account.ledger.devices == plan.settings.devices_per_worker
    account.close()
    assert account.ledger.spent_device_seconds <= plan.settings.budget_device_seconds
    assert study.incumbent is not None
    assert all(trial.outcome is not None for trial in study.attributes().values())


class NeverExecuted:
    """An executor that must not be used."""

    def execute(self, scheduler: Scheduler, slots: WorkerSlots) -> bool:
        raise AssertionError("nothing is to be trained")


def test_a_spent_budget_starts_no_worker(plan: SearchPlan, tmp_path: Path) -> None:
    executor, study = SimulatedExecutor(generated_curves()), open_study(plan, tmp_path)
    account = open_account(plan, tmp_path, executor)
    run_trainings(plan, study, account, executor)
    account.close()
    account = open_account(plan, tmp_path, executor)
    assert run_trainings(plan, open_study(plan, tmp_path), account, NeverExecuted())
    account.close()


def test_a_failure_that_every_training_would_have_is_an_error(plan: SearchPlan, tmp_path: Path) -> None:
    machine = SimulatedMachine(faults=(Fault("00001", 1, "abort"),))
    executor, study = SimulatedExecutor(generated_curves(), machine), open_study(plan, tmp_path)
    account = open_account(plan, tmp_path, executor)
    with pytest.raises(RunError, match="the search was given up: simulated"):
        run_trainings(plan, study, account, executor)
    account.close()
    assert account.ledger.devices == 0


class Interrupted(SimulatedExecutor):
    """An executor that the user interrupts after a minute."""

    def execute(self, scheduler: Scheduler, slots: WorkerSlots) -> bool:
        return not self.run(scheduler, slots, stop_at=self.clock.now() + 60.0).interrupted


def test_an_interrupted_session_leaves_its_trials_open(plan: SearchPlan, tmp_path: Path) -> None:
    executor, study = Interrupted(generated_curves()), open_study(plan, tmp_path)
    account = open_account(plan, tmp_path, executor)
    assert not run_trainings(plan, study, account, executor)
    account.close()
    assert any(trial.outcome is None for trial in study.attributes().values())
