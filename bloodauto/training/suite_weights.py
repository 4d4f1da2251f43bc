"""The shift suite of a search: its views count by what the search's recipes may train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bloodauto.config.recipe import Augmentation, Recipe
from bloodauto.shift.overlap import training_coverage
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.augmentation import policy_of, policy_of_steps
from bloodauto.transforms import Policy


def shift_suite_for(recipes: Iterable[Recipe], *, seed: int) -> ShiftSuite:
    """The suite by which these recipes can be compared: what any of them trains on counts less for all of them."""
    policies = [policy for recipe in recipes for policy in _policies(recipe)]
    return ShiftSuite(seed=seed, covered_by_training=training_coverage(policies))


def _policies(recipe: Recipe) -> Iterator[Policy]:
    """Everything a recipe does to images: all the time, in a stage, ahead of training, or to fill up small classes."""
    blocks = [recipe.augmentation, *(getattr(stage, "augmentation", None) for stage in recipe.stages)]
    for block in blocks:
        if isinstance(block, Augmentation):
            yield policy_of(block)
            if block.offline is not None:
                yield policy_of_steps(block.offline.steps)
    if recipe.imbalance.synthesise is not None:
        yield policy_of_steps(recipe.imbalance.synthesise.steps)
