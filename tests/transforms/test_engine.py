"""Fusion: what is fused equals what is applied step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bloodauto.config.recipe import OPERATION_SETS, RandAugmentSettings
from bloodauto.transforms import OPERATIONS, RandAugment, Sequence, Symmetries
from bloodauto.transforms.engine import Lookup, fuse
from bloodauto.transforms.operations.geometry import symmetry
from bloodauto.transforms.steps import Chain, Kind, Step, Warp
from bloodauto.types import Image, Mask
from tests.transforms.applying import apply_chain


def step_by_step(image: Image, chain: Chain) -> Image:
    for step in chain:
        image = apply_chain(image, [step])
    return image


def steps_of(names: tuple[str, ...], height: int, width: int, seed: int, magnitude: float = 0.4) -> Chain:
    rng = np.random.default_rng(seed)
    chain = []
    for name in names:
        operation = OPERATIONS[name]
        payload = operation.prepare(np.array([magnitude]), rng.random((1, 7)), height, width)[0]
        chain.append(Step(name, operation.kind, payload))
    return chain


POINTWISE = tuple(name for name, operation in OPERATIONS.items() if operation.kind is Kind.POINTWISE)
GEOMETRIC = tuple(name for name, operation in OPERATIONS.items() if operation.kind is Kind.GEOMETRIC)


@pytest.mark.parametrize("seed", range(60))
def test_pointwise_steps_become_one_stage_that_does_exactly_the_same(smooth_image: Image, seed: int) -> None:
    names = tuple(np.random.default_rng(seed).permutation(POINTWISE)[:4])
    chain = steps_of(names, smooth_image.shape[0], smooth_image.shape[1], seed)
    assert len(fuse(chain)) == 1
    np.testing.assert_array_equal(apply_chain(smooth_image, chain), step_by_step(smooth_image, chain))


def inside_at_every_step(chain: Chain, height: int, width: int) -> Mask:
    """Which output pixels are read from inside the image by every step, with a margin of two pixels."""
    ys, xs = np.mgrid[:height, :width].astype(float)
    points = np.stack([xs, ys, np.ones_like(xs)])
    inside = np.ones((height, width), bool)
    for step in reversed(chain):
        assert isinstance(step.payload, Warp)
        points = np.tensordot(step.payload.matrix, points, 1)
        inside &= (points[0] >= 2) & (points[0] <= width - 3) & (points[1] >= 2) & (points[1] <= height - 3)
    return inside


@pytest.mark.parametrize("seed", range(20))
def test_geometric_steps_become_one_warp_within_two_levels_where_nothing_comes_from_outside(
    smooth_image: Image, seed: int
) -> None:
    names = tuple(np.random.default_rng(seed).permutation(GEOMETRIC)[:3])
    height, width = smooth_image.shape[:2]
    chain = steps_of(names, height, width, seed, magnitude=0.15)
    (stage,) = fuse(chain)
    assert isinstance(stage, Warp)
    inside = inside_at_every_step(chain, height, width)
    assert inside.mean() > 0.02
    difference = np.abs(apply_chain(smooth_image, chain).astype(int) - step_by_step(smooth_image, chain))[inside]
    assert difference.max() <= 2
    assert difference.mean() <= 0.5


def test_one_warp_blurs_less_than_three(textured_image: Image) -> None:
    chain = steps_of(
        ("rotate", "zoom", "translate"), textured_image.shape[0], textured_image.shape[1], seed=3, magnitude=0.1
    )
    inside = inside_at_every_step(chain, *textured_image.shape[:2])

    def detail(image: Image) -> float:
        return float(np.abs(cv2.Laplacian(image, cv2.CV_32F))[inside].mean())

    assert detail(apply_chain(textured_image, chain)) > 1.15 * detail(step_by_step(textured_image, chain))


def test_steps_of_other_kinds_keep_their_order(smooth_image: Image) -> None:
    names = ("solarize", "rotate", "invert", "shear_x", "translate_x", "gaussian_blur", "hue", "brightness", "gamma")
    chain = steps_of(names, smooth_image.shape[0], smooth_image.shape[1], seed=1)
    kinds = [type(stage).__name__ for stage in fuse(chain)]
    assert kinds == ["Lookup", "Warp", "Lookup", "Warp", "Filter", "Mix", "Lookup"]


def test_neighbours_of_two_policies_are_fused() -> None:
    rotations = RandAugment(RandAugmentSettings(num_ops=2, magnitude=0.3, operations=("rotate",)))
    policy = Sequence((Symmetries(), rotations, Symmetries()))
    chains = policy.draw(50, 32, 32, np.random.default_rng(0))
    assert {len(fuse(chain)) for chain in chains} == {1}
    assert max(len(chain) for chain in chains) == 4


@pytest.mark.parametrize("first", range(8))
@pytest.mark.parametrize("second", range(8))
def test_flips_and_turns_of_squares_are_permutations_and_equal_the_warp(first: int, second: int) -> None:
    image = np.random.default_rng(first).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    matrices = symmetry(np.array([first, second]), 9, 9)
    lossless = [Step("s", Kind.GEOMETRIC, Warp(matrix, lossless=True)) for matrix in matrices]
    warped = [Step("s", Kind.GEOMETRIC, Warp(matrix, lossless=False)) for matrix in matrices]
    result = apply_chain(image, lossless)
    np.testing.assert_array_equal(result, apply_chain(image, warped))
    expected = image
    for index in (first, second):
        expected = np.rot90(expected, index % 4)
        expected = expected[:, ::-1] if index >= 4 else expected
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("operations", OPERATION_SETS)
def test_the_source_is_never_written(smooth_image: Image, operations: str) -> None:
    images = np.stack([smooth_image] * 40)
    original = images.copy()
    images.setflags(write=False)
    policy = RandAugment(RandAugmentSettings(num_ops=4, magnitude=1.0, operations=operations))
    policy(images, np.random.default_rng(0))
    np.testing.assert_array_equal(images, original)


def test_a_lookup_holds_every_pointwise_neighbour(smooth_image: Image) -> None:
    (stage,) = fuse(
        steps_of(("equalize", "brightness", "auto_contrast"), smooth_image.shape[0], smooth_image.shape[1], seed=0)
    )
    assert isinstance(stage, Lookup)
    assert len(stage.parts) == 3
