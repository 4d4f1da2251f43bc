"""Image operations (uint8 in, uint8 out), policies made of them, mixing, and the batch pipeline."""

from bloodauto.transforms.augmix import AugMix
from bloodauto.transforms.mixing import CutMix, Mixing, MixUp, MixUpOrCutMix
from bloodauto.transforms.offline import class_balancing_images, make_synthetic_images, repeated_choice
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
from bloodauto.transforms.ranges import UniformRange
from bloodauto.transforms.threads import limit_native_threads

__all__ = [
    "OPERATIONS",
    "OPERATION_SETS",
    "Apply",
    "AugMix",
    "Batch",
    "BatchPipeline",
    "BatchPolicy",
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
    "UniformRange",
    "class_balancing_images",
    "limit_native_threads",
    "make_synthetic_images",
    "repeated_choice",
]
