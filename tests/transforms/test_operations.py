"""Every operation tells the truth: range, identity at zero, monotone, two-sided where declared, drawn for each image."""

from __future__ import annotations

import collections
import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.errors import RecipeError
from bloodauto.transforms import OPERATION_SETS, OPERATIONS, Apply
from bloodauto.transforms.operations import StrengthSampling, select_operations
from bloodauto.transforms.steps import Kind

GRADED = [name for name, operation in OPERATIONS.items() if operation.strength_sampling is not StrengthSampling.ALWAYS]
ALWAYS = [name for name, operation in OPERATIONS.items() if operation.strength_sampling is StrengthSampling.ALWAYS]
# Where a bigger move can land on something similar, more moving does not always differ more from the original.
EFFECT_SATURATES = {"translate_x", "translate_y", "shear_x", "shear_y", "rotate_any"}
# At a tenth of the range, 40 pixels give these less than half a level or half a pixel to act on.
MAY_ROUND_AWAY = {"posterize", "jpeg", "cutout", "grid_mask", "gaussian_blur", "defocus_blur"}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 (24, 40, 40, 3): coloured discs on an uneven ground."""
    rng = np.random.default_rng(5)
    result = np.empty((24, 40, 40, 3), np.uint8)
    for image in result:
        ground = cv2.GaussianBlur(rng.standard_normal((40, 40, 3)).astype(np.float32), (0, 0), 1.5)
        image[:] = np.clip(170 + 60 * ground, 0, 255)
        cv2.circle(image, tuple(rng.integers(12, 28, 2).tolist()), 9, rng.integers(20, 150, 3).tolist(), -1)
    return result


def effect(name: str, magnitude: float, images: np.ndarray, draws: int = 6) -> float:
    """Mean absolute difference from the original, over images and draws; the same draws for every magnitude."""
    rng = np.random.default_rng(17)
    policy = Apply(name, magnitude)
    return float(np.mean([np.abs(policy(images, rng).astype(int) - images).mean() for _ in range(draws)]))


@pytest.mark.parametrize("name", GRADED)
def test_magnitude_zero_leaves_the_image_as_it_is(name, images):
    np.testing.assert_array_equal(Apply(name, 0.0)(images, np.random.default_rng(0)), images)


@pytest.mark.parametrize("name", GRADED)
def test_the_effect_grows_with_the_magnitude(name, images):
    effects = [effect(name, magnitude, images) for magnitude in (0.0, 0.1, 0.3, 0.6, 1.0)]
    allowed_drop = 0.15 if name in EFFECT_SATURATES else 0.0
    for weaker, stronger in itertools.pairwise(effects):
        assert stronger >= (1 - allowed_drop) * weaker
    assert effects[-1] > effects[1]
    assert effects[1] > 0 or name in MAY_ROUND_AWAY
    assert effects[-1] > 0.5


@pytest.mark.parametrize("name", ALWAYS)
def test_operations_without_strength_ignore_the_magnitude(name, images):
    weak, strong = (Apply(name, magnitude)(images, np.random.default_rng(3)) for magnitude in (0.0, 1.0))
    np.testing.assert_array_equal(weak, strong)
    assert (weak != images).any()


@pytest.mark.parametrize("name", OPERATIONS)
def test_strengths_stay_in_the_declared_range_and_are_two_sided_where_declared(name):
    operation = OPERATIONS[name]
    rng = np.random.default_rng(0)
    for magnitude in (0.0, 0.25, 1.0):
        strengths = operation.strengths(np.full(4000, magnitude), rng.random(4000))
        most = magnitude * operation.limit
        assert np.abs(strengths).max() <= most + 1e-12
        if magnitude == 0.0 or operation.strength_sampling is StrengthSampling.ALWAYS:
            continue
        if operation.strength_sampling in (StrengthSampling.SIGNED, StrengthSampling.SYMMETRIC):
            assert strengths.min() < -0.95 * most
            assert strengths.max() > 0.95 * most
            assert abs(np.mean(strengths > 0) - 0.5) < 0.03
        else:
            assert strengths.min() >= 0
        if operation.strength_sampling in (StrengthSampling.UNIFORM, StrengthSampling.SYMMETRIC):
            width = most if operation.strength_sampling is StrengthSampling.UNIFORM else 2 * most
            assert abs(strengths.std() - width / np.sqrt(12)) < 0.03 * width
        else:
            np.testing.assert_allclose(np.abs(strengths), most)


@pytest.mark.parametrize(
    "name", [name for name in GRADED if OPERATIONS[name].strength_sampling is StrengthSampling.SIGNED]
)
def test_signed_operations_have_two_effects_equally_often(name, images):
    results = Apply(name, 0.3)(np.repeat(images[:1], 200, axis=0), np.random.default_rng(1))
    counts = collections.Counter(result.tobytes() for result in results)
    assert len(counts) == 2
    assert min(counts.values()) > 70


DRAWN = [
    name
    for name in OPERATIONS
    if OPERATIONS[name].strength_sampling not in (StrengthSampling.EXACT, StrengthSampling.ALWAYS)
] + [
    "white_balance",
    "stain_jitter",
    "quarter_turn",
]


@pytest.mark.parametrize("name", DRAWN)
def test_each_image_of_a_batch_is_drawn_on_its_own(name, images):
    results = Apply(name, 0.7)(np.repeat(images[:1], 32, axis=0), np.random.default_rng(2))
    different = len({result.tobytes() for result in results})
    at_most_two = OPERATIONS[name].strength_sampling is StrengthSampling.SIGNED
    assert different >= (2 if at_most_two else 3 if name == "quarter_turn" else 8)


@given(
    name=st.sampled_from(sorted(OPERATIONS)),
    magnitude=st.floats(0, 1),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    constant=st.one_of(st.none(), st.integers(0, 255)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=400)
def test_any_image_at_any_magnitude(name, magnitude, height, width, constant, seed):
    rng = np.random.default_rng(seed)
    shape = (2, height, width, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8) if constant is None else np.full(shape, constant, np.uint8)
    before = images.copy()
    results = Apply(name, magnitude)(images, rng)
    assert results.dtype == np.uint8
    assert results.shape == shape
    np.testing.assert_array_equal(images, before)
    if OPERATIONS[name].kind is Kind.GEOMETRIC:
        # Interpolation and reflection make nothing that lies outside what is there.
        assert results.min() >= images.min()
        assert results.max() <= images.max()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 40_000, 3), (1, 40_000, 3, 3), (1, 2600, 2500, 3)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_huge_images(name, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert Apply(name, 1.0)(images, np.random.default_rng(1)).shape == shape


def test_the_names_of_sets_and_operations():
    assert len(select_operations("standard")) == 10
    assert {operation.name for operation in select_operations("cells")} <= set(OPERATIONS)
    assert all(set(names) <= set(OPERATIONS) for names in OPERATION_SETS.values())
    with pytest.raises(RecipeError, match="expected standard, paper, cells"):
        select_operations("strong")
    with pytest.raises(RecipeError, match="'rotat'"):
        select_operations(("rotate", "rotat"))
    with pytest.raises(RecipeError, match="at least one"):
        select_operations(())


def test_every_operation_states_unit_meaning_and_source():
    for operation in OPERATIONS.values():
        assert operation.unit
        assert operation.description
        assert operation.source
        assert operation.limit > 0
