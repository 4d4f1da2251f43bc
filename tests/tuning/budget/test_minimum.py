"""Budgets that cannot export anything are refused, with the least that would do."""

from __future__ import annotations

import re

import pytest

from bloodauto.config.budget import parse_budget
from bloodauto.errors import BudgetError
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.budget.minimum import LeastBudget


@pytest.mark.parametrize(
    ("workers", "devices", "epoch_seconds", "too_small", "message", "enough"),
    [
        (1, 1.0, 0.0, "12cpu-s", "at least 13cpu-s: 1 worker must .* Give 30cpu-s or more.", "13cpu-s"),
        (
            2,
            1.0,
            0.0,
            "17cpu-s",
            "at least 18cpu-s: 2 workers must .* Give 40cpu-s or more or fewer --workers.",
            "18cpu-s",
        ),
        (2, 1.0, 0.0, "8s", "at least 9s: 2 workers .* Give 20s or more", "9s"),
        (1, 0.5, 0.0, "6gpu-s", "at least 6gpu-s: .* Give 20gpu-s", "6.5gpu-s"),
        # An epoch of ten minutes, by an earlier search: a quarter of it in each of four workers.
        (4, 1.0, 600.0, "10cpu-min", "at least 628cpu-s", "11cpu-min"),
    ],
)
def test_a_budget_for_nothing_names_the_least_that_would_do(
    workers: int, devices: float, epoch_seconds: float, too_small: str, message: str, enough: str
) -> None:
    recipe = tiny_recipe(tiny_space())
    known = [(recipe, epoch_seconds), (recipe, 2 * epoch_seconds)] if epoch_seconds else []
    least = LeastBudget.of_search(workers, devices, known)
    with pytest.raises(BudgetError) as error:
        least.check(parse_budget(too_small))
    assert re.search(f"^--budget {too_small}: expected {message}", str(error.value))
    least.check(parse_budget(enough))
