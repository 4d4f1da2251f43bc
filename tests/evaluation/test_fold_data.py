"""How much is judged, and what the judged views are."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from bloodauto.data.dataset import Cells
from bloodauto.data.split import Splits
from bloodauto.evaluation.fold_data import Material, answers_of, judge, prepare
from bloodauto.models.network import build_network
from bloodauto.shift.corruptions.family import GROUPS
from bloodauto.shift.score import LEFT_OUT_LAB_SHARE
from bloodauto.shift.suite import TELLING_SEVERITIES, ShiftSuite


def blank(count: int, classes: int = 8) -> tuple[Cells, Splits]:
    """Cells of 8 px without anything on them: four fifths to learn from."""
    labels = np.arange(count) % classes
    nothing = np.full(count, "")
    cells = Cells(
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
    return cells, Splits(fold, 0, 5, tuple(f"fold_{number}" for number in range(5)))


@pytest.mark.parametrize(("images", "epochs"), [(2000, 4), (5000, 4), (12000, 4), (12000, 6)])
def test_judging_stays_a_tenth_of_a_training(images: int, epochs: int) -> None:
    """A step costs three answers for each image, so judged images may be three tenths of those learnt from."""
    material = prepare(*blank(images), ShiftSuite(seed=0))
    learnt_from = epochs * len(material.train_index)
    after_epochs = epochs * (len(material.quick_rows) + len(material.quick_views))
    at_the_end = len(material.validation_index) + len(material.plan)
    assert after_epochs + at_the_end <= 0.33 * learnt_from
    assert len(material.quick_rows) + len(material.quick_views) >= 250


def test_few_images_are_judged_by_what_there_is() -> None:
    material = prepare(*blank(100), ShiftSuite(seed=0))
    assert len(material.quick_rows) == len(material.validation_index) == 20
    assert len(material.quick_views) == len(material.plan) == 20 + 16 * (len(GROUPS) - 1)


def test_a_quick_look_is_a_fixed_part_with_the_same_share_of_each_group_and_class() -> None:
    material = prepare(*blank(12000), ShiftSuite(seed=0))
    again = prepare(*blank(12000), ShiftSuite(seed=0))
    np.testing.assert_array_equal(material.quick_views, again.quick_views)
    chosen = material.plan.select(material.quick_views)
    share = len(chosen) / len(material.plan)
    for group in GROUPS:
        there, here = (int((plan.group_names == group).sum()) for plan in (material.plan, chosen))
        assert abs(here - share * there) <= 2
    of_class = np.bincount(material.view_labels[material.quick_views])
    assert of_class.min() > 0.9 * of_class.mean()
    severities = np.bincount(chosen.severities)[list(TELLING_SEVERITIES)]
    assert severities.min() > 0.7 * severities.mean()


def test_judging_answers_for_the_rows_it_says(material: Material, recipe_of) -> None:
    network = build_network(recipe_of(), num_classes=material.num_classes, image_shape_px=(32, 32), weights_file=None)
    quick_part = replace(material, quick_views=material.quick_views[::2])
    quick, quick_answers = judge(network, quick_part, quick=True)
    whole, answers = judge(network, quick_part, quick=False)
    np.testing.assert_allclose(quick_answers.shifted, answers.shifted[quick_part.quick_views], atol=1e-6)
    np.testing.assert_array_equal(quick_answers.view_families, answers.view_families[quick_part.quick_views])
    np.testing.assert_array_equal(answers.view_weights, material.plan.weights)
    assert len(answers.view_severities) == len(answers.shifted) == len(material.plan)
    assert quick.latency_ms is None
    assert whole.latency_ms > 0


def test_target_images_are_answered_for_once_and_never_learnt_from(material: Material, recipe_of) -> None:
    network = build_network(recipe_of(), num_classes=material.num_classes, image_shape_px=(32, 32), weights_file=None)
    with_target = replace(material, target=material.images[:5])
    judgement, answers = judge(network, with_target, quick=False)
    assert answers.target.shape == (5, material.num_classes)
    assert 0.0 <= judgement.target_estimate <= 1.0
    quick, nothing = judge(network, with_target, quick=True)
    assert quick.target_estimate is None
    assert len(nothing.target) == 0
    without, none = judge(network, material, quick=False)
    assert without.target_estimate is None
    assert none.target.shape == (0, material.num_classes)
    assert without.shift == judgement.shift


def test_a_left_out_laboratory_is_what_the_objective_hears_most_of() -> None:
    cells, splits = blank(400)
    assert prepare(cells, splits, ShiftSuite(seed=0)).clean_share is None
    by_lab = replace(splits, fold_names=("A", "B", "C", "D", "E"))
    assert prepare(cells, by_lab, ShiftSuite(seed=0)).clean_share == LEFT_OUT_LAB_SHARE


def test_answers_come_for_every_output_and_every_image_however_many_a_batch_takes() -> None:
    images = keras.Input((4, 4, 3), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(images))
    both = keras.Model(images, [mean, keras.layers.Rescaling(2.0)(mean)])
    shown = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 3), dtype=np.uint8)
    means = shown.mean(axis=(1, 2))
    for batch_size in (4, 7, 21, 64):
        found = answers_of(both, shown, batch_size=batch_size)
        np.testing.assert_allclose(found[0], means, rtol=1e-5)
        np.testing.assert_allclose(found[1], 2 * means, rtol=1e-5)
    rows = np.array([20, 3, 3])
    (found_alone,) = answers_of(keras.Model(images, mean), shown, rows, batch_size=2)
    np.testing.assert_allclose(found_alone, means[rows], rtol=1e-5)
