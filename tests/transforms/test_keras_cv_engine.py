"""keras-cv as the engine of a recipe's augmentation."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bloodauto.config.recipe import OPERATION_SETS, Augmentation, MixingSettings, RandAugmentSettings
from bloodauto.training.augmentation import engine_policy_of, mixing_of
from bloodauto.transforms import BatchAugmenter, BatchPipeline, BatchWorkers, RandAugment
from bloodauto.types import Floats, Images

pytest.importorskip("keras_cv", reason="keras-cv is not installed: pip install 'bloodauto[keras-cv]'")


def block(**fields: object) -> Augmentation:
    return Augmentation.model_validate({"orientation": False, "engine": "keras_cv", **fields})


def changed(augmentation: Augmentation, images: Images, seed: int = 0) -> Images:
    results = engine_policy_of(augmentation)(images, np.random.default_rng(seed))
    assert results.dtype == np.uint8
    assert results.shape == images.shape
    return results


@pytest.fixture(scope="module")
def images() -> Images:
    ramp = np.linspace(20, 230, 24)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], ramp[::-1, None]), axis=2).astype(np.uint8)
    return np.repeat(image[None], 200, axis=0)


def test_rand_augment_is_keras_cvs_and_ours_has_the_same_distribution_of_effects(images):
    settings = {"num_ops": 2, "magnitude": 0.5, "rate": 0.9}
    reference = changed(block(rand_augment=settings), images)
    ours = RandAugment(RandAugmentSettings.model_validate(settings))(images, np.random.default_rng(0))

    def effects(results: Images) -> Floats:
        return np.sort(np.abs(results.astype(float) - images).mean(axis=(1, 2, 3)))

    def excess(left: Floats, right: Floats) -> float:
        # Half a level of slack: keras-cv does not round between its operations.
        below = np.searchsorted(left, left, side="right") - np.searchsorted(right, left + 0.5, side="right")
        return float(below.max()) / len(left)

    first, second = effects(reference), effects(ours)
    # The Kolmogorov-Smirnov distance of two samples of 200 from one distribution exceeds this once in a thousand times.
    assert max(excess(first, second), excess(second, first)) < 0.195


@pytest.mark.parametrize(
    "step",
    [
        {"aug_mix": {"width": 2, "depth": 2}},
        {"operation": "grid_mask", "range_fraction": [0.3, 0.5]},
        {"operation": "cutout", "magnitude": 0.5},
        {"one_of": [{"operation": "rotate", "range_degrees": [-90, 90]}, {"operation": "zoom", "range_factor": [0.6, 1.5]}]},
        {"sequence": [{"operation": "translate_x", "range_fraction": [-0.2, 0.2]}, {"operation": "color", "magnitude": 0.5}]},
    ],
    ids=lambda step: next(iter(step)),
)  # fmt: skip
def test_steps_change_the_images_that_the_fraction_leaves_them(step, images):
    results = changed(block(fraction=0.5, steps=[step]), images)
    fraction = (results != images).any(axis=(1, 2, 3)).mean()
    assert 0.3 < fraction < 0.65
    assert len({result.tobytes() for result in results}) > 20


def test_an_operation_by_range_does_what_ours_does(images):
    brighter = changed(block(steps=[{"operation": "brightness", "range_fraction": [0.1, 0.1]}]), images[:3])
    np.testing.assert_allclose(brighter, np.minimum(images[:3] + 25.5, 255), atol=1)
    turned = changed(block(steps=[{"operation": "rotate", "range_degrees": [90, 90]}]), images[:3])
    assert np.abs(turned[0].astype(int) - np.rot90(images[0])).mean() < 3
    flipped = changed(block(steps=[{"operation": "flip_vertical"}]), images[:3])
    np.testing.assert_array_equal(flipped, images[:3, ::-1])
    larger = changed(block(steps=[{"operation": "zoom", "range_factor": [2, 2]}]), images[:1])[0].astype(int)
    assert np.ptp(larger[..., 0]) == pytest.approx(np.ptp(images[0, ..., 0].astype(int)) / 2, abs=12)


def test_every_operation_of_its_rand_augment_can_be_named(images):
    for name in OPERATION_SETS["standard"]:
        step = {"operation": name, **({} if name in ("auto_contrast", "equalize") else {"magnitude": 0.7})}
        assert (changed(block(steps=[step]), images[:4]) != images[:4]).any()


@pytest.mark.parametrize("name", ["mixup", "both"])
def test_mixing_joins_labels_as_it_joins_images(name):
    mixing = mixing_of(MixingSettings(name=name, alpha=1.0, rate=0.6), "keras_cv")
    assert mixing is not None
    shades = np.repeat((10 * np.arange(24, dtype=np.uint8))[:, None, None, None], 3, axis=3)
    images = np.ascontiguousarray(np.broadcast_to(shades, (24, 16, 16, 3)))
    mixed_fractions = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        mixed, targets = mixing(images, np.eye(24, dtype=np.float32), rng)
        np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-5)
        mixed_fractions.append((np.diag(targets) < 1).mean())
        blended = np.ptp(mixed.reshape(24, -1), axis=1) == 0
        expected = targets @ (10.0 * np.arange(24))
        np.testing.assert_allclose(mixed[blended].mean(axis=(1, 2, 3)), expected[blended], atol=0.51)
    assert np.mean(mixed_fractions) == pytest.approx(0.6 * 23 / 24, abs=0.12)


def test_half_precision_of_the_network_does_not_reach_the_images(images):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        policy = engine_policy_of(
            block(steps=[{"operation": "flip_horizontal"}, {"operation": "color", "magnitude": 0.0}])
        )
        assert keras.config.dtype_policy().name == "mixed_float16"
        results = policy(images[:3], np.random.default_rng(0))
    finally:
        keras.config.set_dtype_policy(previous)
    np.testing.assert_array_equal(results, images[:3, :, ::-1])


def test_the_pipeline_takes_it(images):
    augmenter = BatchAugmenter(
        engine_policy_of(block(steps=[{"operation": "cutout", "range_fraction": [0.3, 0.5]}])),
        mixing_of(MixingSettings(name="mixup", alpha=1.0), "keras_cv"),
        seed=0,
    )
    pipeline = BatchPipeline(
        images[:24], np.eye(24, dtype=np.float32), augmenter, batch_size=8, workers=BatchWorkers(num_threads=2)
    )
    batches = list(pipeline.epoch(0))
    assert [batch.images.shape for batch in batches] == [(8, 24, 24, 3)] * 3
    assert all((batch.targets.max(axis=1) < 1).any() for batch in batches)
