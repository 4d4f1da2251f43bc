"""The recipe: everything one training needs, as data.

A recipe is YAML on disk and a strict frozen model in memory. ``Recipe.id`` is the hash of its canonical form, so that two
recipes that would train the same network have the same id, whatever order their fields were written in.
"""

from bloodauto.recipe.architecture import Backbone, Head, Input
from bloodauto.recipe.augmentation import Augmentation, RandAugmentSettings
from bloodauto.recipe.loss import Loss
from bloodauto.recipe.stages import LastBlocks, LastLayers, Optimizer, Schedule, Stage
from bloodauto.recipe.whole import Recipe, Source, load_recipe, parse_recipe

__all__ = [
    "Augmentation",
    "Backbone",
    "Head",
    "Input",
    "LastBlocks",
    "LastLayers",
    "Loss",
    "Optimizer",
    "RandAugmentSettings",
    "Recipe",
    "Schedule",
    "Source",
    "Stage",
    "load_recipe",
    "parse_recipe",
]
