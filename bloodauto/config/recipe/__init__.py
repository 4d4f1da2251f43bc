"""The recipe: everything one training needs, as data.

A recipe is YAML on disk and a strict frozen model in memory. ``Recipe.id`` is the hash of its canonical form, so that two
recipes that would train the same network have the same id, whatever order their fields were written in.
"""

from bloodauto.config.recipe.architecture import Backbone, Head, Input
from bloodauto.config.recipe.augmentation import (
    Augmentation,
    AugMixStep,
    Engine,
    Equalise,
    Mixing,
    Offline,
    OneOfStep,
    OperationStep,
    RandAugmentSettings,
    RandAugmentStep,
    SequenceStep,
    Step,
    TrivialAugmentStep,
)
from bloodauto.config.recipe.imbalance import Imbalance
from bloodauto.config.recipe.loss import Loss
from bloodauto.config.recipe.operations import OPERATION_SET_NAMES, OPERATION_SPANS
from bloodauto.config.recipe.overrides import with_changes
from bloodauto.config.recipe.recipe import NOT_TRAINED, Recipe, Source, load_recipe, parse_recipe
from bloodauto.config.recipe.stages import (
    EarlyStopping,
    EpochMetric,
    LastBlocks,
    LastLayers,
    Optimizer,
    Schedule,
    Stage,
)
from bloodauto.config.recipe.tta import STANDARD_VIEWS, VIEW_NAMES, ViewName, WeightedView, shares_of_views

__all__ = [
    "NOT_TRAINED",
    "OPERATION_SET_NAMES",
    "OPERATION_SPANS",
    "STANDARD_VIEWS",
    "VIEW_NAMES",
    "AugMixStep",
    "Augmentation",
    "Backbone",
    "EarlyStopping",
    "Engine",
    "EpochMetric",
    "Equalise",
    "Head",
    "Imbalance",
    "Input",
    "LastBlocks",
    "LastLayers",
    "Loss",
    "Mixing",
    "Offline",
    "OneOfStep",
    "OperationStep",
    "Optimizer",
    "RandAugmentSettings",
    "RandAugmentStep",
    "Recipe",
    "Schedule",
    "SequenceStep",
    "Source",
    "Stage",
    "Step",
    "TrivialAugmentStep",
    "ViewName",
    "WeightedView",
    "load_recipe",
    "parse_recipe",
    "shares_of_views",
    "with_changes",
]
