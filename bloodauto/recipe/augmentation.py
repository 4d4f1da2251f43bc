"""What happens to training images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bloodauto.recipe.strict import Listed, Strict


class RandAugmentSettings(Strict):
    """RandAugment (Cubuk et al., arXiv:1909.13719): ``num_ops`` operations an image, at ``magnitude`` in 0-1.

    ``rate``: the chance of each drawn operation to be applied. ``magnitude_std``: noise on the magnitude.
    ``operations``: a named set of the augmentation engine, or names of operations.
    """

    num_ops: Annotated[int, Field(ge=1, le=8)]
    magnitude: Annotated[float, Field(ge=0.0, le=1.0)]
    rate: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    magnitude_std: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    operations: str | Annotated[tuple[str, ...], Listed] = "standard"


class Augmentation(Strict):
    """What happens to a training image each time it is seen, in this order.

    ``orientation``: random flips and right-angle turns; a smear has no up and no down.
    ``framing``: strength 0-1 of random magnification and position; laboratories differ in pixel size and in how they crop.
    ``stain_jitter``: strength 0-1 of random stain intensity and hue, in optical density.
    ``rand_augment``: see there; absent means none.
    """

    orientation: bool = True
    framing: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    stain_jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    rand_augment: RandAugmentSettings | None = None
