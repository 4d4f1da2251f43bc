"""What a rung does to initial configurations: refits want several backbones, and the order of near ones is noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.config.recipe import Recipe
from bloodauto.testing.learning_curves import CurvePoint
from bloodauto.testing.simulated_search import Search, tiny_recipe, tiny_space


def searched(folder: Path, initial: list[tuple[str, Recipe]], values: dict[str, float]) -> Search:
    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        return CurvePoint(values.get(recipe.id, 0.5) + 0.01 * epoch, 5.0, 0.5)

    search = Search(folder, budget_device_seconds=400.0, curve=curve, initial=tuple(initial))
    search.with_settings(workers=1).session()
    return search


@pytest.mark.parametrize(
    ("width", "behind", "outcome"),
    [
        (32, 0.03, "complete"),
        (32, 0.08, "pruned"),
        (16, 0.03, "pruned"),
    ],
)
def test_a_close_initial_configuration_of_another_backbone_is_not_pruned(
    tmp_path: Path, width: int, behind: float, outcome: str
) -> None:
    space = tiny_space()
    first, second = tiny_recipe(space), tiny_recipe(space, width=width, learning_rate=1e-3)
    search = searched(tmp_path, [("first", first), ("second", second)], {first.id: 0.8, second.id: 0.8 - behind})
    assert search.outcomes()[:2] == ["complete", outcome]


def test_an_equally_close_suggestion_is_pruned(tmp_path: Path) -> None:
    def curve(recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        return CurvePoint((0.8 if recipe.id == first.id else 0.77) + 0.01 * epoch, 5.0, 0.5)

    first = tiny_recipe(tiny_space())
    search = Search(tmp_path, budget_device_seconds=400.0, curve=curve, initial=(("first", first),))
    search.with_settings(workers=1).session()
    assert search.outcomes()[0] == "complete"
    others = search.study.get_trials(deepcopy=False)[1:]
    assert {"own_cnn_4x32"} <= {trial.user_attrs.get("backbone") for trial in others}
    # Of fewer than six at a rung one goes on.
    assert search.outcomes()[1:5] == ["pruned"] * 4
