from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import pytest

from bloodauto.config.recipe import Recipe
from bloodauto.config.settings import resolve_settings
from bloodauto.config.shipped import find_space
from bloodauto.config.space import covering_recipes, parameters_of
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.run.artifacts import LedgerCharge
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_text
from bloodauto.tuning.budget.cost_model import Timing
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.executors.shutdown import DRIVER
from bloodauto.workflows.finalize import _evaluate_pruned, _failures, finalize, trainings_are_done
from bloodauto.workflows.planning import SearchPlan, plan_search


def test_failures_are_counted_by_reason_with_a_message_of_each() -> None:
    study = optuna.create_study()
    for outcome, reason, message in (
        ("failed", "io", "OSError: [Errno 28] No space left on device"),
        ("pruned", "rung_1", ""),
        ("failed", "io", "OSError: [Errno 28] No space left on device"),
        ("failed", "nan", "the answers are no numbers"),
    ):
        trial = study.ask()
        for name, value in (("outcome", outcome), ("reason", reason), ("message", message)):
            trial.set_user_attr(name, value)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert _failures(study) == (
        "2 failed (io: OSError: [Errno 28] No space left on device); 1 failed (nan: the answers are no numbers)"
    )
    assert _failures(optuna.create_study()) == ""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SearchPlan:
    folder = tmp_path_factory.mktemp("conclusion")
    write_dataset(synthesize(160, site="lab_a", seed=3, image_size_px=24), folder / "cells.npz")
    settings = resolve_settings({"data": str(folder / "cells.npz"), "budget": "10cpu-s", "space": "tiny", "workers": 2})
    return plan_search(RunDirectory(folder / "run"), settings, find_space("tiny"))


@pytest.mark.parametrize("spent", [6.0, 9.5, 30.0])
def test_however_slow_a_step_is_the_budget_is_kept_and_what_is_missing_is_said(
    plan: SearchPlan, tmp_path: Path, spent: float
) -> None:
    """Six seconds of a budget of ten are spent, or almost all, or more than all by an earlier session."""
    charge = LedgerCharge(at_unix=0.0, phase="trial 0", device_seconds=spent, spent_device_seconds=spent)
    plan.run.root.mkdir(exist_ok=True)
    plan.run.ledger.path.unlink(missing_ok=True)
    plan.run.ledger.append(charge)
    ledger = Ledger(plan.run.ledger, budget_device_seconds=10, now=time.monotonic, wall_clock=time.time)
    study, said = optuna.create_study(), []

    def slow_step(name: str) -> None:
        said.append(name)
        if name == "choosing the ensemble":
            time.sleep(60)

    ledger.reserve(DRIVER, 1.0, "worker shutdown")
    finalize(plan, study, ledger, phase=slow_step)
    ledger.release(DRIVER)
    assert ledger.spent_device_seconds <= max(10.0, spent + 1.0)
    assert ledger.spent_device_seconds >= max(9.0, spent)
    assert f"export-best --run {plan.run.root}" in said[-1]
    assert trainings_are_done(study), "nothing more is to be trained: a later export may choose the ensemble"
    assert not plan.run.ensemble.path.exists()


def _told(study: optuna.Study, plan: SearchPlan, recipe: Recipe, outcome: str, *, judging_seconds: float) -> None:
    params = parameters_of(plan.space, recipe)
    timing = Timing(2.0, True, 10.0, judging_seconds / 2, judging_seconds)
    study.add_trial(
        optuna.create_trial(
            params=params,
            distributions={
                name: optuna.distributions.CategoricalDistribution([value]) for name, value in params.items()
            },
            value=0.9,
            user_attrs={"outcome": outcome, "timing": asdict(timing)},
        )
    )


def test_stopped_trials_are_judged_in_what_an_ensemble_of_the_refits_leaves(
    plan: SearchPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one completed trial is cheap; what was refitted, and will be exported, is dear."""
    recipes = {recipe.backbone.width: recipe for recipe in covering_recipes(plan.space)}
    cheap, dear = recipes[min(recipes)], recipes[max(recipes)]
    assert cheap.backbone != dear.backbone
    study = optuna.create_study()
    _told(study, plan, cheap, "complete", judging_seconds=1.0)
    _told(study, plan, dear, "out_of_budget", judging_seconds=9.0)
    left = []

    def asked(*arguments: object, seconds_left: Callable[[], float], **named: object) -> None:
        left.append(seconds_left())

    monkeypatch.setattr("bloodauto.workflows.finalize.evaluate_pruned", asked)
    plan = replace(plan, run=RunDirectory(tmp_path / "run"))
    _evaluate_pruned(plan, study, [(0, 0.9)], lambda: 100.0)
    folder = plan.run.refit("00001-fold0-seed1").root
    folder.mkdir(parents=True)
    write_text(folder / "result.json", "{}")
    _evaluate_pruned(plan, study, [(0, 0.9)], lambda: 100.0)
    assert left[1] < left[0] - 5 * (9.0 - 1.0) / 2
