"""How much is judged, and what the judged views are."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.evaluation.fold_data import FoldData, evaluate, predict_outputs, prepare_fold
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT
from bloodauto.models.network import build_network
from bloodauto.shift.corruptions.family import GROUPS
from bloodauto.shift.suite import SEARCH_SEVERITIES, ShiftSuite


def blank(count: int, classes: int = 8) -> tuple[CellDataset, Splits]:
    """Cells of 8 px without anything on them: four fifths to learn from."""
    labels = np.arange(count) % classes
    nothing = np.full(count, "")
    dataset = CellDataset(
        np.full((count, 8, 8, 3), 200, np.uint8),
        labels,
        tuple(f"class {number}" for number in range(classes)),
        np.array([str(number) for number in range(count)]),
        nothing,
        nothing,
        nothing,
        "blank",
    )
    fold = (np.random.default_rng(0).permutation(count) % 5).astype(np.int8)
    return dataset, Splits(fold, 0, 5, tuple(f"fold_{number}" for number in range(5)))


@pytest.mark.parametrize(("images", "epochs"), [(2000, 4), (5000, 4), (12000, 4), (12000, 6)])
def test_judging_stays_a_tenth_of_a_training(images: int, epochs: int) -> None:
    """A step costs three answers for each image, so judged images may be three tenths of those learnt from."""
    fold_data = prepare_fold(*blank(images), ShiftSuite(seed=0))
    learnt_from = epochs * len(fold_data.train_index)
    after_epochs = epochs * (len(fold_data.subset_rows) + len(fold_data.subset_shifted_rows))
    at_the_end = len(fold_data.validation_index) + len(fold_data.plan)
    assert after_epochs + at_the_end <= 0.33 * learnt_from
    assert len(fold_data.subset_rows) + len(fold_data.subset_shifted_rows) >= 250


def test_few_images_are_judged_by_what_there_is() -> None:
    fold_data = prepare_fold(*blank(100), ShiftSuite(seed=0))
    assert len(fold_data.subset_rows) == len(fold_data.validation_index) == 20
    assert len(fold_data.subset_shifted_rows) == len(fold_data.plan) == 20 + 16 * (len(GROUPS) - 1)


def test_a_quick_look_is_a_fixed_part_with_the_same_share_of_each_group_and_class() -> None:
    fold_data = prepare_fold(*blank(12000), ShiftSuite(seed=0))
    again = prepare_fold(*blank(12000), ShiftSuite(seed=0))
    np.testing.assert_array_equal(fold_data.subset_shifted_rows, again.subset_shifted_rows)
    chosen = fold_data.plan.select(fold_data.subset_shifted_rows)
    share = len(chosen) / len(fold_data.plan)
    for group in GROUPS:
        there, here = (int((plan.group_names == group).sum()) for plan in (fold_data.plan, chosen))
        assert abs(here - share * there) <= 2
    of_class = np.bincount(fold_data.shifted_labels[fold_data.subset_shifted_rows])
    assert of_class.min() > 0.9 * of_class.mean()
    severities = np.bincount(chosen.severities)[list(SEARCH_SEVERITIES)]
    assert severities.min() > 0.7 * severities.mean()


def test_judging_answers_for_the_rows_it_says(fold_data: FoldData, recipe_of) -> None:
    network = build_network(recipe_of(), num_classes=fold_data.num_classes, image_shape_px=(32, 32), weights_file=None)
    quick_part = replace(fold_data, subset_shifted_rows=fold_data.subset_shifted_rows[::2])
    subset_only, quick_answers = evaluate(network, quick_part, subset_only=True)
    whole, answers = evaluate(network, quick_part, subset_only=False)
    np.testing.assert_allclose(quick_answers.shifted, answers.shifted[quick_part.subset_shifted_rows], atol=1e-6)
    np.testing.assert_array_equal(
        quick_answers.shifted_families, answers.shifted_families[quick_part.subset_shifted_rows]
    )
    np.testing.assert_array_equal(answers.shifted_weights, fold_data.plan.weights)
    assert len(answers.shifted_severities) == len(answers.shifted) == len(fold_data.plan)
    assert subset_only.latency_ms is None
    assert whole.latency_ms > 0


def test_target_images_are_answered_for_once_and_never_learnt_from(fold_data: FoldData, recipe_of) -> None:
    network = build_network(recipe_of(), num_classes=fold_data.num_classes, image_shape_px=(32, 32), weights_file=None)
    with_target = replace(fold_data, target=fold_data.images[:5])
    evaluation, answers = evaluate(network, with_target, subset_only=False)
    assert answers.target.shape == (5, fold_data.num_classes)
    assert 0.0 <= evaluation.target_estimate <= 1.0
    subset_only, nothing = evaluate(network, with_target, subset_only=True)
    assert subset_only.target_estimate is None
    assert len(nothing.target) == 0
    without, none = evaluate(network, fold_data, subset_only=False)
    assert without.target_estimate is None
    assert none.target.shape == (0, fold_data.num_classes)
    assert without.shift == evaluation.shift


def test_a_left_out_laboratory_is_what_the_objective_hears_most_of() -> None:
    dataset, splits = blank(400)
    assert prepare_fold(dataset, splits, ShiftSuite(seed=0)).clean_weight is None
    by_lab = replace(splits, fold_names=("A", "B", "C", "D", "E"))
    assert prepare_fold(dataset, by_lab, ShiftSuite(seed=0)).clean_weight == HELD_OUT_SITE_WEIGHT


def test_answers_come_for_every_output_and_every_image_however_many_a_batch_takes() -> None:
    images = keras.Input((4, 4, 3), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(images))
    both = keras.Model(images, [mean, keras.layers.Rescaling(2.0)(mean)])
    shown = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 3), dtype=np.uint8)
    means = shown.mean(axis=(1, 2))
    for batch_size in (4, 7, 21, 64):
        found = predict_outputs(both, shown, batch_size=batch_size)
        np.testing.assert_allclose(found[0], means, rtol=1e-5)
        np.testing.assert_allclose(found[1], 2 * means, rtol=1e-5)
    rows = np.array([20, 3, 3])
    (found_alone,) = predict_outputs(keras.Model(images, mean), shown, rows, batch_size=2)
    np.testing.assert_allclose(found_alone, means[rows], rtol=1e-5)
