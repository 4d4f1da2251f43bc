"""What a search prints before it begins."""

from __future__ import annotations

import pytest

from bloodauto.cli.progress import incompatible_recipe_lines
from bloodauto.config.objectives import parse_objectives
from bloodauto.config.shipped import find_space
from bloodauto.workflows.planning import load_checked_space, load_initial_configurations


def test_recipes_that_differ_in_one_field_are_on_one_line() -> None:
    not_in_space = [
        ("a", "backbone.name: it has 1, not 2"),
        ("b", "batch_size: it has 3"),
        ("c", "backbone.name: it has 1, not 4"),
    ]
    assert incompatible_recipe_lines(not_in_space) == ["a, c (by backbone.name)", "b (batch_size: it has 3)"]


@pytest.mark.parametrize("space", ["gpu", "small", "tiny"])
def test_the_shipped_recipes_outside_a_space_need_few_short_lines(space: str) -> None:
    initial = load_initial_configurations("shipped", load_checked_space(find_space(space)), parse_objectives("shift"))
    lines = incompatible_recipe_lines(initial.not_in_space)
    assert initial.in_space, "a search must begin with a recipe that is known to be good"
    assert len(initial.not_in_space) >= 6
    assert len(lines) <= 5
    assert max(map(len, lines)) < 260
    assert {name for name, _ in initial.not_in_space} == {
        name for line in lines for name in line.partition(" (")[0].split(", ")
    }
