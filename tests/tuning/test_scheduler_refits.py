"""When refits begin, what they repeat and when they end, on simulated time."""

from dataclasses import replace
from pathlib import Path

import pytest

from bloodauto.config.recipe import Recipe
from bloodauto.testing.simulated_search import SETTINGS, SimulatedSearch, tiny_recipe, tiny_space
from bloodauto.tuning.executors.simulated import Curve, CurvePoint, SimulatedSession
from bloodauto.tuning.messages import Assignment


def rising(start: float, epoch: int) -> float:
    """An objective that rises with every epoch; a refit has many."""
    return min(start + 0.02 * epoch, 1.0)


def refits_of(session: SimulatedSession) -> list[Assignment]:
    return [training.assignment for training in session.trainings if training.assignment.kind == "refit"]


def two_quick_trials_and_a_slow_one(folder: Path, curve: Curve) -> SimulatedSearch:
    """A search of three initial configurations; the last and largest would end within the refit budget."""
    initial = tuple(
        (name, tiny_recipe(tiny_space(), width, rate))
        for name, width, rate in (("quick", 16, 1e-3), ("quicker", 16, 2e-3), ("slow", 32, 1e-3))
    )
    settings = replace(SETTINGS, refit_fraction=0.65)
    return SimulatedSearch(
        folder, budget_device_seconds=1800.0, curve=curve, initial=initial, settings=settings, pruner="none"
    )


def test_refits_repeat_the_best_trial_before_it_has_ended(folder: Path) -> None:
    """A large network takes most of the search's time; before it ends the other slot has begun its refit."""

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        return CurvePoint(rising(0.6 if large else 0.25, epoch), 44.0 if large else 15.0, 0.5)

    slow, quick = tiny_recipe(tiny_space(), 32), tiny_recipe(tiny_space(), 16)
    initial = (("slow", slow), ("quick", quick))
    search = SimulatedSearch(
        folder,
        curve=curve,
        initial=initial,
        settings=replace(SETTINGS, refit_fraction=0.5, max_trials=2),
        pruner="none",
    )
    session = search.session()
    ended = {training.assignment.name: training.ended_at for training in session.trainings}
    refits = [training for training in session.trainings if training.assignment.kind == "refit"]
    assert {refit.assignment.name.split("-")[0] for refit in refits} == {"00000"}
    assert min(refit.started_at for refit in refits) < ended["00000"], "one began while its trial was still training"


def test_an_initial_configuration_for_which_there_is_too_little_time_is_shortened(folder: Path) -> None:
    """Its schedule is compressed: it ends in time, complete, and its refit goes on with its weights."""

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        return CurvePoint(rising(0.66 if large else 0.62, epoch), 50.0 if large else 12.0, 0.5)

    search = two_quick_trials_and_a_slow_one(folder, curve)
    session = search.session()
    trials = {
        training.assignment.name: training for training in session.trainings if training.assignment.kind == "trial"
    }
    assert search.outcomes()[:3] == ["complete"] * 3
    assert [trial.origin for trial in search.attributes()[:3]] == [f"initial: {name}" for name, _ in search.initial]
    assert 1 < trials["00002"].epochs < 6
    search_ends_at = search.scheduler.limits.search / 2
    assert trials["00002"].ended_at < 1.1 * search_ends_at
    assert all(trial.started_at < search_ends_at for trial in trials.values())
    assert {refit.recipe.backbone.width for refit in refits_of(session)} == {16, 32}
    assert 2 in {refit.weights_from_trial for refit in refits_of(session)}


def test_a_training_that_becomes_slow_ends_in_time_and_is_evaluated(folder: Path) -> None:
    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        # Another program begins to use the machine.
        return CurvePoint(rising(0.6 if large else 0.62, epoch), (40.0 if epoch < 2 else 160.0) if large else 12.0, 0.5)

    search = two_quick_trials_and_a_slow_one(folder, curve)
    session = search.session()
    assert search.outcomes()[:3] == ["complete"] * 3
    slow = next(training for training in session.trainings if training.assignment.name == "00002")
    assert slow.epochs < 6
    assert search.ledger.spent_device_seconds <= 1800.0


def test_an_assigned_refit_limit_holds_when_the_finalization_reserve_grows(folder: Path) -> None:
    search = SimulatedSearch(folder, budget_device_seconds=1800.0).with_settings(finalization_device_seconds=500.0)
    search.session()
    limits = search.scheduler.limits
    assert limits.training_limit(0.0) == pytest.approx(1800 - 0.7 * limits.finalization)
    assigned_end = 1800 - 0.8 * limits.finalization
    assert limits.training_limit(assigned_end) == pytest.approx(assigned_end + 0.3 * limits.finalization)
    assert limits.training_limit(assigned_end) > limits.training_limit(0.0)
    assert limits.training_limit(1800.0) == pytest.approx(1800 - 0.4 * limits.finalization), (
        "enough for the finalization is kept nevertheless"
    )


def test_the_finalization_reserve_counts_unfinished_trials(folder: Path) -> None:
    """A refit that begins meanwhile is assigned its end by it."""
    reserves: list[float] = []

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        is_trial = seed == search.settings.seed
        if large and is_trial and epoch > 2 and search.scheduler.incumbent() is not None:
            reserves.append(search.scheduler.limits.finalization)
        return CurvePoint(rising(0.6, epoch), 44.0 if large else 8.0, 9.0 if large else 0.5)

    slow, quick = tiny_recipe(tiny_space(), 32), tiny_recipe(tiny_space(), 16)
    search = SimulatedSearch(
        folder, budget_device_seconds=3000.0, curve=curve, initial=(("slow", slow), ("quick", quick)), pruner="none"
    ).with_settings(finalization_device_seconds=1000.0, max_trials=2)
    search.session()
    assert reserves
    # The simulated final evaluation takes no time; until it is observed, the evaluations after epochs predict it.
    assert min(reserves) > 1.5 * search.scheduler.limits.finalization
