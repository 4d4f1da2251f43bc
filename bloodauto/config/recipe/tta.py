"""Test-time augmentation (TTA): the transforms of an image whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from bloodauto.run.artifacts.base import Record

TransformName = Literal[
    "identity",
    "flip_left_right",
    "flip_up_down",
    "turn_90",
    "turn_180",
    "turn_270",
    "transpose",
    "rotate_left",
    "rotate_right",
    "brighter",
    "darker",
    "smaller",
    "larger",
]
TRANSFORM_NAMES: tuple[TransformName, ...] = get_args(TransformName)


class WeightedTransform(Record):
    """One transform of an image, and the weight of its prediction.

    Attributes:
        transform: ``turn_90``, ``turn_180``, ``turn_270``: counter-clockwise, exact. ``transpose``: mirrored along the
            diagonal. ``rotate_left``, ``rotate_right``: by 10 degrees, the corners filled by reflection. ``brighter``,
            ``darker``: every value times 1.1 or 0.9, clipped at 255. ``smaller``, ``larger``: magnified 0.85 or 1.15 times
            about the centre, a border filled by reflection.
        weight: Relative to the others; weights need not sum to 1.
    """

    transform: TransformName
    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0


#: The transforms of a recipe that names none, where TTA is requested: a smear has no left and right and no up and down. All
#: eight symmetries cost twice as much.
DEFAULT_TTA_TRANSFORMS = tuple(
    WeightedTransform(transform=name) for name in ("identity", "flip_left_right", "flip_up_down", "turn_180")
)


def tta_weights(transforms: Sequence[WeightedTransform]) -> dict[TransformName, float]:
    """The weight of each transform in the average; the weights sum to 1.

    Args:
        transforms: Of a recipe; none are the image itself.

    Example:
        >>> tta_weights([WeightedTransform(transform="identity", weight=3.0), WeightedTransform(transform="turn_90")])
        {'identity': 0.75, 'turn_90': 0.25}
    """
    if not transforms:
        return {"identity": 1.0}
    total = sum(transform.weight for transform in transforms)
    return {transform.transform: transform.weight / total for transform in transforms}
