"""When refits begin, what they repeat and when they end, on simulated time."""

from dataclasses import replace
from pathlib import Path

import pytest

from bloodauto.config.recipe import Recipe
from bloodauto.testing.learning_curves import CurvePoint
from bloodauto.testing.simulated_search import SETTINGS, Search, tiny_recipe, tiny_space
from bloodauto.tuning.executors.simulated import Curve


def two_quick_trials_and_a_slow_one(folder: Path, curve: Curve) -> Search:
    """A search of three initial configurations; the last and largest would end in the share of the refits."""
    initial = tuple(
        (name, tiny_recipe(tiny_space(), width, rate))
        for name, width, rate in (("quick", 16, 1e-3), ("quicker", 16, 2e-3), ("slow", 32, 1e-3))
    )
    settings = replace(SETTINGS, refit_fraction=0.65)
    return Search(folder, budget_device_seconds=1800.0, curve=curve, initial=initial, settings=settings, pruner="none")


def test_refits_repeat_the_leading_trial_before_it_has_ended(folder: Path) -> None:
    """A large network takes most of the search's time; before it ends the other slot has begun its refit."""

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        return CurvePoint((0.6 if large else 0.5) + 0.02 * epoch, 44.0 if large else 25.0, 0.5)

    slow, quick = tiny_recipe(tiny_space(), 32), tiny_recipe(tiny_space(), 16)
    initial = (("slow", slow), ("quick", quick))
    search = Search(folder, curve=curve, initial=initial, settings=replace(SETTINGS, refit_fraction=0.5), pruner="none")
    session = search.session()
    ended = {one.assignment.name: one.ended_at for one in session.trainings}
    refits = [one for one in session.trainings if one.assignment.kind == "refit"]
    assert {one.assignment.name.split("-")[0] for one in refits} == {"00000"}
    assert min(one.started_at for one in refits) < ended["00000"], "one began while its trial was still on its way"


def test_only_initial_configurations_may_overrun_into_the_refit_budget(folder: Path) -> None:
    """A refit goes on from its trial's weights, so what a initial configuration learns there is not lost."""

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        return CurvePoint((0.6 if large else 0.62) + 0.02 * epoch, 50.0 if large else 12.0, 0.5)

    search = two_quick_trials_and_a_slow_one(folder, curve)
    session = search.session()
    ended = {one.assignment.name: one for one in session.trainings if one.assignment.kind == "trial"}
    search_limit_device_seconds = search.last_scheduler.allocation.search_limit_device_seconds / 2
    assert ended["00002"].ended_at > 1.2 * search_limit_device_seconds
    assert search.outcomes()[:3] == ["complete"] * 3
    assert all(one.started_at < search_limit_device_seconds for one in ended.values())
    refits = [one.assignment for one in session.trainings if one.assignment.kind == "refit"]
    assert {one.recipe.backbone.width for one in refits} == {16, 32}, (
        "the slow one, on its way, is as good but for little"
    )
    assert [one.weights_from_trial for one in refits].index(2) > 0, "its turn comes when it has ended"


def test_an_initial_configuration_stopped_by_the_budget_resumes_as_a_refit(folder: Path) -> None:
    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        # Somebody else begins to use the machine.
        return CurvePoint(
            (0.6 if large else 0.62) + 0.02 * epoch, (50.0 if epoch < 2 else 200.0) if large else 12.0, 0.5
        )

    search = two_quick_trials_and_a_slow_one(folder, curve)
    session = search.session()
    assert search.outcomes()[:3] == ["complete", "complete", "out_of_budget"]
    refits = [one.assignment for one in session.trainings if one.assignment.kind == "refit"]
    assert 2 in {one.weights_from_trial for one in refits}


def test_an_assigned_refit_limit_holds_when_the_finalization_reserve_grows(folder: Path) -> None:
    search = Search(folder, budget_device_seconds=1800.0).with_settings(finalization_device_seconds=500.0)
    search.session()
    allocation = search.last_scheduler.allocation
    final, usual = allocation.finalization_device_seconds, allocation.training_limit_device_seconds(0.0)
    assert usual == pytest.approx(1800 - 0.7 * final)
    assigned_end = 1800 - 0.8 * final
    assert allocation.training_limit_device_seconds(assigned_end) == pytest.approx(assigned_end + 0.3 * final)
    assert assigned_end + 0.3 * final > usual
    assert allocation.training_limit_device_seconds(1800.0) == pytest.approx(1800 - 0.4 * final), (
        "enough to conclude is kept nevertheless"
    )


def test_the_finalization_reserve_counts_unfinished_trials(folder: Path) -> None:
    """A refit that begins meanwhile is promised its end by it."""
    kept: list[float] = []

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        if large and epoch > 2 and search.last_scheduler.incumbent is not None:
            kept.append(search.last_scheduler.allocation.finalization_device_seconds)
        return CurvePoint(0.6 + 0.02 * epoch, 44.0 if large else 8.0, 9.0 if large else 0.5)

    slow, quick = tiny_recipe(tiny_space(), 32), tiny_recipe(tiny_space(), 16)
    search = Search(
        folder, budget_device_seconds=3000.0, curve=curve, initial=(("slow", slow), ("quick", quick)), pruner="none"
    ).with_settings(finalization_device_seconds=1000.0, max_trials=2)
    search.session()
    assert kept
    # The simulated machine judges it at its end in no time; until then its epochs' judgements are all that is known.
    assert min(kept) > 1.5 * search.last_scheduler.allocation.finalization_device_seconds
