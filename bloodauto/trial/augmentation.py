"""A recipe's augmentation -> a policy of the augmentation engine."""

from __future__ import annotations

from bloodauto.augment import Apply, Policy, RandAugment, Sequence, StainJitter, Symmetries
from bloodauto.recipe import Augmentation


def policy_of(augmentation: Augmentation) -> Policy:
    """The policy that does what the recipe says, in its order.

    Raises:
        RecipeError: operations that the engine does not have.
    """
    policies: list[Policy] = []
    if augmentation.orientation:
        policies.append(Symmetries())
    if augmentation.framing > 0:
        policies += [Apply("zoom", augmentation.framing), Apply("translate", augmentation.framing)]
    if augmentation.stain_jitter > 0:
        policies.append(StainJitter(augmentation.stain_jitter))
    settings = augmentation.rand_augment
    if settings is not None:
        policies.append(
            RandAugment(
                num_ops=settings.num_ops,
                magnitude=settings.magnitude,
                rate=settings.rate,
                magnitude_std=settings.magnitude_std,
                operations=settings.operations,
            )
        )
    return Sequence(tuple(policies))
