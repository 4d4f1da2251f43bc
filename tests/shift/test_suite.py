"""The suite's views: fixed, balanced, and cheap."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.errors import DataError, RecipeError
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.shift.corruptions.family import GROUPS, SEVERITIES, TrainingCoverage
from bloodauto.shift.corruptions.registry import FAMILIES
from bloodauto.shift.suite import COMBINED_WEIGHT, SEARCH_SEVERITIES, ShiftPlan, ShiftSuite


@pytest.fixture
def labels(cells: np.ndarray) -> np.ndarray:
    return np.arange(len(cells)) % 4


def test_equal_settings_give_the_same_bytes(cells: np.ndarray, labels: np.ndarray) -> None:
    first = ShiftSuite(seed=7).plan(labels).render(cells)
    np.testing.assert_array_equal(first, ShiftSuite(seed=7).plan(labels.copy()).render(cells.copy()))
    assert not np.array_equal(first, ShiftSuite(seed=8).plan(labels).render(cells))


def test_bytes_do_not_depend_on_order_batches_or_threads(cells: np.ndarray, labels: np.ndarray) -> None:
    plan = ShiftSuite(seed=7).plan(labels)
    whole = plan.render(cells)
    backwards = plan.render(cells, np.arange(len(plan))[::-1])
    np.testing.assert_array_equal(backwards[::-1], whole)
    with ThreadPoolExecutor(4) as pool:
        starts = range(0, len(plan), 5)
        batches = list(pool.map(lambda start: plan.render(cells, slice(start, start + 5)), starts))
    np.testing.assert_array_equal(np.concatenate(batches), whole)
    np.testing.assert_array_equal(np.concatenate([view.images for view in plan.shifted_images(cells)]), whole)


def test_one_view_per_image_and_group(cells: np.ndarray, labels: np.ndarray) -> None:
    shifted_images = list(ShiftSuite(seed=1, num_images=24).shifted_images(cells, labels))
    assert [view.group for view in shifted_images] == list(GROUPS)
    group_of = {family.name: family.group for family in FAMILIES}
    for view in shifted_images:
        assert len(set(view.image_index)) == len(view.image_index) == (24 if view.group == "combined" else 6)
        assert {group_of[name] for name in view.families} == {view.group}


@given(
    class_sizes=st.lists(st.integers(1, 120), min_size=1, max_size=8),
    num_images=st.integers(1, 300),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_subsample_and_deal_are_even(class_sizes: list[int], num_images: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(class_sizes)), class_sizes))
    plan = ShiftSuite(seed=seed, num_images=num_images).plan(labels)
    shown = np.unique(plan.image_index)
    assert len(shown) == min(num_images, len(labels))
    few = min(-(-num_images // 4), len(labels))
    assert len(plan) == len(shown) + few * (len(GROUPS) - 1)
    assert set(plan.severities.tolist()) <= set(SEARCH_SEVERITIES)
    kept = np.bincount(labels[shown], minlength=len(class_sizes))
    # A class may have fewer than the largest share only when it has no more to give, or by the last odd image.
    assert all(count >= min(size, kept.max() - 1) for count, size in zip(kept, class_sizes, strict=True))
    for group in GROUPS:
        members = [index for index, family in enumerate(plan.families) if family.group == group]
        rows = np.isin(plan.family_index, members)
        dealt = np.zeros((len(plan.families), max(SEVERITIES) + 1), int)
        np.add.at(dealt, (plan.family_index[rows], plan.severities[rows]), 1)
        combinations = dealt[members][:, SEARCH_SEVERITIES]
        assert combinations.max() - combinations.min() <= 1


def test_default_covers_every_family_at_every_telling_severity() -> None:
    plan = ShiftSuite(seed=0).plan(np.random.default_rng(0).integers(0, 8, 2000))
    assert len(plan) == 512 + 128 * (len(GROUPS) - 1)
    combinations = set(zip(plan.family_index.tolist(), plan.severities.tolist(), strict=True))
    assert len(combinations) == len(FAMILIES) * len(SEARCH_SEVERITIES)


@pytest.mark.parametrize("covered_by_training", [(), (TrainingCoverage("defocus", 5.0), TrainingCoverage("jpeg", 3.0))])
def test_another_laboratory_counts_half_whatever_else_counts(covered_by_training: tuple[TrainingCoverage, ...]) -> None:
    labels = np.random.default_rng(0).integers(0, 8, 2000)
    plan = ShiftSuite(seed=0, covered_by_training=covered_by_training).plan(labels)
    clean = np.eye(8)[labels]
    truth = labels[plan.image_index]
    answers = np.where(plan.group_names == "combined", (truth + 1) % 8, truth)
    assert score_shift(labels, clean, plan, np.eye(8)[answers]).objective == pytest.approx(1 - COMBINED_WEIGHT)
    alone = ShiftSuite(seed=0, exclude_families=("combined_shift",)).plan(labels)
    assert set(alone.weights) == {1.0}


def test_excluded_families_are_never_shown_and_the_rest_keeps_its_noise(cells: np.ndarray, labels: np.ndarray) -> None:
    full = ShiftSuite(seed=3).exhaustive_plan(labels)
    held_out = ShiftSuite(seed=3, exclude_families=("defocus", "motion", "jpeg")).exhaustive_plan(labels)
    assert {"defocus", "motion", "jpeg"}.isdisjoint(family.name for family in held_out.families)
    names = [family.name for family in full.families]

    def comparison_rows(plan: ShiftPlan, name: str) -> np.ndarray:
        return np.flatnonzero(np.array([family.name for family in plan.families])[plan.family_index] == name)

    for name in set(names) - {"defocus", "motion", "jpeg"}:
        np.testing.assert_array_equal(
            full.render(cells, comparison_rows(full, name)[:3]),
            held_out.render(cells, comparison_rows(held_out, name)[:3]),
        )


def test_a_group_without_families_has_no_views(cells: np.ndarray, labels: np.ndarray) -> None:
    suite = ShiftSuite(seed=3, exclude_families=("defocus", "motion"))
    assert [view.group for view in suite.shifted_images(cells, labels)] == list(GROUPS[1:])


def test_thorough_plan_is_the_whole_product(labels: np.ndarray) -> None:
    plan = ShiftSuite(seed=0, num_images=10).exhaustive_plan(labels)
    assert len(plan) == 10 * len(FAMILIES) * 3
    triples = set(zip(plan.family_index.tolist(), plan.severities.tolist(), plan.image_index.tolist(), strict=True))
    assert len(triples) == len(plan)
    assert set(plan.severities.tolist()) == {2, 3, 4}


def test_severities_of_one_image_share_their_noise(cells: np.ndarray, labels: np.ndarray) -> None:
    plan = ShiftSuite(seed=0, num_images=4).exhaustive_plan(labels)
    noise = next(index for index, family in enumerate(plan.families) if family.name == "gaussian_noise")
    rows = np.flatnonzero((plan.family_index == noise) & (plan.image_index == plan.image_index[0]))
    original = cells[plan.image_index[0]].astype(float)
    mild, _, harsh = (image - original for image in plan.render(cells, rows).astype(float))
    assert np.corrcoef(mild.ravel(), harsh.ravel())[0, 1] > 0.8


def test_unusable_settings_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(RecipeError, match="num_images"):
        ShiftSuite(seed=0, num_images=0)
    with pytest.raises(RecipeError, match="seed"):
        ShiftSuite(seed=-1)
    with pytest.raises(RecipeError, match="'jpeg'"):
        ShiftSuite(seed=0, exclude_families=("jpg",))
    with pytest.raises(RecipeError, match="all are excluded"):
        ShiftSuite(seed=0, exclude_families=tuple(family.name for family in FAMILIES))
    with pytest.raises(RecipeError, match="severities"):
        ShiftSuite(seed=0).exhaustive_plan(labels, severities=(2, 6))


def test_images_that_do_not_belong_to_the_plan_are_refused(cells: np.ndarray, labels: np.ndarray) -> None:
    plan = ShiftSuite(seed=0).plan(labels)
    with pytest.raises(DataError, match="24 validation images"):
        plan.render(cells[:5])
    with pytest.raises(DataError, match="uint8"):
        plan.render(cells.astype(np.float32))
    with pytest.raises(DataError, match="uint8"):
        list(plan.shifted_images(cells[:, :, :, 0]))
    for bad in (np.zeros(0, int), np.zeros(4), np.zeros((4, 2), int)):
        with pytest.raises(DataError, match="labels"):
            ShiftSuite(seed=0).plan(bad)


@pytest.mark.slow
def test_a_core_makes_two_thousand_views_a_second(cells: np.ndarray) -> None:
    images = np.concatenate([cells] * 11)[:256]
    plan = ShiftSuite(seed=0).plan(np.arange(256) % 8)
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        plan.render(images, slice(0, 100))
        started = time.thread_time()
        plan.render(images)
        thread_seconds = time.thread_time() - started
    finally:
        cv2.setNumThreads(threads_before)
    assert len(plan) / thread_seconds >= 2000
