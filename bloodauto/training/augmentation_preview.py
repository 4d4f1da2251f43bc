"""Previews of a recipe's augmentation: the transform that a stage applies, and a contact sheet of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from bloodauto.config.recipe import Augmentation, ClassSynthesis, Recipe
from bloodauto.data.contact_sheet import contact_sheet
from bloodauto.errors import DataError, RecipeError
from bloodauto.training.augmentation import (
    check_augmentation,
    engine_policy_of,
    mixing_of,
    offline_policy_of,
    policy_of_steps,
)
from bloodauto.training.input_pipeline import augmentation_of_stage
from bloodauto.transforms import BatchMixing
from bloodauto.types import Image, Images, check_images

#: Images, uint8 (n, height, width, 3), and a generator -> changed images.
ImageTransform = Callable[[Images, np.random.Generator], Images]


def augmentation_contact_sheet(
    images: Images, transform: ImageTransform, *, seed: int, columns: int = 8, tile_size_px: int = 96
) -> Image:
    """A contact sheet with one row for each image: the image, a wider gap, then augmented versions of it.

    Args:
        images: uint8, (n, height, width, 3), n at least 1.
        transform: of ``augmentation_preview``, a policy, or any other change of all images together; drawn anew for each
            column.
        seed: of the draws.
        columns: tiles in a row, the image itself included; at least 2.
        tile_size_px: the longer side of a tile; images are resized to it after augmentation.

    Returns:
        uint8, (sheet height, sheet width, 3).

    Raises:
        DataError: other images than these, fewer than two columns, or a tile without pixels.
    """
    if columns < 2:
        raise DataError(f"augmentation sheet: expected at least 2 columns, got {columns}: the first shows the image.")
    check_images(images, "augmentation sheet")
    rng = np.random.default_rng(seed)
    versions = [images, *(transform(images, rng) for _ in range(columns - 1))]
    tiles = np.stack(versions, axis=1).reshape(-1, *images.shape[1:])
    return contact_sheet(tiles, columns=columns, tile_size_px=tile_size_px, separate_first_column=True)


def augmentation_preview(
    recipe: Recipe, stage: int, part: Literal["online", "offline", "synthesised"]
) -> ImageTransform:
    """The transform of images in one stage of a recipe.

    Args:
        recipe: The recipe.
        stage: The stage's index.
        part: ``online``: the images that the network sees, offline images among them in their proportion; ``offline``: the
            images of offline augmentation; ``synthesised``: the images that fill a small class, from images of one class.

    Raises:
        RecipeError: The recipe has no such stage, or no such part; or as ``check_augmentation``.
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


def _joined(mixing: BatchMixing | None) -> ImageTransform:
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
    fraction = offline.fraction / (1.0 + offline.fraction) if offline.keep_originals else offline.fraction
    augment_offline = _offline(augmentation)

    def transform(images: Images, rng: np.random.Generator) -> Images:
        is_offline = rng.random(len(images)) < fraction
        mixed_in = np.where(is_offline[:, None, None, None], augment_offline(images, rng), images)
        return join(policy(mixed_in, rng), rng)

    return transform
