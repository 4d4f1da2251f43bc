"""Image operations (uint8 in, uint8 out), policies made of them, mixing, and the input pipeline."""

from bloodauto.augment.operations import OPERATION_SETS, OPERATIONS, Operation
from bloodauto.augment.policies import (
    Apply,
    OneOf,
    Policy,
    RandAugment,
    Sequence,
    StainJitter,
    Symmetries,
    TrivialAugment,
)

__all__ = [
    "OPERATIONS",
    "OPERATION_SETS",
    "Apply",
    "OneOf",
    "Operation",
    "Policy",
    "RandAugment",
    "Sequence",
    "StainJitter",
    "Symmetries",
    "TrivialAugment",
]
