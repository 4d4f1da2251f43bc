"""When refits begin, what they repeat and when they end, on simulated time."""

from dataclasses import replace
from pathlib import Path

import pytest

from bloodauto.config.recipe import Recipe
from bloodauto.testing.learning_curves import CurvePoint
from bloodauto.testing.simulated_search import SETTINGS, Search, tiny_recipe, tiny_space
from bloodauto.tuning.executors.simulated import Curve


def two_quick_ones_and_a_slow_one(folder: Path, curve: Curve) -> Search:
    """A search of three declared recipes; the last and largest would end in the share of the refits."""
    declared = tuple(
        (name, tiny_recipe(tiny_space(), width, rate))
        for name, width, rate in (("quick", 16, 1e-3), ("quicker", 16, 2e-3), ("slow", 32, 1e-3))
    )
    settings = replace(SETTINGS, refit_share=0.65)
    return Search(
        folder, budget_device_seconds=1800.0, curve=curve, declared=declared, settings=settings, pruner="none"
    )


def test_refits_repeat_the_slow_trial_that_leads_though_it_has_not_ended(folder: Path) -> None:
    """A large network takes most of the search's time; before it ends the other lane has begun its refit."""

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        return CurvePoint((0.6 if large else 0.5) + 0.02 * epoch, 44.0 if large else 25.0, 0.5)

    slow, quick = tiny_recipe(tiny_space(), 32), tiny_recipe(tiny_space(), 16)
    declared = (("slow", slow), ("quick", quick))
    search = Search(folder, curve=curve, declared=declared, settings=replace(SETTINGS, refit_share=0.5), pruner="none")
    session = search.session()
    ended = {one.assignment.name: one.ended_at for one in session.trainings}
    refits = [one for one in session.trainings if one.assignment.kind == "refit"]
    assert {one.assignment.name.split("-")[0] for one in refits} == {"00000"}
    assert min(one.started_at for one in refits) < ended["00000"], "one began while its trial was still on its way"


def test_declared_recipes_may_reach_into_the_refits_share_and_suggestions_not(folder: Path) -> None:
    """A refit goes on from its trial's weights, so what a declared recipe learns there is not lost."""

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        return CurvePoint((0.6 if large else 0.62) + 0.02 * epoch, 50.0 if large else 12.0, 0.5)

    search = two_quick_ones_and_a_slow_one(folder, curve)
    session = search.session()
    ended = {one.assignment.name: one for one in session.trainings if one.assignment.kind == "trial"}
    search_ends_at = search.last_policy.division.search_ends_at / 2
    assert ended["00002"].ended_at > 1.2 * search_ends_at
    assert search.outcomes()[:3] == ["complete"] * 3
    assert all(one.started_at < search_ends_at for one in ended.values())
    refits = [one.assignment for one in session.trainings if one.assignment.kind == "refit"]
    assert {one.recipe.backbone.width for one in refits} == {16, 32}, (
        "the slow one, on its way, is as good but for little"
    )
    assert [one.start_trial for one in refits].index(2) > 0, "its turn comes when it has ended"


def test_a_declared_recipe_that_the_budget_cut_goes_on_as_a_refit(folder: Path) -> None:
    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        # Somebody else begins to use the machine.
        return CurvePoint(
            (0.6 if large else 0.62) + 0.02 * epoch, (50.0 if epoch < 2 else 200.0) if large else 12.0, 0.5
        )

    search = two_quick_ones_and_a_slow_one(folder, curve)
    session = search.session()
    assert search.outcomes()[:3] == ["complete", "complete", "out_of_budget"]
    refits = [one.assignment for one in session.trainings if one.assignment.kind == "refit"]
    assert 2 in {one.start_trial for one in refits}


def test_what_a_refit_was_promised_holds_though_more_is_then_kept_for_the_end(folder: Path) -> None:
    search = Search(folder, budget_device_seconds=1800.0).with_settings(final_device_seconds=500.0)
    search.session()
    division = search.last_policy.division
    final, usual = division.final_device_seconds, division.trainings_end_at(0.0)
    assert usual == pytest.approx(1800 - 0.7 * final)
    promised = 1800 - 0.8 * final
    assert division.trainings_end_at(promised) == pytest.approx(promised + 0.3 * final)
    assert promised + 0.3 * final > usual
    assert division.trainings_end_at(1800.0) == pytest.approx(1800 - 0.4 * final), (
        "enough to conclude is kept nevertheless"
    )


def test_what_is_kept_for_the_end_knows_of_a_network_that_is_still_on_its_way(folder: Path) -> None:
    """A refit that begins meanwhile is promised its end by it."""
    kept: list[float] = []

    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        large = recipe.backbone.width == 32
        if large and epoch > 2 and search.last_policy.best is not None:
            kept.append(search.last_policy.division.final_device_seconds)
        return CurvePoint(0.6 + 0.02 * epoch, 44.0 if large else 8.0, 9.0 if large else 0.5)

    slow, quick = tiny_recipe(tiny_space(), 32), tiny_recipe(tiny_space(), 16)
    search = Search(
        folder, budget_device_seconds=3000.0, curve=curve, declared=(("slow", slow), ("quick", quick)), pruner="none"
    ).with_settings(final_device_seconds=1000.0, max_trials=2)
    search.session()
    assert kept
    # The simulated machine judges it at its end in no time; until then its epochs' judgements are all that is known.
    assert min(kept) > 1.5 * search.last_policy.division.final_device_seconds
