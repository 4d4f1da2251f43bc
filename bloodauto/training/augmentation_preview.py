"""What a recipe's augmentation does to a handful of images, for looking at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from bloodauto.config.recipe import Augmentation, ClassSynthesis, Recipe
from bloodauto.errors import RecipeError
from bloodauto.training.augmentation import (
    check_augmentation,
    engine_policy_of,
    mixing_of,
    offline_policy_of,
    policy_of_steps,
)
from bloodauto.training.input_pipeline import augmentation_of_stage
from bloodauto.transforms import Mixing

#: Images, uint8 (n, height, width, 3), and a generator -> changed images.
ImageTransform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def augmentation_preview(
    recipe: Recipe, stage: int, part: Literal["online", "offline", "synthesised"]
) -> ImageTransform:
    """What happens to images in one stage of a recipe.

    Args:
        stage: its index.
        part: ``seen``: what the network is shown, of each image a made version as often as an epoch visits one;
            ``offline``: what is made before training; ``equalising``: what is made to fill up a class, the images being of one.

    Raises:
        RecipeError: the recipe has no such stage, or no such part; as ``check_augmentation``.
    """
    check_augmentation(recipe)
    if stage >= len(recipe.stages):
        raise RecipeError(f"expected a stage from 1 to {len(recipe.stages)}, got {stage + 1}.")
    augmentation = augmentation_of_stage(recipe, stage)
    if part == "offline":
        return _offline(augmentation)
    if part == "synthesised":
        if recipe.imbalance.sampling != "synthesise":
            raise RecipeError(
                f"imbalance.sampling: expected synthesise for its images to be drawn, got {recipe.imbalance.sampling}."
            )
        settings = ClassSynthesis() if recipe.imbalance.synthesise is None else recipe.imbalance.synthesise
        policy = policy_of_steps(settings.steps)
        join = _joined(mixing_of(settings.mixing))
        return lambda images, rng: policy(join(images, rng), rng)
    return _online(augmentation)


def _joined(mixing: Mixing | None) -> ImageTransform:
    return lambda images, rng: images if mixing is None else mixing.join(images, rng)[0]


def _offline(augmentation: Augmentation) -> ImageTransform:
    if augmentation.offline is None:
        raise RecipeError("augmentation.offline: expected a group for its images to be drawn, found none.")
    policy = offline_policy_of(augmentation.offline, augmentation.engine)
    join = _joined(mixing_of(augmentation.offline.mixing, augmentation.engine))
    return lambda images, rng: join(policy(images, rng), rng)


def _online(augmentation: Augmentation) -> ImageTransform:
    policy = engine_policy_of(augmentation)
    join = _joined(mixing_of(augmentation.mixing, augmentation.engine))
    offline = augmentation.offline
    if offline is None:
        return lambda images, rng: join(policy(images, rng), rng)
    share = offline.fraction / (1.0 + offline.fraction) if offline.keep_originals else offline.fraction
    make = _offline(augmentation)

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        made = rng.random(len(images)) < share
        return join(policy(np.where(made[:, None, None, None], make(images, rng), images), rng), rng)

    return change
