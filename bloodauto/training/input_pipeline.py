"""The input pipeline of a stage: sampled images, offline augmentation, online augmentation and mixing, sample weights."""

from __future__ import annotations

import numpy as np

from bloodauto.config.recipe import Augmentation, Engine, Offline, Recipe
from bloodauto.training.augmentation import engine_policy_of, mixing_of, offline_policy_of
from bloodauto.training.imbalance import TrainingSet, cyclic_epoch_order
from bloodauto.training.losses import class_weights, weight_targets
from bloodauto.transforms import BatchAugmenter, BatchPipeline, BatchWorkers, make_synthetic_images, repeated_choice

#: Augmentation takes a CPU about a tenth of the time of training the smallest shipped network on the same image.
_CPU_CORES_PER_PROCESS = 8


def num_augmentation_processes(cores: int, *, on_gpu: bool) -> int:
    """How many processes prepare the batches of a training; 0: one thread does.

    One thread is enough for a network that trains on a few cores. Beside a GPU, every core but the one that drives it is free.

    Args:
        cores: CPU cores of the training.
        on_gpu: Whether it trains on a GPU.
    """
    return cores - 1 if on_gpu else cores // _CPU_CORES_PER_PROCESS


def augmentation_of_stage(recipe: Recipe, stage: int) -> Augmentation:
    """The augmentation of a stage, by index: its own, or the recipe's."""
    augmentation = recipe.stages[stage].augmentation
    return recipe.augmentation if augmentation is None else augmentation


def with_offline_images(
    train_set: TrainingSet, offline: Offline, engine: Engine, rng: np.random.Generator
) -> TrainingSet:
    """Adds the images of offline augmentation, beside the original ones or instead of them.

    Args:
        train_set: The images so far.
        offline: How many images are made, and how.
        engine: Applies the steps.
        rng: Draws which images are augmented, and how.
    """
    rows = train_set.rows
    # Positions in ``rows`` are drawn, so that of an image that is used twice one use can be replaced.
    positions = repeated_choice(np.arange(len(rows)), round(offline.fraction * len(rows)), rng)
    images, targets = make_synthetic_images(
        train_set.images,
        train_set.targets,
        rows[positions],
        policy=offline_policy_of(offline, engine),
        mixing=mixing_of(offline.mixing, engine),
        rng=rng,
    )
    kept = rows if offline.keep_originals else np.delete(rows, positions)
    first = len(train_set.images)
    return TrainingSet(
        np.concatenate([train_set.images, images]),
        np.concatenate([train_set.targets, targets]),
        np.concatenate([kept, np.arange(first, first + len(images))]),
    )


def stage_pipeline(
    recipe: Recipe,
    stage: int,
    train_set: TrainingSet,
    *,
    images_per_epoch: int,
    seed: int,
    num_threads: int,
    num_processes: int = 0,
) -> BatchPipeline:
    """The input pipeline of one stage.

    An epoch uses ``images_per_epoch`` images whatever sampling and offline augmentation added, so that epochs cost the same.

    Args:
        recipe: The recipe.
        stage: The stage's index.
        train_set: The sampled images.
        images_per_epoch: Images in an epoch.
        seed: Of the training.
        num_threads: Threads that prepare batches where no processes do.
        num_processes: Processes that prepare batches. The reference engine uses threads, since TensorFlow's layers cannot be
            sent to another process.
    """
    augmentation = augmentation_of_stage(recipe, stage)
    if augmentation.offline is not None:
        # Stages with the recipe's augmentation have the same offline images.
        key = 0 if recipe.stages[stage].augmentation is None else stage + 1
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 0, 0, 2, key)))
        train_set = with_offline_images(train_set, augmentation.offline, augmentation.engine, rng)
    policy = engine_policy_of(augmentation)
    targets, weights = weight_targets(train_set.targets, class_weights(recipe.loss, train_set.class_counts))
    once_each = recipe.imbalance.sampling == "none" and augmentation.offline is None
    return BatchPipeline(
        train_set.images,
        targets,
        BatchAugmenter(policy, mixing_of(augmentation.mixing, augmentation.engine), seed),
        batch_size=min(recipe.batch_size, images_per_epoch),
        sample_weights=weights,
        workers=BatchWorkers(num_threads, num_processes if augmentation.engine == "bloodauto" else 0),
        order=None if once_each else cyclic_epoch_order(train_set.rows, images_per_epoch, seed),
    )
