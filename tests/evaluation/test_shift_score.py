"""The score, against small cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bloodauto.errors import DataError, RecipeError
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT, score_shift
from bloodauto.shift.corruptions import FAMILIES, GROUPS
from bloodauto.shift.overlap import TrainingCoverage
from bloodauto.shift.suite import ShiftPlan, ShiftSuite

LABELS = np.array([0, 0, 0, 1, 1, 2] * 20)


class Even(ShiftSuite):
    """The suite in which every shifted image has weight 1, so that scores can be worked out by hand."""

    def plan(self, labels: np.ndarray) -> ShiftPlan:
        plan = super().plan(labels)
        return replace(plan, weights=np.ones(len(plan)))


SUITE = Even(seed=0)


def one_hot(predicted: np.ndarray, classes: int = 3) -> np.ndarray:
    return np.eye(classes)[predicted]


def rows_where(plan: ShiftPlan, *, group: str | None = None, family: str | None = None) -> np.ndarray:
    chosen = [
        (group is None or known.group == group) and (family is None or known.name == family) for known in plan.families
    ]
    return np.array(chosen)[plan.family_index]


def test_all_right_is_one_and_all_wrong_is_zero() -> None:
    plan = SUITE.plan(LABELS)
    truth = LABELS[plan.image_index]
    best = score_shift(LABELS, one_hot(LABELS), plan, one_hot(truth))
    assert best.objective == best.mean_balanced_accuracy == best.clean_accuracy == 1
    worst = score_shift(LABELS, one_hot((LABELS + 1) % 3), plan, one_hot((truth + 1) % 3))
    assert worst.objective == worst.mean_balanced_accuracy == worst.clean_balanced_accuracy == 0


def test_one_bad_group_costs_its_weight_and_is_named() -> None:
    plan = SUITE.plan(LABELS)
    predicted = LABELS[plan.image_index].copy()
    stain = rows_where(plan, group="stain")
    predicted[stain] = (predicted[stain] + 1) % 3
    result = score_shift(LABELS, one_hot(LABELS), plan, one_hot(predicted))
    assert result.objective == pytest.approx(len(GROUPS) / (len(GROUPS) + 1))
    assert result.mean_balanced_accuracy == pytest.approx((len(GROUPS) - 1) / len(GROUPS))
    assert result.worst_group == "stain"
    assert {family.name for family in result.families if family.accuracy == 0} == {
        family.name for family in FAMILIES if family.group == "stain"
    }


def test_accuracy_is_balanced_over_classes() -> None:
    plan = SUITE.plan(LABELS)
    always_zero = np.zeros(len(plan), int)
    result = score_shift(LABELS, one_hot(np.zeros(len(LABELS), int)), plan, one_hot(always_zero))
    assert result.clean_accuracy == pytest.approx(1 / 2)
    assert result.clean_balanced_accuracy == pytest.approx(1 / 3)
    assert result.objective == pytest.approx(1 / 3)
    assert [group.name for group in result.groups] == list(GROUPS)
    assert all(group.accuracy == pytest.approx(1 / 2) for group in result.groups)


def weighted(plan: ShiftPlan, weights: dict[str, float]) -> ShiftPlan:
    return replace(plan, weights=np.array([weights.get(name, 1.0) for name in plan.family_names.tolist()]))


def test_a_family_of_weight_zero_does_not_count_but_is_reported() -> None:
    plan = SUITE.plan(LABELS)
    predicted = LABELS[plan.image_index].copy()
    motion = rows_where(plan, family="motion")
    predicted[motion] = (predicted[motion] + 1) % 3
    assert score_shift(LABELS, one_hot(LABELS), plan, one_hot(predicted)).objective < 1
    excluded = score_shift(LABELS, one_hot(LABELS), weighted(plan, {"motion": 0}), one_hot(predicted))
    assert excluded.objective == 1
    reported = next(family for family in excluded.families if family.name == "motion")
    assert (reported.accuracy, reported.weight) == (0, 0)
    assert reported.num_shifted_images == motion.sum()
    assert excluded.groups[0].num_shifted_images == len(LABELS) - motion.sum()


def test_a_smaller_weight_counts_less_in_its_group_and_so_does_the_group() -> None:
    plan = SUITE.plan(LABELS)
    predicted = LABELS[plan.image_index].copy()
    motion, optics = rows_where(plan, family="motion"), rows_where(plan, group="optics")
    predicted[motion] = (predicted[motion] + 1) % 3
    result = score_shift(LABELS, one_hot(LABELS), weighted(plan, {"motion": 0.25}), one_hot(predicted))
    num_correct, num_wrong = optics.sum() - motion.sum(), motion.sum()
    assert result.groups[0].accuracy == pytest.approx(num_correct / (num_correct + 0.25 * num_wrong))
    group_weight = (num_correct + 0.25 * num_wrong) / optics.sum()
    assert result.groups[0].weight == pytest.approx(group_weight)
    others = len(GROUPS)  # the other groups and the clean images, all correct
    assert result.objective == pytest.approx(
        (others + group_weight * result.groups[0].balanced_accuracy) / (others + group_weight)
    )


def test_a_group_without_weight_does_not_count() -> None:
    plan = SUITE.plan(LABELS)
    predicted = LABELS[plan.image_index].copy()
    optics = rows_where(plan, group="optics")
    predicted[optics] = (predicted[optics] + 1) % 3
    result = score_shift(LABELS, one_hot(LABELS), weighted(plan, {"motion": 0, "defocus": 0}), one_hot(predicted))
    assert result.objective == 1
    assert [group.name for group in result.groups] == list(GROUPS[1:])


def test_shifts_within_what_recipes_may_train_on_count_less_and_beyond_it_fully() -> None:
    plan = ShiftSuite(seed=0, covered_by_training=(TrainingCoverage("defocus", 3.4),), covered_weight=0.1).plan(LABELS)
    trained = rows_where(plan, family="defocus") & (plan.severities <= 3)
    assert trained.any()
    assert set(plan.weights[trained]) == {0.1}
    assert set(plan.weights[~trained & ~rows_where(plan, group="combined")]) == {1.0}
    np.testing.assert_array_equal(plan.image_index, SUITE.plan(LABELS).image_index)


def test_a_held_out_site_counts_as_much_as_all_simulated_shifts() -> None:
    plan = SUITE.plan(LABELS)
    wrong = one_hot((LABELS[plan.image_index] + 1) % 3)
    assert score_shift(LABELS, one_hot(LABELS), plan, wrong).objective == pytest.approx(1 / (len(GROUPS) + 1))
    real = score_shift(LABELS, one_hot(LABELS), plan, wrong, clean_weight=HELD_OUT_SITE_WEIGHT)
    assert real.objective == pytest.approx(0.5)


def test_bad_input_is_refused() -> None:
    plan = SUITE.plan(LABELS)
    clean, shifted = one_hot(LABELS), one_hot(LABELS[plan.image_index])
    with pytest.raises(DataError, match="labels"):
        score_shift(LABELS[:-1], clean, plan, shifted)
    with pytest.raises(DataError, match="clean probabilities"):
        score_shift(LABELS, clean[:-1], plan, shifted)
    with pytest.raises(DataError, match="shifted probabilities"):
        score_shift(LABELS, clean, plan, shifted[:-1])
    with pytest.raises(DataError, match="shifted probabilities"):
        score_shift(LABELS, clean, plan, shifted[:, :2])
    with pytest.raises(DataError, match=r"0\.\.1"):
        score_shift(LABELS, clean[:, :2], plan, shifted[:, :2])
    with pytest.raises(DataError, match="finite"):
        score_shift(LABELS, clean, plan, np.where(shifted > 0, np.nan, shifted))
    with pytest.raises(RecipeError, match="positive weight"):
        score_shift(LABELS, clean, replace(plan, weights=np.zeros(len(plan))), shifted)
    with pytest.raises(RecipeError, match="'motion'"):
        ShiftSuite(seed=0, covered_by_training=(TrainingCoverage("motoin", 1.0),))
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(RecipeError, match="covered_weight"):
            ShiftSuite(seed=0, covered_weight=weight)
