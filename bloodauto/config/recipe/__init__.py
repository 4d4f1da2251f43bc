"""The recipe: everything one training needs, as data.

A recipe is YAML on disk and a strict frozen model in memory. ``Recipe.id`` is the hash of its canonical form, so that two
recipes that would train the same network have the same id, whatever order their fields were written in.
"""

from bloodauto.config.recipe.architecture import Backbone, Head, Input
from bloodauto.config.recipe.augmentation import (
    Augmentation,
    AugMixSettings,
    AugMixStep,
    ClassSynthesis,
    Engine,
    MixingSettings,
    Offline,
    OneOfStep,
    OperationStep,
    RandAugmentSettings,
    RandAugmentStep,
    SequenceStep,
    Step,
    TrivialAugmentSettings,
    TrivialAugmentStep,
)
from bloodauto.config.recipe.imbalance import Imbalance
from bloodauto.config.recipe.loss import Loss
from bloodauto.config.recipe.operations import (
    OPERATION_SETS,
    OPERATION_SPECS,
    OperationSpec,
    RangeScale,
    RangeSpec,
    StrengthSampling,
)
from bloodauto.config.recipe.overrides import with_overrides
from bloodauto.config.recipe.recipe import NON_TRAINING_FIELDS, Recipe, Source, load_recipe, parse_recipe
from bloodauto.config.recipe.stages import (
    EarlyStopping,
    EpochMetric,
    LastBlocks,
    LastLayers,
    Optimizer,
    Schedule,
    Stage,
)
from bloodauto.config.recipe.tta import (
    DEFAULT_TTA_TRANSFORMS,
    TRANSFORM_NAMES,
    TransformName,
    WeightedTransform,
    tta_weights,
)

__all__ = [
    "DEFAULT_TTA_TRANSFORMS",
    "NON_TRAINING_FIELDS",
    "OPERATION_SETS",
    "OPERATION_SPECS",
    "TRANSFORM_NAMES",
    "AugMixSettings",
    "AugMixStep",
    "Augmentation",
    "Backbone",
    "ClassSynthesis",
    "EarlyStopping",
    "Engine",
    "EpochMetric",
    "Head",
    "Imbalance",
    "Input",
    "LastBlocks",
    "LastLayers",
    "Loss",
    "MixingSettings",
    "Offline",
    "OneOfStep",
    "OperationSpec",
    "OperationStep",
    "Optimizer",
    "RandAugmentSettings",
    "RandAugmentStep",
    "RangeScale",
    "RangeSpec",
    "Recipe",
    "Schedule",
    "SequenceStep",
    "Source",
    "Stage",
    "Step",
    "StrengthSampling",
    "TransformName",
    "TrivialAugmentSettings",
    "TrivialAugmentStep",
    "WeightedTransform",
    "load_recipe",
    "parse_recipe",
    "tta_weights",
    "with_overrides",
]
