"""Pruning exempts initial configurations: refits want several backbones, and the order of near ones is noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.config.recipe import Recipe
from bloodauto.testing.simulated_search import SimulatedSearch, tiny_recipe, tiny_space
from bloodauto.tuning.executors.simulated import CurvePoint


def run_search(folder: Path, initial: list[tuple[str, Recipe]], values: dict[str, float]) -> SimulatedSearch:
    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        return CurvePoint(min(values.get(recipe.id, 0.5) + 0.01 * epoch, 1.0), 5.0, 0.5)

    search = SimulatedSearch(folder, budget_device_seconds=400.0, curve=curve, initial=tuple(initial))
    search.with_settings(workers=1).session()
    return search


@pytest.mark.parametrize(
    ("width", "behind", "outcome"),
    [
        (32, 0.03, "complete"),
        (32, 0.08, "complete"),
        (32, 0.15, "pruned"),
        (16, 0.03, "pruned"),
    ],
)
def test_a_close_initial_configuration_of_another_backbone_is_not_pruned(
    tmp_path: Path, width: int, behind: float, outcome: str
) -> None:
    space = tiny_space()
    first, second = tiny_recipe(space), tiny_recipe(space, width=width, learning_rate=1e-3)
    search = run_search(tmp_path, [("first", first), ("second", second)], {first.id: 0.8, second.id: 0.8 - behind})
    assert search.outcomes()[:2] == ["complete", outcome]


def test_an_equally_close_suggestion_is_pruned(tmp_path: Path) -> None:
    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        return CurvePoint(min((0.8 if recipe.id == first.id else 0.77) + 0.01 * epoch, 1.0), 5.0, 0.5)

    first = tiny_recipe(tiny_space())
    # So large that suggestions are given the time of all their epochs.
    search = SimulatedSearch(tmp_path, budget_device_seconds=9000.0, curve=curve, initial=(("first", first),))
    search.with_settings(workers=1, max_trials=6).session()
    assert search.outcomes()[0] == "complete"
    assert "own_cnn_4x32" in {trial.backbone for trial in search.attributes()[1:]}
    # Of fewer than six at a rung one continues.
    assert search.outcomes()[1:5] == ["pruned"] * 4
