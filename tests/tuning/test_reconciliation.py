"""What the files of a run tell and the study does not know is recorded before anything is decided."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import TrialState

from bloodauto.clock import SimulatedClock
from bloodauto.config.objectives import Objectives
from bloodauto.config.space import parameters_of
from bloodauto.run.artifacts import LedgerCharge, TrainingHistory
from bloodauto.run.directory import RunDirectory
from bloodauto.testing.run_factory import make_epoch
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.reconciliation import reconcile
from bloodauto.tuning.refits import PlannedRefit
from bloodauto.tuning.study import StudyRecord
from tests.tuning.executors.test_ends import write_training

SPACE, OBJECTIVES = tiny_space(), Objectives()


def test_what_finished_on_disk_is_complete_and_epochs_that_nobody_told_are_recorded(tmp_path: Path) -> None:
    """Trial 0 finished, trial 1 has two epochs of which the study knows one, trial 2 has nothing, one refit finished."""
    run = RunDirectory(tmp_path)
    left = StudyRecord.open(run, SPACE, OBJECTIVES)
    for number in range(3):
        recipe = tiny_recipe(SPACE, learning_rate=(1 + number) * 1e-3)
        left.enqueue(parameters_of(SPACE, recipe), "initial: any")
        left.ask(optuna.samplers.RandomSampler(seed=0))
        left.mark_started(number, given_seconds=20.0)
    left.report(0, 1, 0.4)
    left.report(1, 1, 0.3)
    left.save_refit_plan([PlannedRefit(f"0-fold0-{seed}", 0, left.recipe(0), 0, seed) for seed in (1, 2)])
    write_training(run.trial(0).root)
    write_training(run.refit("0-fold0-1").root)
    for number, objectives in ((0, (0.4, 0.5)), (1, (0.3, 0.6))):
        epochs = tuple(make_epoch(epoch, objective=value) for epoch, value in enumerate(objectives, start=1))
        run.trial(number).root.mkdir(parents=True, exist_ok=True)
        run.trial(number).history.write(TrainingHistory(epochs=epochs))
    run.ledger.append(LedgerCharge(at_unix=0.0, phase="trial 0", device_seconds=90.0, spent_device_seconds=90.0))

    study = StudyRecord.open(run, SPACE, OBJECTIVES)
    ledger = Ledger(run.ledger, budget_device_seconds=100.0, clock=SimulatedClock())
    reconcile(study, run, OBJECTIVES, ledger, devices_per_worker=1.0)

    for record in (study, StudyRecord.open(run, SPACE, OBJECTIVES)):
        assert [(trial.number, trial.objective, trial.device_seconds) for trial in record.completed] == [(0, 0.7, 90.0)]
        assert (dict(record.curve(0)), dict(record.curve(1))) == ({1: 0.4, 2: 0.5}, {1: 0.3, 2: 0.6})
        assert record.open_numbers == [1, 2]
        assert [refit.name for refit in record.pending_refits() or ()] == ["0-fold0-2"]
        states = [trial.state for trial in record.frozen_trials()]
        assert states == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.RUNNING]
    candidate = study.reopen(optuna.samplers.RandomSampler(seed=0))
    assert candidate is not None
    assert (candidate.number, candidate.epochs_done) == (1, 2)


def test_a_trial_that_a_killed_session_charged_to_nobody_counts_with_the_time_of_its_epochs(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    study = StudyRecord.open(run, SPACE, OBJECTIVES)
    study.enqueue(parameters_of(SPACE, tiny_recipe(SPACE)), "initial: any")
    study.ask(optuna.samplers.RandomSampler(seed=0))
    study.mark_started(0, given_seconds=20.0)
    write_training(run.trial(0).root)
    epochs = tuple(make_epoch(epoch).replace(seconds=30.0) for epoch in (1, 2))
    run.trial(0).history.write(TrainingHistory(epochs=epochs))
    ledger = Ledger(run.ledger, budget_device_seconds=100.0, clock=SimulatedClock())
    study = StudyRecord.open(run, SPACE, OBJECTIVES)
    reconcile(study, run, OBJECTIVES, ledger, devices_per_worker=0.5)
    assert [trial.device_seconds for trial in study.completed] == [30.0]
