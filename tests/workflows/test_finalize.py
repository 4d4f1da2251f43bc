"""What a search does after its trainings: the budget is kept, and what is missing is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe
from bloodauto.config.settings import resolve_settings
from bloodauto.config.shipped import find_space
from bloodauto.config.space import SearchSpace, covering_recipes, parameters_of
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.run.artifacts import LedgerCharge
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_text
from bloodauto.run.study_attributes import Outcome, Timing, TrialAttributes
from bloodauto.testing.simulated_search import tiny_space
from bloodauto.tuning.budget.ledger import BudgetAccount
from bloodauto.tuning.study import StudyRecord
from bloodauto.workflows.finalize import _evaluate_pruned, _failures, _stopped_trials, finalize
from bloodauto.workflows.planning import SearchPlan, plan_search

OBJECTIVES = Objectives()


def empty_record(space: SearchSpace) -> StudyRecord:
    return StudyRecord(optuna.create_study(direction="maximize"), space, OBJECTIVES)


def test_failures_are_counted_by_reason_with_a_message_of_each() -> None:
    space, study = tiny_space(), optuna.create_study(direction="maximize")
    assert _failures(StudyRecord(study, space, OBJECTIVES)) == ""
    ended: tuple[tuple[Outcome, str, str], ...] = (
        ("failed", "io", "OSError: [Errno 28] No space left on device"),
        ("pruned", "rung_1", ""),
        ("failed", "io", "OSError: [Errno 28] No space left on device"),
        ("failed", "nan", "the loss is nan"),
    )
    for outcome, reason, message in ended:
        trial = study.ask()
        TrialAttributes(outcome=outcome, reason=reason, message=message).write(trial)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert _failures(StudyRecord(study, space, OBJECTIVES)) == (
        "2 failed (io: OSError: [Errno 28] No space left on device); 1 failed (nan: the loss is nan)"
    )


def test_whatever_ended_a_trial_before_its_end_it_is_a_candidate() -> None:
    study = optuna.create_study(direction="maximize")
    for outcome in ("complete", "pruned", "out_of_budget", "failed", None):
        trial = study.ask()
        if outcome is not None:
            TrialAttributes(outcome=outcome).write(trial)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert _stopped_trials(StudyRecord(study, tiny_space(), OBJECTIVES)) == [1, 2, 3]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SearchPlan:
    folder = tmp_path_factory.mktemp("finalize")
    write_dataset(synthesize(160, site="lab_a", seed=3, image_size_px=24), folder / "cells.npz")
    settings = resolve_settings({"data": str(folder / "cells.npz"), "budget": "10cpu-s", "space": "tiny", "workers": 2})
    return plan_search(RunDirectory(folder / "run"), settings, find_space("tiny"))


@pytest.mark.parametrize("spent", [6.0, 9.5, 30.0])
def test_however_slow_a_step_is_the_budget_is_kept_and_what_is_missing_is_said(plan: SearchPlan, spent: float) -> None:
    """Six seconds of a budget of ten are spent, or almost all, or more than all by an earlier session."""
    plan.run.root.mkdir(exist_ok=True)
    plan.run.ledger.path.unlink(missing_ok=True)
    plan.run.ledger.append(LedgerCharge(at_unix=0.0, phase="trial 0", device_seconds=spent, spent_device_seconds=spent))
    study, steps = empty_record(plan.space), []

    def slow_step(name: str) -> None:
        steps.append(name)
        if name == "choosing the ensemble":
            time.sleep(60)

    with BudgetAccount.open(plan.run.ledger, budget_device_seconds=10, devices_per_slot=1.0) as account:
        finalize(plan, study, account, phase=slow_step)
    assert account.ledger.spent_device_seconds <= max(10.0, spent + 1.0)
    assert account.ledger.spent_device_seconds >= max(9.0, spent)
    assert f"export-best --run {plan.run.root}" in steps[-1]
    assert study.trainings_are_done, "nothing more is to be trained: a later export may choose the ensemble"
    assert not plan.run.ensemble.path.exists()


def add_trial(
    study: optuna.Study, plan: SearchPlan, recipe: Recipe, outcome: Outcome, *, evaluation_seconds: float
) -> None:
    parameters = parameters_of(plan.space, recipe)
    timing = Timing(
        start_seconds=2.0,
        cold=True,
        full_epoch_seconds=10.0,
        evaluation_seconds=evaluation_seconds / 2,
        finish_seconds=evaluation_seconds,
    )
    study.add_trial(
        optuna.create_trial(
            params=parameters,
            distributions={
                name: optuna.distributions.CategoricalDistribution([value]) for name, value in parameters.items()
            },
            value=0.9,
            user_attrs=TrialAttributes(outcome=outcome, timing=timing).as_user_attrs(),
        )
    )


def test_pruned_trials_are_evaluated_in_the_time_that_an_export_of_the_refits_leaves(
    plan: SearchPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only completed trial is cheap; the refitted one, which will be exported, is expensive."""
    recipes = {recipe.backbone.width: recipe for recipe in covering_recipes(plan.space)}
    cheap, expensive = recipes[min(recipes)], recipes[max(recipes)]
    assert cheap.backbone != expensive.backbone
    study = optuna.create_study(direction="maximize")
    add_trial(study, plan, cheap, "complete", evaluation_seconds=1.0)
    add_trial(study, plan, expensive, "out_of_budget", evaluation_seconds=9.0)
    record = StudyRecord(study, plan.space, OBJECTIVES)
    allowed_seconds = []

    def evaluate(*arguments: object, seconds_left: Callable[[], float], **named: object) -> None:
        allowed_seconds.append(seconds_left())

    monkeypatch.setattr("bloodauto.workflows.finalize.evaluate_pruned", evaluate)
    plan = replace(plan, run=RunDirectory(tmp_path / "run"))
    _evaluate_pruned(plan, record, [(0, 0.9)], lambda: 100.0)
    refit = plan.run.refit("00001-fold0-seed1")
    refit.root.mkdir(parents=True)
    write_text(refit.result.path, "{}")
    _evaluate_pruned(plan, record, [(0, 0.9)], lambda: 100.0)
    assert allowed_seconds[1] < allowed_seconds[0] - 5 * (9.0 - 1.0) / 2
