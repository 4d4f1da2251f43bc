"""Image operations (uint8 in, uint8 out), policies made of them, mixing, and the input pipeline.

The accelerator path, :mod:`bloodauto.transforms.graph`, is imported by whoever uses it, since it needs TensorFlow.
"""

from bloodauto.transforms.augmix import AugMix
from bloodauto.transforms.mixing import CutMix, Mixing, MixUp, MixUpOrCutMix
from bloodauto.transforms.offline import equalising_images, make_images, repeated_choice
from bloodauto.transforms.operations import OPERATION_SETS, OPERATIONS, Operation
from bloodauto.transforms.pipeline import Batch, BatchPipeline
from bloodauto.transforms.policies import (
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
from bloodauto.transforms.preview import augmentation_sheet
from bloodauto.transforms.ranges import Between
from bloodauto.transforms.threads import limit_native_threads

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
