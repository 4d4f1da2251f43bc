"""The figures of a site and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.evaluation.site_evaluation import EvaluatedModel, SitePredictions, evaluate_site
from bloodauto.run.artifacts import ExternalEstimate, Measured, StatedAccuracy

CLASSES = ("a", "b", "c")


def predictions_of(labels, predicted, *, groups=None, confidence=None, threshold=0.0):
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    probabilities = np.full((len(labels), 3), 0.1)
    probabilities[np.arange(len(labels)), predicted] = 0.8
    names = np.array([*CLASSES, "other"])[labels]
    groups = np.full(len(labels), "") if groups is None else np.asarray(groups)
    return SitePredictions(probabilities, labels, names, groups, confidence, threshold)


def about(stated=None):
    return EvaluatedModel("model.keras", CLASSES, "site", {"a": "a", "b": "b", "c": "c", "other": None}, stated)


def test_figures_are_those_of_the_images_whose_class_the_model_has():
    evaluation = evaluate_site(predictions_of([0, 0, 0, 1, -1, -1], [0, 0, 1, 1, 2, 2]), about())
    assert evaluation.images == 4
    assert evaluation.accuracy.value == 0.75
    assert evaluation.balanced_accuracy.value == pytest.approx((2 / 3 + 1) / 2)
    assert evaluation.absent_classes == ("c",)
    assert [entry.images for entry in evaluation.recalls] == [3, 1, 0]
    assert evaluation.recalls[2].recall is None
    (unknown,) = evaluation.unknown_classes
    assert (unknown.name, unknown.images, unknown.predicted, unknown.flagged) == ("other", 2, {"c": 2}, None)


def test_what_the_rule_marks_is_counted_over_all_images():
    confidence = np.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    evaluation = evaluate_site(predictions_of([0, 0, 0, 1, -1, -1], [0, 0, 1, 1, 2, 2], confidence=confidence), about())
    assert evaluation.flagged == 0.5
    assert evaluation.selective.coverage == 0.75
    assert evaluation.selective.accuracy == pytest.approx(2 / 3)
    assert evaluation.unknown_classes[0].flagged == 1.0


def test_intervals_widen_where_images_of_a_patient_succeed_or_fail_together():
    labels = np.repeat([0, 1, 2, 0, 1, 2, 0, 1, 2, 0], 20)
    predicted = np.where(np.repeat(np.arange(10) % 2 == 0, 20), labels, (labels + 1) % 3)
    alone = evaluate_site(predictions_of(labels, predicted), about())
    together = evaluate_site(
        predictions_of(labels, predicted, groups=np.repeat([f"p{n}" for n in range(10)], 20)), about()
    )
    assert (alone.groups, together.groups) == (None, 10)
    assert alone.accuracy.value == together.accuracy.value == 0.5

    def width(measured):
        return measured.high - measured.low

    assert width(together.accuracy) > 3 * width(alone.accuracy)
    assert width(together.recalls[0].recall) > 2 * width(alone.recalls[0].recall)
    assert width(together.macro_f1) > 2 * width(alone.macro_f1)


def test_few_groups_that_agree_by_chance_do_not_narrow_an_interval():
    labels = [0] * 6
    alone = evaluate_site(predictions_of(labels, labels), about())
    together = evaluate_site(predictions_of(labels, labels, groups=["p1"] * 3 + ["p2"] * 3), about())
    assert together.accuracy == alone.accuracy
    assert together.accuracy.low < 0.7


def test_the_interval_of_accuracy_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        correct = rng.random(40) < 0.8
        evaluation = evaluate_site(predictions_of(np.zeros(40, int), np.where(correct, 0, 1)), about())
        covered += evaluation.accuracy.low <= 0.8 <= evaluation.accuracy.high
    assert covered >= 180


@pytest.mark.parametrize(
    ("bounds", "text"),
    [((0.4, 0.8), "inside"), ((0.9, 0.95), "below"), ((0.0, 0.05), "above")],
)
def test_the_measured_interval_stands_beside_the_stated(bounds, text):
    external = ExternalEstimate(
        mean=sum(bounds) / 2,
        low=bounds[0],
        high=bounds[1],
        nominal_coverage=0.9,
        measured_coverage=None,
        simulated_sites=96,
        shift_factors=9,
    )
    stated = StatedAccuracy(in_domain=Measured(value=0.98, low=0.97, high=0.99), images=500, external=external)
    evaluation = evaluate_site(predictions_of([0, 0, 1, 1], [0, 1, 1, 0]), about(stated))
    assert f"{text} the stated interval" in evaluation.comparison_text()


def test_a_class_of_two_images_is_in_every_draw_of_independent_images():
    labels, predicted = np.repeat([0, 1], [100, 2]), np.repeat([0, 0], [100, 2])
    evaluation = evaluate_site(predictions_of(labels, predicted), about())
    assert evaluation.balanced_accuracy.value == evaluation.balanced_accuracy.high == 0.5
