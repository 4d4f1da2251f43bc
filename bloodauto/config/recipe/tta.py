"""Test-time augmentation: the views of an image whose answers are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from bloodauto.config.base_model import StrictModel

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
]
TRANSFORM_NAMES: tuple[TransformName, ...] = get_args(TransformName)


class WeightedTransform(StrictModel):
    """One look at the image, and how much its answer counts beside the others'; weights need not sum to 1.

    ``turn_90``, ``turn_180``, ``turn_270``: counter-clockwise, exact. ``transpose``: mirrored along the diagonal.
    ``rotate_left``, ``rotate_right``: by 10 degrees, the corners filled by reflection. ``brighter``, ``darker``: every value
    times 1.1 or 0.9, cut at 255.
    """

    transform: TransformName
    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0


#: What a recipe that names no views is looked at with when views are asked for: a smear has no left and right and no up
#: and down. All eight symmetries cost twice as much.
DEFAULT_TTA_TRANSFORMS = tuple(
    WeightedTransform(transform=name) for name in ("identity", "flip_left_right", "flip_up_down", "turn_180")
)


def tta_weights(views: Sequence[WeightedTransform]) -> dict[TransformName, float]:
    """The share of each view in the average; shares sum to 1. No views are the image itself."""
    if not views:
        return {"identity": 1.0}
    total = sum(one.weight for one in views)
    return {one.transform: one.weight / total for one in views}
