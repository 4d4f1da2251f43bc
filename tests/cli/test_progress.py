"""What a search says before it begins."""

from __future__ import annotations

import pytest

from bloodauto.cli.progress import outside_lines
from bloodauto.tuning.objectives import parse_objectives
from bloodauto.workflows.prepare import checked_space, declared_recipes, find_space


def test_recipes_that_differ_in_one_field_share_a_line() -> None:
    outside = [
        ("a", "backbone.name: it has 1, not 2"),
        ("b", "batch_size: it has 3"),
        ("c", "backbone.name: it has 1, not 4"),
    ]
    assert outside_lines(outside) == ["a, c (by backbone.name)", "b (batch_size: it has 3)"]


@pytest.mark.parametrize("space", ["gpu", "small", "tiny"])
def test_the_shipped_recipes_outside_a_space_take_a_few_short_lines(space: str) -> None:
    declared = declared_recipes("shipped", checked_space(find_space(space)), parse_objectives("shift"))
    lines = outside_lines(declared.outside)
    assert declared.inside, "a search must begin with a recipe that is known to be good"
    assert len(declared.outside) >= 6
    assert len(lines) <= 5
    assert max(map(len, lines)) < 260
    assert {name for name, _ in declared.outside} == {
        name for line in lines for name in line.partition(" (")[0].split(", ")
    }
