"""The recipe: everything one training needs, as data.

A recipe is YAML on disk and a strict frozen model in memory. ``Recipe.id`` is the hash of its canonical form, so that two
recipes that would train the same network have the same id, whatever order their fields were written in.
"""

from bloodauto.recipe.architecture import Backbone, Head, Input
from bloodauto.recipe.augmentation import Augmentation, RandAugmentSettings
from bloodauto.recipe.changes import with_changes
from bloodauto.recipe.loss import Imbalance, Loss
from bloodauto.recipe.stages import EarlyStopping, EpochMetric, LastBlocks, LastLayers, Optimizer, Schedule, Stage
from bloodauto.recipe.views import STANDARD_VIEWS, VIEW_NAMES, ViewName, WeightedView, shares_of_views
from bloodauto.recipe.whole import NOT_TRAINED, Recipe, Source, load_recipe, parse_recipe

__all__ = [
    "NOT_TRAINED",
    "STANDARD_VIEWS",
    "VIEW_NAMES",
    "Augmentation",
    "Backbone",
    "EarlyStopping",
    "EpochMetric",
    "Head",
    "Imbalance",
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
    "ViewName",
    "WeightedView",
    "load_recipe",
    "parse_recipe",
    "shares_of_views",
    "with_changes",
]
