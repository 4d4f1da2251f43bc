"""Several objectives at once: pruning, refits and whole searches on simulated time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe
from bloodauto.config.space import recipe_from_parameters
from bloodauto.models.backbones import num_parameters
from bloodauto.run.artifacts import LedgerFile
from bloodauto.run.directory import RunDirectory
from bloodauto.testing.simulated_search import SETTINGS, Search
from bloodauto.tuning.objectives import pareto_front
from bloodauto.tuning.pruning import plan_pruning

SEVERAL = Objectives(("shift", "latency", "parameters"))


def test_successive_halving_keeps_a_third_and_decides_at_rungs_only() -> None:
    pruning = plan_pruning("successive_halving", max_epochs=8)
    assert pruning.rungs[0] == 1
    competitors = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [pruning.should_prune(1, value, competitors) for value in (0.6, 0.45, 0.35)] == [False, False, True]
    assert not pruning.should_prune(2, 0.0, competitors)
    assert not pruning.should_prune(1, 0.5, [])
    median = plan_pruning("median", max_epochs=8)
    assert not median.should_prune(1, 0.0, competitors[:3])
    assert median.should_prune(1, 0.2, competitors)


def load(recipe: Recipe) -> tuple[float, ...]:
    return (float(num_parameters(recipe.backbone)),)


def several(folder: Path, **changes: object) -> Search:
    names = Objectives(("shift", "parameters"))
    return Search(folder, settings=replace(SETTINGS, objectives=names), secondary=load, **changes)  # type: ignore[arg-type]


def test_a_two_objective_search_keeps_to_its_budget_and_finds_a_pareto_front(folder: Path) -> None:
    search = several(folder, budget_device_seconds=3000.0)
    search.session()
    spent = sum(LedgerFile(folder / "ledger.jsonl").device_seconds_by_phase().values())
    assert 0.9 * 3000 <= spent + SETTINGS.finalization_device_seconds <= 3000 + 1
    complete = [trial for trial in search.study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) >= 2
    assert all(len(trial.values) == 2 for trial in complete)
    assert {"complete", "pruned"} <= set(search.outcomes())
    front = search.last_scheduler.pareto_front()
    assert sorted(one.number for one in front) == sorted(trial.number for trial in search.study.best_trials)
    incumbent = search.last_scheduler.incumbent()
    assert incumbent is not None
    assert incumbent.objective == max(trial.values[0] for trial in complete)


def test_refits_repeat_pareto_front_trials(folder: Path) -> None:
    search = several(folder, budget_device_seconds=3000.0)
    session = search.session()
    refits = [one.assignment for one in session.trainings if one.assignment.kind == "refit"]
    assert refits
    front_ids = {trial.recipe.id for trial in search.last_scheduler.pareto_front()}
    recipes = {name.split("-")[0] for name in (one.name for one in refits)}
    by_number = {trial.number: trial.user_attrs["recipe_id"] for trial in search.study.trials}
    assert {by_number[int(name)] for name in recipes} & front_ids


def test_a_light_network_is_not_pruned_by_heavier_ones(folder: Path) -> None:
    search = several(folder, budget_device_seconds=6000.0)
    search.session()
    pruned = [trial for trial in search.study.trials if trial.user_attrs["outcome"] == "pruned"]
    assert pruned
    curves = {trial.number: dict(trial.user_attrs.get("curve", [])) for trial in search.study.trials}
    light = {
        trial.number
        for trial in search.study.trials
        if recipe_from_parameters(search.space, trial.params).backbone.width == 16
    }
    for trial in pruned:
        if trial.number in light:
            epoch = max(curves[trial.number])
            competitors = [curves[other][epoch] for other in light if epoch in curves[other] and other != trial.number]
            assert max(competitors) > curves[trial.number][epoch]


def test_a_killed_two_objective_search_resumes(folder: Path) -> None:
    storage = f"sqlite:///{folder}/study.db"
    search = several(folder, budget_device_seconds=2000.0, storage=storage)
    search.session(stop_at=400.0, kill=True)
    open_before = [trial for trial in search.study.trials if trial.state == optuna.trial.TrialState.RUNNING]
    assert open_before
    done = {trial.number: max(dict(trial.user_attrs.get("curve", [])), default=0) for trial in open_before}
    search.session()
    for trial in search.study.trials:
        assert trial.state.is_finished()
        if done.get(trial.number):
            assert min(dict(trial.user_attrs["curve"])) == 1
    assert sum(LedgerFile(folder / "ledger.jsonl").device_seconds_by_phase().values()) <= 2000.0


def test_the_pareto_front_is_written_best_first_and_read_back(folder: Path) -> None:
    search = several(folder, budget_device_seconds=2000.0)
    search.session()
    complete = [trial for trial in search.study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    front = pareto_front(search.settings.objectives, complete, search.space)
    RunDirectory(folder).pareto_front.write(front)
    assert RunDirectory(folder).pareto_front.read() == front
    assert {trial.trial for trial in front.trials} == {trial.number for trial in search.study.best_trials}
    shifts = [trial.values["shift"] for trial in front.trials]
    assert shifts == sorted(shifts, reverse=True)
    assert set(front.trials[0].values) == {"shift", "parameters"}
