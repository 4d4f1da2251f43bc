"""What is recorded of a study, and what a later session reads of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bloodauto.config.objectives import Objectives
from bloodauto.config.space import parameters_of
from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_attributes import Timing, TrialAttributes
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.refits import PlannedRefit
from bloodauto.tuning.study import CandidateTrial, StudyRecord, TrialEnd, quiet_optuna

SPACE = tiny_space()
SINGLE, SEVERAL = Objectives(("shift",)), Objectives(("shift", "parameters"))
RECIPES = [tiny_recipe(SPACE, learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)]
TIMING = Timing(start_seconds=2.0, cold=True, full_epoch_seconds=4.0, evaluation_seconds=0.5, finish_seconds=1.0)


def open_record(folder: Path, objectives: Objectives = SINGLE) -> StudyRecord:
    return StudyRecord.open(RunDirectory(folder), SPACE, objectives)


def ask(record: StudyRecord, index: int) -> CandidateTrial:
    record.enqueue(parameters_of(SPACE, RECIPES[index]), f"initial: recipe {index}")
    candidate = record.ask(optuna.samplers.RandomSampler(seed=0))
    assert candidate is not None
    return candidate


def attributes_on_disk(folder: Path) -> list[TrialAttributes]:
    study = optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{folder / 'study.db'}")
    return [TrialAttributes.read(trial) for trial in study.get_trials()]


def test_a_trial_from_the_queue_to_its_end(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    candidate = ask(record, 0)
    assert (candidate.number, candidate.recipe, candidate.epochs_done, candidate.is_initial) == (0, RECIPES[0], 0, True)
    record.mark_started(0, given_seconds=20.0)
    record.report(0, 1, 0.4)
    record.report(0, 2, 0.6)
    record.save_timing(0, TIMING)
    end = record.record_end(0, TrialEnd("complete", objective=0.7, epochs_done=2, device_seconds=12.34567))
    assert end.outcome == "complete"
    assert record.incumbent is not None
    assert record.incumbent.objective == 0.7
    (attributes,) = attributes_on_disk(tmp_path)
    assert attributes == TrialAttributes(
        origin="initial: recipe 0",
        recipe_id=RECIPES[0].id,
        backbone="own_cnn_4x16",
        started=True,
        given_seconds=20.0,
        timing=TIMING,
        outcome="complete",
        reason="",
        device_seconds=12.346,
    )


def test_a_later_session_knows_what_an_earlier_one_recorded(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    for index, objective in enumerate((0.6, 0.8)):
        ask(record, index)
        record.mark_started(index, given_seconds=20.0)
        record.report(index, 1, objective)
        record.save_timing(index, TIMING)
        record.record_end(index, TrialEnd("complete", objective=objective, epochs_done=1))
    ask(record, 2)
    record.report(2, 1, 0.3)
    later = open_record(tmp_path)
    assert [trial.objective for trial in later.completed] == [0.6, 0.8]
    assert later.incumbent == later.completed[1]
    assert (later.num_trials, later.num_started) == (3, 2)
    assert later.timings() == [(RECIPES[0], TIMING), (RECIPES[1], TIMING)]
    assert later.curves() == {0: {1: 0.6}, 1: {1: 0.8}, 2: {1: 0.3}}
    assert all(later.was_tried(recipe) for recipe in RECIPES)
    assert later.next_open_number == 2
    candidate = later.reopen(optuna.samplers.RandomSampler(seed=0))
    assert candidate is not None
    assert (candidate.number, candidate.recipe, candidate.epochs_done) == (2, RECIPES[2], 1)
    assert later.next_open_number is None


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (TrialEnd("failed", "nan", epochs_done=3), TrialState.FAIL),
        (TrialEnd("pruned", "rung_1", epochs_done=1), TrialState.PRUNED),
        (TrialEnd("out_of_budget", "epoch 2 of 6", epochs_done=2), TrialState.PRUNED),
        (TrialEnd("out_of_budget", "predicted 9 s, left 3 s"), TrialState.FAIL),
        (TrialEnd("complete", objective=0.5, epochs_done=6), TrialState.COMPLETE),
    ],
)
def test_a_sampler_sees_what_it_can_use(tmp_path: Path, end: TrialEnd, state: TrialState) -> None:
    record = open_record(tmp_path)
    ask(record, 0)
    for epoch in range(1, end.epochs_done + 1):
        record.report(0, epoch, 0.1 * epoch)
    record.record_end(0, end)
    study = optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.get_trials()[0].state == state


@pytest.mark.parametrize("objective", [float("nan"), float("inf"), None])
def test_a_complete_trial_without_a_finite_objective_is_a_failure(tmp_path: Path, objective: float | None) -> None:
    record = open_record(tmp_path)
    ask(record, 0)
    end = record.record_end(0, TrialEnd("complete", objective=objective, epochs_done=6))
    assert (end.outcome, end.reason) == ("failed", "nan")
    assert record.incumbent is None
    assert attributes_on_disk(tmp_path)[0].reason == "nan"


def test_messages_of_failures_are_kept_and_cut(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    ask(record, 0)
    record.record_end(0, TrialEnd("failed", "io", message="no space " * 500))
    (attributes,) = attributes_on_disk(tmp_path)
    assert attributes.message.startswith("no space")
    assert len(attributes.message) == 1000


def test_with_several_objectives_the_curve_is_an_attribute_and_the_pareto_front_decides(tmp_path: Path) -> None:
    record = open_record(tmp_path, SEVERAL)
    for index, values in enumerate([(0.6, 10.0), (0.8, 20.0), (0.5, 30.0)]):
        ask(record, index)
        record.report(index, 1, values[0])
        record.record_end(index, TrialEnd("complete", objective=values[0], secondary=values[1:], epochs_done=1))
    assert [trial.number for trial in record.pareto_front()] == [0, 1]
    assert [trial.number for trial in record.refit_eligible_trials()] == [0, 1]
    later = open_record(tmp_path, SEVERAL)
    assert later.curve(2) == {1: 0.5}
    pareto_front = later.pareto_front_artifact()
    assert [trial.trial for trial in pareto_front.trials] == [1, 0]
    assert pareto_front.trials[0].values == {"shift": 0.8, "parameters": 20.0}


def test_refits_that_ended_are_not_pending(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    ask(record, 0)
    record.record_end(0, TrialEnd("complete", objective=0.7, epochs_done=6))
    assert record.pending_refits() is None
    planned = [PlannedRefit(f"00000-fold{fold}-seed7", 0, RECIPES[0], fold, 7) for fold in range(3)]
    record.save_refit_plan(planned)
    record.record_refit_end(planned[1].name, "completed")
    assert open_record(tmp_path).pending_refits() == [planned[0], planned[2]]


def test_the_end_of_the_trainings_is_recorded(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    assert not record.trainings_are_done
    record.mark_trainings_done()
    assert open_record(tmp_path).trainings_are_done


def test_the_study_names_its_objectives_for_the_dashboard(tmp_path: Path) -> None:
    for _ in ("new", "resumed"):
        open_record(tmp_path, Objectives(("accuracy", "latency")))
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{RunDirectory(tmp_path).study}")
    assert study.metric_names == ["accuracy", "latency"]


def test_a_study_of_another_program_is_an_error(tmp_path: Path) -> None:
    study = optuna.create_study(
        study_name="bloodauto", storage=f"sqlite:///{tmp_path / 'study.db'}", direction="maximize"
    )
    study.ask().set_user_attr("flavour", "vanilla")
    with pytest.raises(RunError, match="trial 0: user attributes"):
        open_record(tmp_path)


def test_a_storage_that_cannot_be_opened_is_an_error_without_its_password(tmp_path: Path) -> None:
    storage = "nosuchdatabase://searcher:secret@host/studies"
    with pytest.raises(RunError) as raised:
        StudyRecord.open(RunDirectory(tmp_path), SPACE, SINGLE, storage=storage)
    assert "nosuchdatabase://searcher:***@host" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_optuna_is_quiet_inside_a_block_only() -> None:
    verbosity, filters = optuna.logging.get_verbosity(), list(warnings.filters)
    with quiet_optuna():
        assert optuna.logging.get_verbosity() == optuna.logging.ERROR
        optuna.samplers.TPESampler(multivariate=True, group=True)
    assert optuna.logging.get_verbosity() == verbosity
    assert warnings.filters == filters
