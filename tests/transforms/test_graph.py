"""The accelerator path gives what OpenCV gives, from the same draws (here on the CPU)."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.transforms import OPERATIONS, Apply, AugMix, BatchPipeline, MixUp, RandAugment, Sequence, Symmetries
from bloodauto.transforms.engine import fuse

graph = pytest.importorskip("bloodauto.transforms.graph", reason="needs TensorFlow")


@pytest.fixture
def batch(smooth_image) -> np.ndarray:
    shifted = [np.roll(smooth_image, 5 * k, axis=(0, 1)) for k in range(6)]
    return np.stack([*shifted, np.full_like(smooth_image, 200), smooth_image // 4 + 90])


def both(policy, images: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    opencv = policy(images, np.random.default_rng(seed)).astype(int)
    return opencv, graph.OnDevice(policy)(images, np.random.default_rng(seed)).astype(int)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0.0, 0.3, 1.0])
def test_every_operation_is_within_a_level(batch, name, magnitude):
    opencv, tensorflow = both(Apply(name, magnitude), batch)
    assert np.abs(opencv - tensorflow).max() <= 1


@pytest.mark.parametrize("border", ["reflect", "edge", "reflect_101", "wrap", (250, 120, 3)])
def test_borders_agree(batch, border):
    opencv, tensorflow = both(Apply("shear_x", 1.0, border=border), batch)
    difference = np.abs(opencv - tensorflow)
    # Far outside, coordinates are large and their last digits differ.
    assert np.mean(difference > 1) < 0.001


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("operations", ["standard", "cells"])
def test_whole_policies_agree(batch, operations, seed):
    policy = Sequence((Symmetries(), RandAugment(3, 0.4, operations=operations)))
    opencv, tensorflow = both(policy, batch, seed)
    # A level more or less before an equalizer or a strong contrast becomes several after it.
    assert np.mean(np.abs(opencv - tensorflow) > 2) < 0.01


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_the_device_has_operations_for(name):
    (chain,) = Apply(name, 0.5).draw(1, 40, 40, np.random.default_rng(0))
    assert graph.runs_on_device(fuse(chain)[0]) == (name not in ("noise", "shot_noise", "jpeg", "grid_mask"))


def test_the_standard_operations_run_on_the_device_and_augmix_does_not():
    rng = np.random.default_rng(0)
    assert all(graph.runs_on_device(s) for c in RandAugment(3, 0.5).draw(100, 40, 40, rng) for s in fuse(c))
    assert not any(graph.runs_on_device(s) for c in AugMix().draw(5, 40, 40, rng) for s in fuse(c))


def test_the_pipeline_takes_it_with_and_without_mixing(batch):
    targets = np.eye(len(batch))
    settings = {"batch_size": 4, "seed": 3, "shuffle": True}
    for mixing in (None, MixUp(1.0)):
        opencv = list(BatchPipeline(batch, targets, policy=RandAugment(1, 0.3), mixing=mixing, **settings).epoch(0))
        device = BatchPipeline(batch, targets, policy=graph.OnDevice(RandAugment(1, 0.3)), mixing=mixing, **settings)
        for expected, got in zip(opencv, device.epoch(0), strict=True):
            assert np.abs(np.asarray(got.images).astype(int) - expected.images).max() <= 2
            np.testing.assert_array_equal(got.targets, expected.targets)


def test_the_choice_is_the_faster_engine(batch):
    choice = graph.choose_engine(RandAugment(), batch, seed=0, repeats=3)
    faster = choice.opencv_seconds_per_image > 2 * choice.tensorflow_seconds_per_image
    assert choice.engine == ("tensorflow" if faster else "opencv")
    assert min(choice.opencv_seconds_per_image, choice.tensorflow_seconds_per_image) > 0


def test_images_of_one_pixel_and_empty_batches():
    policy = graph.OnDevice(RandAugment(3, 1.0, operations="cells"))
    for seed in range(10):
        assert policy(np.full((3, 1, 1, 3), 77, np.uint8), np.random.default_rng(seed)).shape == (3, 1, 1, 3)
    assert policy(np.empty((0, 5, 5, 3), np.uint8), np.random.default_rng(0)).shape == (0, 5, 5, 3)
