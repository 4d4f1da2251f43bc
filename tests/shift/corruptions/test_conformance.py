"""Every registered family keeps the promises of the conformance suite, on any image and on real cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bloodauto.errors import DataError, RecipeError
from bloodauto.shift.corruptions import FAMILIES, GROUPS, SEVERITIES, SHIFT_FACTORS, CorruptionFamily, find_family
from bloodauto.shift.corruptions.combined import COMBINED_FACTORS
from bloodauto.shift.corruptions.registry import REGISTERED
from bloodauto.testing.conformance import corruptions as conformance
from bloodauto.types import Image
from tests.locations import SHARED

REAL_CELLS = SHARED / "data" / "pbc96"

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)

#: Families whose level alone decides the result.
DRAW_NOTHING = {"defocus", "jpeg", "pixelation", "resolution"}


@each_family
@pytest.mark.parametrize("check", conformance.CORRUPTION_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Callable[[CorruptionFamily], None], family: CorruptionFamily) -> None:
    if check is conformance.check_randomness:
        conformance.check_randomness(family, draws_nothing=family.name in DRAW_NOTHING)
    else:
        check(family)


def test_every_group_and_shift_factor_has_families() -> None:
    assert len(FAMILIES) == len(REGISTERED)
    assert [group for group in GROUPS if any(family.group == group for family in FAMILIES)] == list(GROUPS)
    assert {family.factor for family in FAMILIES} == {*SHIFT_FACTORS, None}
    assert {name for names in COMBINED_FACTORS for name in names} <= set(REGISTERED)


@pytest.mark.parametrize(
    ("corrupt", "check"),
    [
        (lambda image, level, rng: image, conformance.check_images_in_and_out),
        (lambda image, level, rng: image // 2, conformance.check_severity_grows),
        (lambda image, level, rng: image + np.random.default_rng().integers(0, 9, image.shape, dtype=np.uint8),
         conformance.check_same_seed),
    ],
)  # fmt: skip
def test_the_suite_finds_broken_families(
    corrupt: Callable[[Image, float, np.random.Generator], Image], check: Callable[[CorruptionFamily], None]
) -> None:
    with pytest.raises(AssertionError):
        check(replace(find_family("defocus"), corrupt=corrupt))


@given(
    image=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    family=st.sampled_from(FAMILIES),
    severity=st.sampled_from(SEVERITIES),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_any_image_gives_an_image_and_the_same_twice(
    image: Image, family: CorruptionFamily, severity: int, seed: int
) -> None:
    first = family.apply(image, severity, np.random.default_rng(seed))
    assert first.dtype == np.uint8
    assert first.shape == image.shape
    np.testing.assert_array_equal(first, family.apply(image, severity, np.random.default_rng(seed)))


@pytest.mark.real_data
@each_family
def test_severity_grows_on_real_cells(family: CorruptionFamily) -> None:
    if not REAL_CELLS.is_dir():
        pytest.skip(f"no real cells at {REAL_CELLS}")
    paths = [path for folder in sorted(REAL_CELLS.iterdir()) for path in sorted(folder.iterdir())[:5]]
    images = np.stack([cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths])
    changes = [conformance.mean_change(family, images, severity) for severity in SEVERITIES]
    assert all(later > earlier for earlier, later in pairwise(changes)), changes


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["float", "grey", "four channels", "empty"],
)
def test_other_arrays_are_refused(image: Image) -> None:
    with pytest.raises(DataError, match=r"expected a non-empty uint8 image"):
        FAMILIES[0].apply(image, 1, np.random.default_rng(0))


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_unknown_severities_are_refused(severity: int) -> None:
    with pytest.raises(RecipeError, match="severity"):
        FAMILIES[0].apply(np.zeros((4, 4, 3), np.uint8), severity, np.random.default_rng(0))


def test_a_misspelt_name_is_met_by_the_nearest() -> None:
    assert find_family("jpeg").name == "jpeg"
    with pytest.raises(RecipeError, match="'stain_hue'"):
        find_family("stain_heu")


def test_a_renamed_family_can_keep_its_images() -> None:
    family = find_family("gaussian_noise")
    renamed = replace(family, name="another_name")
    assert renamed.random_key != family.random_key
    assert replace(renamed, fixed_random_key=family.random_key).random_key == family.random_key


def test_severities_between_the_levels_and_below_the_mildest() -> None:
    blur, jpeg = find_family("defocus"), find_family("jpeg")
    assert blur.severity_at(0.79) == 0
    assert blur.severity_at(0.8) == 1
    assert blur.severity_at(99.0) == 5
    # Quality falls as the severity grows.
    assert jpeg.severity_at(51) == 0
    assert jpeg.severity_at(40) == pytest.approx(1.5)
