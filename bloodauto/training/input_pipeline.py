"""The batches of a stage: what sampling left, what the stage makes offline, and what happens to each image when it is seen."""

from __future__ import annotations

import numpy as np

from bloodauto.config.recipe import Augmentation, Engine, Offline, Recipe
from bloodauto.training.augmentation import engine_policy_of, mixing_of, offline_policy_of
from bloodauto.training.imbalance import TrainingSet, cyclic_epoch_order
from bloodauto.training.losses import class_weights, weight_targets
from bloodauto.transforms import BatchAugmenter, BatchPipeline, BatchWorkers, make_synthetic_images, repeated_choice

#: Augmenting takes a CPU about a tenth of what training the smallest shipped network on the same image does.
_CPU_CORES_PER_PROCESS = 8


def num_augmentation_processes(cores: int, *, on_gpu: bool) -> int:
    """How many processes make the batches of a training; 0: a thread of its own does.

    One thread feeds a network that trains on a few cores. Beside a GPU every core but the one that drives it is free for it.
    """
    return cores - 1 if on_gpu else cores // _CPU_CORES_PER_PROCESS


def augmentation_of_stage(recipe: Recipe, stage: int) -> Augmentation:
    """The stage's own block, or the recipe's."""
    own = recipe.stages[stage].augmentation
    return recipe.augmentation if own is None else own


def with_offline_images(
    train_set: TrainingSet, offline: Offline, engine: Engine, rng: np.random.Generator
) -> TrainingSet:
    """The set with the images that offline augmentation makes, beside those visited so far or in place of them."""
    rows = train_set.rows
    # Places in ``rows`` are drawn, so that of an image that is visited twice one visit can be replaced.
    places = repeated_choice(np.arange(len(rows)), round(offline.fraction * len(rows)), rng)
    images, targets = make_synthetic_images(
        train_set.images,
        train_set.targets,
        rows[places],
        policy=offline_policy_of(offline, engine),
        mixing=mixing_of(offline.mixing, engine),
        rng=rng,
    )
    kept = rows if offline.keep_originals else np.delete(rows, places)
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
    """The pipeline that feeds one stage.

    An epoch visits ``images_per_epoch`` images whatever sampling and offline augmentation made, so that epochs cost the same.

    Args:
        stage: its index.
        train_set: what sampling left.
        num_processes: as ``BatchPipeline`` takes it; the reference engine is run by threads, since TensorFlow's layers cannot
            be sent to another process.
    """
    augmentation = augmentation_of_stage(recipe, stage)
    if augmentation.offline is not None:
        # Stages that share the recipe's block share the images it makes.
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
