"""Several objectives at once: pruning, refits and whole searches on simulated time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe
from bloodauto.models.backbones import num_parameters
from bloodauto.run.artifacts import LedgerFile, ParetoFront
from bloodauto.testing.simulated_search import SETTINGS, SimulatedSearch
from bloodauto.tuning.pruning import plan_pruning
from bloodauto.tuning.study import StudyRecord


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


def parameters_of_network(recipe: Recipe) -> tuple[float, ...]:
    return (float(num_parameters(recipe.backbone)),)


def two_objectives(folder: Path, budget_device_seconds: float, storage: str | None = None) -> SimulatedSearch:
    return SimulatedSearch(
        folder,
        budget_device_seconds=budget_device_seconds,
        settings=replace(SETTINGS, objectives=Objectives(("shift", "parameters"))),
        secondary=parameters_of_network,
        storage=storage,
    )


def completed(search: SimulatedSearch) -> list[optuna.trial.FrozenTrial]:
    return search.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def test_a_two_objective_search_keeps_to_its_budget_and_finds_a_pareto_front(folder: Path) -> None:
    search = two_objectives(folder, 3000.0)
    search.session()
    spent = sum(LedgerFile(folder / "ledger.jsonl").device_seconds_by_phase().values())
    assert 0.9 * 3000 <= spent + SETTINGS.finalization_device_seconds <= 3000 + 1
    trials = completed(search)
    assert len(trials) >= 2
    assert all(len(trial.values) == 2 for trial in trials)
    assert {"complete", "pruned"} <= set(search.outcomes())
    pareto_front = search.scheduler.pareto_front()
    assert sorted(trial.number for trial in pareto_front) == sorted(trial.number for trial in search.study.best_trials)
    incumbent = search.scheduler.incumbent()
    assert incumbent is not None
    assert incumbent.objective == max(trial.values[0] for trial in trials)


def test_refits_repeat_pareto_front_trials(folder: Path) -> None:
    search = two_objectives(folder, 3000.0)
    session = search.session()
    refitted = {
        int(training.assignment.name.split("-")[0])
        for training in session.trainings
        if training.assignment.kind == "refit"
    }
    assert refitted
    assert refitted & {trial.number for trial in search.scheduler.pareto_front()}


def test_a_light_network_is_not_pruned_by_heavier_ones(folder: Path) -> None:
    search = two_objectives(folder, 6000.0)
    search.session()
    trials = search.attributes()
    pruned = [number for number, trial in enumerate(trials) if trial.outcome == "pruned"]
    assert pruned
    curves = {number: dict(trial.curve) for number, trial in enumerate(trials)}
    light = {number for number, trial in enumerate(trials) if trial.backbone == "own_cnn_4x16"}
    assert light & set(pruned)
    for number in light & set(pruned):
        epoch = max(curves[number])
        competitors = [curves[other][epoch] for other in light if epoch in curves[other] and other != number]
        assert max(competitors) > curves[number][epoch]


def test_a_killed_two_objective_search_resumes(folder: Path) -> None:
    search = two_objectives(folder, 2000.0, storage=f"sqlite:///{folder}/study.db")
    search.session(stop_at=400.0, kill=True)
    open_before = [number for number, outcome in enumerate(search.outcomes()) if outcome is None]
    assert open_before
    epochs_before = {number: len(search.attributes()[number].curve) for number in open_before}
    assert any(epochs_before.values())
    search.session()
    assert all(trial.state.is_finished() for trial in search.study.get_trials(deepcopy=False))
    for number, epochs in epochs_before.items():
        curve = dict(search.attributes()[number].curve)
        assert list(curve) == list(range(1, len(curve) + 1))
        assert len(curve) >= epochs
    assert sum(LedgerFile(folder / "ledger.jsonl").device_seconds_by_phase().values()) <= 2000.0


def test_the_pareto_front_is_written_best_first_and_read_back(folder: Path) -> None:
    search = two_objectives(folder, 2000.0)
    search.session()
    study = StudyRecord(search.study, search.space, search.settings.objectives)
    study.pareto_front_artifact().write(folder / ParetoFront.FILE)
    pareto_front = ParetoFront.read(folder / ParetoFront.FILE)
    assert pareto_front.objectives == ("shift", "parameters")
    assert {trial.trial for trial in pareto_front.trials} == {trial.number for trial in search.study.best_trials}
    scores = [trial.values["shift"] for trial in pareto_front.trials]
    assert scores == sorted(scores, reverse=True)
    assert set(pareto_front.trials[0].values) == {"shift", "parameters"}
