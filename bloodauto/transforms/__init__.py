"""Image operations (uint8 in, uint8 out), policies made of them, mixing, and the batch pipeline."""

from bloodauto.transforms.mixing import BatchMixing, PairMixing
from bloodauto.transforms.offline import class_balancing_images, make_synthetic_images, repeated_choice
from bloodauto.transforms.operations import OPERATIONS
from bloodauto.transforms.pipeline import Batch, BatchPipeline, BatchWorkers
from bloodauto.transforms.policies import (
    ApplyOperation,
    AugMix,
    BatchPolicy,
    OneOf,
    Policy,
    RandAugment,
    Sequence,
    Symmetries,
    TrivialAugment,
)
from bloodauto.transforms.processes import BatchAugmenter
from bloodauto.transforms.registry import Operation

__all__ = [
    "OPERATIONS",
    "ApplyOperation",
    "AugMix",
    "Batch",
    "BatchAugmenter",
    "BatchMixing",
    "BatchPipeline",
    "BatchPolicy",
    "BatchWorkers",
    "OneOf",
    "Operation",
    "PairMixing",
    "Policy",
    "RandAugment",
    "Sequence",
    "Symmetries",
    "TrivialAugment",
    "class_balancing_images",
    "make_synthetic_images",
    "repeated_choice",
]
