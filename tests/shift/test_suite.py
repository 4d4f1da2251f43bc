"""The shifted images of a suite: fixed, balanced, and cheap."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.errors import DataError, RecipeError
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.shift.corruptions import FAMILIES, GROUPS, SEVERITIES
from bloodauto.shift.overlap import TrainingCoverage
from bloodauto.shift.suite import COMBINED_WEIGHT, SEARCH_SEVERITIES, ShiftPlan, ShiftSuite
from bloodauto.types import Images, Labels


@pytest.fixture
def labels(cells: Images) -> Labels:
    return np.arange(len(cells)) % 4


def test_equal_settings_give_the_same_bytes(cells: Images, labels: Labels) -> None:
    first = ShiftSuite(seed=7).plan(labels).render(cells)
    np.testing.assert_array_equal(first, ShiftSuite(seed=7).plan(labels.copy()).render(cells.copy()))
    assert not np.array_equal(first, ShiftSuite(seed=8).plan(labels).render(cells))


def test_bytes_do_not_depend_on_order_batches_or_threads(cells: Images, labels: Labels) -> None:
    plan = ShiftSuite(seed=7).plan(labels)
    rendered = plan.render(cells)
    backwards = plan.render(cells, np.arange(len(plan))[::-1])
    np.testing.assert_array_equal(backwards[::-1], rendered)
    with ThreadPoolExecutor(4) as pool:
        starts = range(0, len(plan), 5)
        batches = list(pool.map(lambda start: plan.render(cells, slice(start, start + 5)), starts))
    np.testing.assert_array_equal(np.concatenate(batches), rendered)
    rows = np.flatnonzero(plan.group_names == "stain")
    np.testing.assert_array_equal(plan.select(rows).render(cells), rendered[rows])


def test_one_shifted_image_per_image_and_group(cells: Images, labels: Labels) -> None:
    plan = ShiftSuite(seed=1, num_images=24).plan(labels)
    assert list(dict.fromkeys(plan.group_names.tolist())) == list(GROUPS)
    group_of = {family.name: family.group for family in FAMILIES}
    for group in GROUPS:
        part = plan.select(plan.group_names == group)
        assert len(set(part.image_index)) == len(part) == (24 if group == "combined" else 6)
        assert {group_of[name] for name in part.family_names} == {group}


@given(
    class_sizes=st.lists(st.integers(1, 120), min_size=1, max_size=8),
    num_images=st.integers(1, 300),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_classes_and_combinations_are_balanced(class_sizes: list[int], num_images: int, seed: int) -> None:
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
        counts = np.zeros((len(plan.families), max(SEVERITIES) + 1), int)
        np.add.at(counts, (plan.family_index[rows], plan.severities[rows]), 1)
        combinations = counts[members][:, SEARCH_SEVERITIES]
        assert combinations.max() - combinations.min() <= 1


def test_the_default_has_every_family_at_every_search_severity() -> None:
    plan = ShiftSuite(seed=0).plan(np.random.default_rng(0).integers(0, 8, 2000))
    assert len(plan) == 512 + 128 * (len(GROUPS) - 1)
    combinations = set(zip(plan.family_index.tolist(), plan.severities.tolist(), strict=True))
    assert len(combinations) == len(FAMILIES) * len(SEARCH_SEVERITIES)


@pytest.mark.parametrize("covered_by_training", [(), (TrainingCoverage("defocus", 5.0), TrainingCoverage("jpeg", 3.0))])
def test_combined_shifts_have_half_the_weight_whatever_training_covers(
    covered_by_training: tuple[TrainingCoverage, ...],
) -> None:
    labels = np.random.default_rng(0).integers(0, 8, 2000)
    plan = ShiftSuite(seed=0, covered_by_training=covered_by_training).plan(labels)
    clean = np.eye(8)[labels]
    truth = labels[plan.image_index]
    predictions = np.where(plan.group_names == "combined", (truth + 1) % 8, truth)
    assert score_shift(labels, clean, plan, np.eye(8)[predictions]).objective == pytest.approx(1 - COMBINED_WEIGHT)
    alone = ShiftSuite(seed=0, exclude_families=("combined_shift",)).plan(labels)
    assert set(alone.weights) == {1.0}


def rows_of(suite: ShiftSuite, family: str, severities: tuple[int, ...], image: int) -> ShiftPlan:
    """A family at some severities on one image."""
    index = [known.name for known in suite.families].index(family)
    return suite.plan_of(np.array([(index, severity, image) for severity in severities]), 24)


def test_excluded_families_are_not_used_and_the_others_keep_their_noise(cells: Images, labels: Labels) -> None:
    excluded = {"defocus", "motion", "jpeg"}
    full, reduced = ShiftSuite(seed=3), ShiftSuite(seed=3, exclude_families=tuple(excluded))
    assert excluded.isdisjoint(reduced.plan(labels).family_names.tolist())
    for family in reduced.families:
        np.testing.assert_array_equal(
            rows_of(full, family.name, (2, 4), 5).render(cells), rows_of(reduced, family.name, (2, 4), 5).render(cells)
        )


def test_a_group_without_families_has_no_shifted_images(labels: Labels) -> None:
    plan = ShiftSuite(seed=3, exclude_families=("defocus", "motion")).plan(labels)
    assert list(dict.fromkeys(plan.group_names.tolist())) == list(GROUPS[1:])


def test_severities_of_one_image_have_the_same_noise(cells: Images) -> None:
    plan = rows_of(ShiftSuite(seed=0), "gaussian_noise", (2, 4), 0)
    mild, harsh = plan.render(cells).astype(float) - cells[0]
    assert np.corrcoef(mild.ravel(), harsh.ravel())[0, 1] > 0.8


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(RecipeError, match="num_images"):
        ShiftSuite(seed=0, num_images=0)
    with pytest.raises(RecipeError, match="seed"):
        ShiftSuite(seed=-1)
    with pytest.raises(RecipeError, match="'jpeg'"):
        ShiftSuite(seed=0, exclude_families=("jpg",))
    with pytest.raises(RecipeError, match="all are excluded"):
        ShiftSuite(seed=0, exclude_families=tuple(family.name for family in FAMILIES))


def test_images_that_do_not_belong_to_the_plan_are_refused(cells: Images, labels: Labels) -> None:
    plan = ShiftSuite(seed=0).plan(labels)
    with pytest.raises(DataError, match="24 validation images"):
        plan.render(cells[:5])
    with pytest.raises(DataError, match="uint8"):
        plan.render(cells.astype(np.float32))
    with pytest.raises(DataError, match="uint8"):
        plan.render(cells[:, :, :, 0])
    bad: Any
    for bad in (np.zeros(0, int), np.zeros(4), np.zeros((4, 2), int)):
        with pytest.raises(DataError, match="labels"):
            ShiftSuite(seed=0).plan(bad)


@pytest.mark.slow
def test_a_core_makes_a_thousand_shifted_images_a_second(cells: Images) -> None:
    """About 2,500 were measured; machines differ, and other work takes its part: the quickest of three counts."""
    images = np.concatenate([cells] * 11)[:256]
    plan = ShiftSuite(seed=0).plan(np.arange(256) % 8)

    def render_seconds() -> float:
        started = time.thread_time()
        plan.render(images)
        return time.thread_time() - started

    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        plan.render(images, slice(0, 100))
        thread_seconds = min(render_seconds() for _ in range(3))
    finally:
        cv2.setNumThreads(threads_before)
    print(f"{len(plan) / thread_seconds:.0f} shifted images a second")
    assert len(plan) / thread_seconds >= 1000
