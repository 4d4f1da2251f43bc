"""What a stage learns from: offline images, equalised classes, a stage's own block, mixing; and what sheets show of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bloodauto.config.recipe import Augmentation, ClassSynthesis, MixingSettings, Offline, Recipe, parse_recipe
from bloodauto.errors import RecipeError
from bloodauto.training.augmentation import mixing_of, synthesised_images
from bloodauto.training.augmentation_preview import augmentation_preview
from bloodauto.training.epoch import as_tf_dataset
from bloodauto.training.imbalance import TrainingSet, one_hot
from bloodauto.training.input_pipeline import (
    augmentation_of_stage,
    num_augmentation_processes,
    stage_pipeline,
    with_offline_images,
)
from bloodauto.transforms import BatchMixing, BatchPipeline


def recipe_with(**fields: object) -> Recipe:
    value = {
        "backbone": {"name": "own_cnn", "weights": "none"},
        "stages": [{"epochs": 1, "optimizer": {"learning_rate": 0.1}}],
        **fields,
    }
    return parse_recipe(value, origin="test")


def shades(count: int, classes: int = 3) -> TrainingSet:
    """Image i is of level 2 i everywhere and of class i modulo ``classes``."""
    levels = (2 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    images = np.broadcast_to(levels, (count, 4, 4, 3)).copy()
    return TrainingSet(images, one_hot(np.arange(count) % classes, classes), np.arange(count))


INVERTED = [{"operation": "invert"}]


def test_offline_images_come_beside_the_originals():
    original_set = shades(40)
    offline = Offline.model_validate({"fraction": 0.5, "steps": INVERTED})
    augmented = with_offline_images(original_set, offline, "bloodauto", np.random.default_rng(0))
    assert augmented.images.shape[0] == 60
    np.testing.assert_array_equal(augmented.rows, np.arange(60))
    np.testing.assert_array_equal(augmented.images[:40], original_set.images)
    sources = (255 - augmented.images[40:, 0, 0, 0]) // 2
    assert len(set(sources.tolist())) == 20
    np.testing.assert_array_equal(augmented.targets[40:], original_set.targets[sources])


def test_offline_images_replace_the_images_they_were_made_of():
    original_set = shades(40)
    offline = Offline.model_validate({"fraction": 0.25, "keep_originals": False, "steps": INVERTED})
    augmented = with_offline_images(original_set, offline, "bloodauto", np.random.default_rng(0))
    sources = (255 - augmented.images[40:, 0, 0, 0]) // 2
    assert sorted([*augmented.rows[:-10].tolist(), *sources.tolist()]) == list(range(40))
    np.testing.assert_array_equal(augmented.rows[-10:], np.arange(40, 50))


def test_more_than_all_images_are_made_evenly_and_mixed_labels_are_kept():
    original_set = shades(30, classes=30)
    offline = Offline.model_validate({"fraction": 2.5, "steps": INVERTED, "mixing": {"name": "mixup", "alpha": 1.0}})
    augmented = with_offline_images(original_set, offline, "bloodauto", np.random.default_rng(0))
    assert len(augmented.rows) == 30 + 75
    levels = 255 - augmented.images[30:].astype(float).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, augmented.targets[30:] @ (2.0 * np.arange(30)), atol=0.51)
    assert (augmented.targets[30:].max(axis=1) < 0.99).mean() > 0.7
    # Before mixing each image was used two or three times, and mixing only moves shares about.
    np.testing.assert_allclose(augmented.targets[30:].sum(), 75, rtol=1e-5)


def test_synthesis_fills_classes_up_within_the_class():
    labels = np.array([0] * 30 + [1] * 11 + [2] * 1)
    images = np.broadcast_to((100 * labels[:, None, None, None]).astype(np.uint8), (42, 6, 6, 3)).copy()
    flips = Augmentation.model_validate({"steps": [{"operation": "flip_horizontal", "rate": 0.5}]}).steps
    augmented, augmented_labels = synthesised_images(
        images, labels, ClassSynthesis(steps=flips), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(np.bincount(np.concatenate([labels, augmented_labels])), [30, 30, 30])
    np.testing.assert_array_equal(augmented.reshape(len(augmented), -1).min(axis=1), 100 * augmented_labels)
    np.testing.assert_array_equal(augmented.reshape(len(augmented), -1).max(axis=1), 100 * augmented_labels)
    again = synthesised_images(images, labels, ClassSynthesis(), np.random.default_rng(5))[0]
    np.testing.assert_array_equal(
        again, synthesised_images(images, labels, ClassSynthesis(), np.random.default_rng(5))[0]
    )
    assert len(synthesised_images(images[:30], labels[:30], ClassSynthesis(), np.random.default_rng(0))[0]) == 0


def pipeline_of(recipe: Recipe, stage: int, train_set: TrainingSet) -> BatchPipeline:
    return stage_pipeline(recipe, stage, train_set, images_per_epoch=len(train_set.rows), seed=3, num_threads=0)


def test_the_augmentation_of_a_stage_replaces_the_recipes():
    stage = {"epochs": 1, "optimizer": {"learning_rate": 0.1}}
    recipe = recipe_with(
        augmentation={"orientation": False, "steps": INVERTED},
        stages=[stage, {**stage, "augmentation": {"orientation": False}}],
        batch_size=10,
    )
    original_set = shades(40)
    first, second = (next(pipeline_of(recipe, index, original_set).epoch(1)) for index in (0, 1))
    assert augmentation_of_stage(recipe, 1).steps == ()
    assert first.images.min() > 255 - 80
    assert second.images.max() < 80


def test_stages_with_the_same_augmentation_have_the_same_offline_images():
    stage = {"epochs": 1, "optimizer": {"learning_rate": 0.1}}
    offline = {"fraction": 1.0, "keep_originals": False, "steps": [{"operation": "noise", "magnitude": 1.0}]}
    shared = {"orientation": False, "offline": offline}
    recipe = recipe_with(
        augmentation=shared,
        stages=[stage, stage, {**stage, "augmentation": shared}, {**stage, "augmentation": shared}],
        batch_size=40,
    )
    first, second, third, fourth = (next(pipeline_of(recipe, stage, shades(40)).epoch(1)).images for stage in range(4))
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()
    assert (third != fourth).any()


def test_tensorflow_gets_the_pipelines_batches_and_tunes_nothing():
    """The thread that tunes sleeps for up to a minute, and the end of an epoch waits for it."""
    pipeline = pipeline_of(recipe_with(batch_size=10), 0, shades(40))
    dataset = as_tf_dataset(pipeline.epoch(1))
    assert dataset.options().autotune.enabled is False
    batches, expected = list(dataset.as_numpy_iterator()), list(pipeline.epoch(1))
    assert len(batches) == len(expected) == 4
    for batch, other in zip(batches, expected, strict=True):
        assert isinstance(batch, tuple)
        assert [part.dtype for part in batch] == [np.uint8, np.float32, np.float32]
        for part, expected_part in zip(batch, other, strict=True):
            np.testing.assert_array_equal(part, expected_part)


def test_an_epoch_is_as_long_whatever_is_made_and_visits_all_of_it_in_turn():
    recipe = recipe_with(
        augmentation={"orientation": False, "offline": {"fraction": 1.0, "steps": INVERTED}}, batch_size=10
    )
    pipeline = pipeline_of(recipe, 0, shades(40))
    assert pipeline.batches_per_epoch == 4
    seen = [image[0, 0, 0] for epoch in (1, 2) for batch in pipeline.epoch(epoch) for image in batch.images]
    levels = np.arange(40) * 2
    assert sorted(seen) == sorted([*levels, *(255 - levels)])


def test_mixing_reaches_the_batches():
    recipe = recipe_with(
        augmentation={"orientation": False, "mixing": {"name": "cutmix", "alpha": 1.0, "rate": 0.5}}, batch_size=40
    )
    batch = next(pipeline_of(recipe, 0, shades(40, classes=40)).epoch(1))
    np.testing.assert_allclose(
        batch.images.astype(float).mean(axis=(1, 2, 3)), batch.targets @ (2.0 * np.arange(40)), atol=1e-3
    )
    assert 0.2 < (batch.targets.max(axis=1) < 1).mean() < 0.6


@pytest.mark.parametrize("name", ["mixup", "cutmix", "both"])
def test_mixing_blends_or_patches(name):
    mixing = mixing_of(MixingSettings(name=name, alpha=1.0))
    assert isinstance(mixing, BatchMixing)
    images = np.zeros((60, 12, 12, 3), np.uint8)
    images[30:] = 200
    mixed = mixing(images, np.eye(2, dtype=np.float32)[np.arange(60) // 30], np.random.default_rng(0))[0]
    spread = np.ptp(mixed.reshape(60, -1), axis=1)
    middling = (spread == 0) & (mixed[:, 0, 0, 0] > 0) & (mixed[:, 0, 0, 0] < 200)
    assert middling.any() == (name != "cutmix")
    assert (spread == 200).any() == (name != "mixup")


def test_a_preview_shows_offline_and_synthetic_images():
    inverted = {"fraction": 0.5, "keep_originals": False, "steps": INVERTED}
    stage = {"epochs": 1, "optimizer": {"learning_rate": 0.1}}
    recipe = recipe_with(
        augmentation={"orientation": False},
        stages=[stage, {**stage, "augmentation": {"orientation": False, "offline": inverted}}],
        imbalance={"sampling": "synthesise", "synthesise": {"steps": INVERTED}},
    )
    images = shades(400).images // 4
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(augmentation_preview(recipe, 0, "online")(images, rng), images)
    np.testing.assert_array_equal(augmentation_preview(recipe, 1, "offline")(images, rng), 255 - images)
    assert (augmentation_preview(recipe, 1, "online")(images, rng)[:, 0, 0, 0] > 128).mean() == pytest.approx(
        0.5, abs=0.08
    )
    assert augmentation_preview(recipe, 0, "synthesised")(images, rng).min() > 128
    part: Any
    for stage_index, part, message in (
        (2, "online", "expected a stage from 1 to 2, got 3"),
        (0, "offline", r"augmentation\.offline: expected a group"),
    ):
        with pytest.raises(RecipeError, match=message):
            augmentation_preview(recipe, stage_index, part)
    with pytest.raises(RecipeError, match="expected synthesise"):
        augmentation_preview(recipe_with(), 0, "synthesised")


def test_processes_make_the_same_batches_of_a_stage_and_take_no_core_from_a_small_training():
    recipe = recipe_with(batch_size=8, augmentation={"stain_jitter": 0.5, "mixing": {"name": "mixup", "alpha": 0.4}})
    settings = {"images_per_epoch": 40, "seed": 3, "num_threads": 0}
    alone = stage_pipeline(recipe, 0, shades(40), **settings)
    together = stage_pipeline(recipe, 0, shades(40), num_processes=1, **settings)
    for left, right in zip(alone.epoch(2), together.epoch(2), strict=True):
        for batch, other in zip(left, right, strict=True):
            np.testing.assert_array_equal(batch, other)
    together.close()
    assert [num_augmentation_processes(cores, on_gpu=False) for cores in (1, 2, 4, 16)] == [0, 0, 0, 2]
    assert [num_augmentation_processes(cores, on_gpu=True) for cores in (1, 2, 4)] == [0, 1, 3]
