"""How many images are evaluated, and which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT
from bloodauto.shift.corruptions import GROUPS
from bloodauto.shift.suite import SEARCH_SEVERITIES, ShiftSuite


def blank_dataset(count: int, classes: int = 8) -> tuple[CellDataset, Splits]:
    """Images of 8 px of one colour; four fifths of them are training images."""
    labels = np.arange(count) % classes
    unknown = np.full(count, "")
    dataset = CellDataset(
        np.full((count, 8, 8, 3), 200, np.uint8),
        labels,
        tuple(f"class {number}" for number in range(classes)),
        np.array([str(number) for number in range(count)]),
        unknown,
        unknown,
        unknown,
        "blank",
    )
    fold = (np.random.default_rng(0).permutation(count) % 5).astype(np.int8)
    return dataset, Splits(fold, 0, 5, tuple(f"fold_{number}" for number in range(5)))


@pytest.mark.parametrize(("images", "epochs"), [(2000, 4), (5000, 4), (12000, 4), (12000, 6)])
def test_evaluation_costs_a_tenth_of_a_training(images: int, epochs: int) -> None:
    """A step costs three forward passes for each image, so evaluated images may be three tenths of those trained on."""
    fold_data = prepare_fold(*blank_dataset(images), ShiftSuite(seed=0))
    trained_on = epochs * len(fold_data.train_index)
    after_epochs = epochs * (len(fold_data.subset_rows) + len(fold_data.subset_shifted_rows))
    at_the_end = fold_data.num_evaluated_images
    assert after_epochs + at_the_end <= 0.33 * trained_on
    assert len(fold_data.subset_rows) + len(fold_data.subset_shifted_rows) >= 250


def test_of_few_images_all_are_evaluated() -> None:
    fold_data = prepare_fold(*blank_dataset(100), ShiftSuite(seed=0))
    assert len(fold_data.subset_rows) == len(fold_data.validation_index) == 20
    assert len(fold_data.subset_shifted_rows) == len(fold_data.plan) == 20 + 16 * (len(GROUPS) - 1)


def test_the_subset_is_fixed_and_has_the_same_fraction_of_each_group_and_class() -> None:
    fold_data = prepare_fold(*blank_dataset(12000), ShiftSuite(seed=0))
    again = prepare_fold(*blank_dataset(12000), ShiftSuite(seed=0))
    np.testing.assert_array_equal(fold_data.subset_shifted_rows, again.subset_shifted_rows)
    chosen = fold_data.plan.select(fold_data.subset_shifted_rows)
    fraction = len(chosen) / len(fold_data.plan)
    for group in GROUPS:
        in_plan, in_subset = (int((plan.group_names == group).sum()) for plan in (fold_data.plan, chosen))
        assert abs(in_subset - fraction * in_plan) <= 2
    by_class = np.bincount(fold_data.shifted_labels[fold_data.subset_shifted_rows])
    assert by_class.min() > 0.9 * by_class.mean()
    severities = np.bincount(chosen.severities)[list(SEARCH_SEVERITIES)]
    assert severities.min() > 0.7 * severities.mean()


def test_clean_images_of_a_held_out_site_have_a_weight_of_their_own() -> None:
    dataset, splits = blank_dataset(400)
    assert prepare_fold(dataset, splits, ShiftSuite(seed=0)).clean_weight is None
    by_site = replace(splits, fold_names=("A", "B", "C", "D", "E"))
    assert prepare_fold(dataset, by_site, ShiftSuite(seed=0)).clean_weight == HELD_OUT_SITE_WEIGHT


def test_labels_follow_their_images() -> None:
    dataset, splits = blank_dataset(400)
    fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=0), max_subset_images=30)
    np.testing.assert_array_equal(fold_data.train_labels, dataset.labels[fold_data.train_index])
    np.testing.assert_array_equal(fold_data.validation_labels, dataset.labels[fold_data.validation_index])
    np.testing.assert_array_equal(fold_data.subset_labels, fold_data.validation_labels[fold_data.subset_rows])
    np.testing.assert_array_equal(fold_data.shifted_labels, fold_data.subset_labels[fold_data.plan.image_index])
    assert fold_data.image_shape_px == (8, 8)
