"""Image operations (uint8 in, uint8 out), policies made of them, mixing, and the input pipeline.

The accelerator path, :mod:`bloodauto.augment.graph`, is imported by whoever uses it, since it needs TensorFlow.
"""

from bloodauto.augment.augmix import AugMix
from bloodauto.augment.mixing import CutMix, Mixing, MixUp, MixUpOrCutMix
from bloodauto.augment.offline import equalising_images, make_images, repeated_choice
from bloodauto.augment.operations import OPERATION_SETS, OPERATIONS, Operation
from bloodauto.augment.pipeline import Batch, BatchPipeline
from bloodauto.augment.policies import (
    Apply,
    BatchPolicy,
    OneOf,
    Policy,
    RandAugment,
    Sequence,
    StainJitter,
    Symmetries,
    TrivialAugment,
)
from bloodauto.augment.ranges import Between
from bloodauto.augment.sheet import augmentation_sheet
from bloodauto.augment.threads import limit_native_threads

__all__ = [
    "OPERATIONS",
    "OPERATION_SETS",
    "Apply",
    "AugMix",
    "Batch",
    "BatchPipeline",
    "BatchPolicy",
    "Between",
    "CutMix",
    "MixUp",
    "MixUpOrCutMix",
    "Mixing",
    "OneOf",
    "Operation",
    "Policy",
    "RandAugment",
    "Sequence",
    "StainJitter",
    "Symmetries",
    "TrivialAugment",
    "augmentation_sheet",
    "equalising_images",
    "limit_native_threads",
    "make_images",
    "repeated_choice",
]
