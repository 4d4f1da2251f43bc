"""The greedy selection and the score that it maximises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from bloodauto.ensemble.predictions import Candidate, GroundTruth, WeightedEnsemble
from bloodauto.ensemble.selection import (
    EnsembleScorer,
    SelectionLimits,
    select,
    selection_metric,
    validation_scores,
)
from bloodauto.errors import RunError
from bloodauto.evaluation.metrics import compute_metrics, expected_calibration_error
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT, score_shift
from bloodauto.run.artifacts import Objective
from bloodauto.shift.suite import ShiftPlan, ShiftSuite
from tests.ensemble.ensemble_candidates import (
    CLASSES,
    make_candidate,
    make_truth,
    predictions_of,
    probabilities,
    truth_of,
    with_sites,
    with_target,
)

METRICS: tuple[Objective, ...] = ("shift", "accuracy", "balanced_accuracy", "macro_f1")


@pytest.mark.parametrize("metric", METRICS)
def test_members_with_independent_errors_are_combined_and_beat_the_best_of_them(metric: Objective) -> None:
    rng = np.random.default_rng(0)
    truth = make_truth(rng, 400, 900)
    candidates = [make_candidate(rng, truth, f"m{i}", 2.0) for i in range(5)]
    selection = select(candidates, metric=metric, limits=SelectionLimits(max_members=3))
    assert len(selection.names) == 3
    assert selection.score.metric > selection.best_single.score.metric + 0.02


@pytest.mark.parametrize("seed", range(8))
def test_a_candidate_that_predicts_at_random_is_excluded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 400, 400)
    candidates = [make_candidate(rng, truth, f"good{i}", 4.0) for i in range(2)]
    selection = select([*candidates, make_candidate(rng, truth, "noise", 0.0)])
    assert set(selection.names) == {"good0", "good1"}


def test_the_shift_metric_selects_what_holds_on_shifted_images_and_accuracy_does_not() -> None:
    rng = np.random.default_rng(2)
    truth = make_truth(rng, 500, 500)
    local, robust = (
        Candidate(
            name,
            (),
            predictions_of(
                truth, probabilities(rng, truth.labels, clean), probabilities(rng, truth.shifted_labels, shifted)
            ),
            1,
        )
        for name, clean, shifted in (("local", 5.0, 0.2), ("robust", 4.0, 4.0))
    )
    single = SelectionLimits(max_members=1)
    assert select([local, robust], metric="shift", limits=single).names == ("robust",)
    assert select([local, robust], metric="accuracy", limits=single).names == ("local",)


def test_of_equals_the_smaller_wins_and_is_not_joined_by_its_twin() -> None:
    rng = np.random.default_rng(3)
    small = make_candidate(rng, make_truth(rng, 200, 0), "z_small", 3.0, parameters=10)
    large = replace(small, name="a_large", parameters=1000)
    selection = select([large, small])
    assert selection.names == ("z_small",)
    assert selection.weights == (1.0,)


def test_a_member_must_gain_the_minimum() -> None:
    rng = np.random.default_rng(4)
    truth = make_truth(rng, 400, 0)
    candidates = [make_candidate(rng, truth, f"m{i}", 2.0) for i in range(3)]
    assert len(select(candidates, limits=SelectionLimits(min_gain=0.0)).names) > 1
    assert len(select(candidates, limits=SelectionLimits(min_gain=0.5)).names) == 1


def test_the_weighted_ensemble_of_a_selection_has_its_score() -> None:
    rng = np.random.default_rng(6)
    truth = make_truth(rng, 300, 300)
    candidates = {f"m{i}": make_candidate(rng, truth, f"m{i}", 2.0 + i / 4) for i in range(5)}
    selection = select(list(candidates.values()), limits=SelectionLimits(log_loss_weight=0.02))
    ensemble = WeightedEnsemble(dict(zip(selection.names, selection.weights, strict=True)))
    average = ensemble.predict_out_of_fold({name: candidate.predictions for name, candidate in candidates.items()})
    scorer = EnsembleScorer(truth, metric="shift", num_classes=CLASSES, log_loss_weight=0.02)
    score = scorer.score(scorer.rows(average))
    assert score.metric == pytest.approx(selection.score.metric)
    assert score.log_loss == pytest.approx(selection.score.log_loss, abs=1e-6)
    assert selection.trace[selection.steps_kept - 1].score == selection.score


def test_candidates_for_different_images_are_an_error() -> None:
    rng = np.random.default_rng(7)
    truth = make_truth(rng, 50, 20)
    first = make_candidate(rng, truth, "first", 2.0)
    second = make_candidate(rng, replace(truth, index=truth.index + 1), "second", 2.0)
    with pytest.raises(RunError, match="training second: expected the validation images of training first"):
        select([first, second])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 6),
    max_members=st.integers(1, 4),
    metric=st.sampled_from(METRICS),
    log_loss_weight=st.sampled_from([0.0, 0.02, 1.0]),
    shifted=st.sampled_from([0, 30]),
)
def test_laws_of_every_selection(
    seed: int, count: int, max_members: int, metric: Objective, log_loss_weight: float, shifted: int
) -> None:
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 25, shifted)
    candidates = [make_candidate(rng, truth, f"m{i}", rng.uniform(0, 4), int(rng.integers(1, 4))) for i in range(count)]
    limits = SelectionLimits(max_members=max_members, max_steps=8, log_loss_weight=log_loss_weight)
    selection = select(candidates, metric=metric, limits=limits)

    singles = [select([candidate], metric=metric, limits=limits).score.metric for candidate in candidates]
    assert selection.best_single.score.metric == max(singles)
    assert selection.score.metric >= max(singles) - 1e-9
    assert sum(selection.weights) == pytest.approx(1.0)
    assert min(selection.weights) > 0
    assert len(selection.names) == len(set(selection.names)) <= max_members
    shuffled = [candidates[index] for index in rng.permutation(count)]
    assert select(shuffled, metric=metric, limits=limits) == selection


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), max_latency_ms=st.floats(1.0, 40.0))
def test_laws_of_a_selection_under_a_latency_cap(seed: int, count: int, max_latency_ms: float) -> None:
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 60, 30)
    candidates = [
        replace(make_candidate(rng, truth, f"m{i}", rng.uniform(1, 3)), latency_ms=float(rng.uniform(2, 20)))
        for i in range(count)
    ]
    selection = select(candidates, limits=SelectionLimits(max_latency_ms=max_latency_ms))
    latency_ms = {candidate.name: candidate.latency_ms for candidate in candidates}
    fast = [candidate for candidate in candidates if candidate.latency_ms <= max_latency_ms]
    if not fast:
        assert selection.names == (min(latency_ms, key=lambda name: latency_ms[name]),)
        return
    assert sum(latency_ms[name] for name in selection.names) <= max_latency_ms + 1e-9
    assert selection.score.metric >= max(select([candidate]).score.metric for candidate in fast) - 1e-9


@pytest.mark.parametrize("absent", [None, 2])
def test_metrics_are_those_of_scikit_learn(absent: int | None) -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, CLASSES, 200)
    if absent is not None:
        labels = np.where(labels == absent, 0, labels)
    clean = probabilities(rng, labels, 1.0)
    if absent is not None:
        clean[:, absent] = 0
    predicted = clean.argmax(axis=1)
    expected: dict[Objective, float] = {
        "accuracy": (predicted == labels).mean(),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro"),
        "shift": balanced_accuracy_score(labels, predicted),
    }
    for metric, value in expected.items():
        assert selection_metric(predictions_of(truth_of(labels), clean), metric) == pytest.approx(value), metric


def test_the_shift_metric_weighs_clean_images_and_groups_not_numbers_of_shifted_images() -> None:
    labels = np.array([0, 1, 0, 1])
    shifted_labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    truth = truth_of(labels, shifted_labels, np.array(["blur"] * 2 + ["stain"] * 6))
    correct = np.eye(2)
    shifted = np.concatenate([correct[1 - shifted_labels[:2]], correct[shifted_labels[2:]]])
    predictions = predictions_of(truth, correct[labels], shifted)
    assert selection_metric(predictions, "shift") == pytest.approx((1.0 + 0.0 + 1.0) / 3)


def _plan(rng: np.random.Generator, labels: np.ndarray, weights: list[float]) -> ShiftPlan:
    plan = ShiftSuite(seed=1, num_images=60).plan(labels)
    return replace(plan, weights=rng.choice(weights, len(plan)))


@pytest.mark.parametrize("is_held_out_site", [False, True])
def test_the_shift_metric_is_that_of_the_search(is_held_out_site: bool) -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, CLASSES, 120)
    plan = _plan(rng, labels, [0.25, 1.0] if is_held_out_site else [0.0, 0.25, 1.0])
    clean, shifted = probabilities(rng, labels, 3.0), probabilities(rng, labels[plan.image_index], 1.0)
    truth = GroundTruth(
        index=np.arange(120),
        labels=labels,
        shifted_labels=labels[plan.image_index],
        shifted_groups=plan.group_names,
        shifted_weights=plan.weights,
        held_out_sites=np.zeros(120, np.int64) if is_held_out_site else None,
    )
    clean_weight = HELD_OUT_SITE_WEIGHT if is_held_out_site else None
    expected = score_shift(labels, clean, plan, shifted, clean_weight=clean_weight).objective
    assert selection_metric(predictions_of(truth, clean, shifted), "shift") == pytest.approx(expected)


def test_each_held_out_site_counts_the_same_whatever_its_number_of_images() -> None:
    labels = np.array([0, 1] * 10)
    truth = replace(truth_of(labels), held_out_sites=np.array([0] * 2 + [1] * 18))
    correct = np.eye(2)
    clean = np.concatenate([correct[1 - labels[:2]], correct[labels[2:]]])
    assert selection_metric(predictions_of(truth, clean), "shift") == pytest.approx(0.5)


def test_target_images_are_half_of_the_shift_metric_and_no_part_of_the_others() -> None:
    rng = np.random.default_rng(10)
    truth = make_truth(rng, 300, 200)
    plain = make_candidate(rng, truth, "m", 2.0).predictions
    target = probabilities(rng, rng.integers(0, CLASSES, 80), 1.0)
    both = replace(plain, truth=with_sites(rng, truth, sites=0, target=True), target=target)
    scorer = EnsembleScorer(both.truth, metric="shift", num_classes=CLASSES)
    estimate = scorer.estimate_target(scorer.rows(both))
    assert selection_metric(both, "shift") == pytest.approx((selection_metric(plain, "shift") + estimate) / 2)
    for metric in METRICS[1:]:
        assert selection_metric(both, metric) == selection_metric(plain, metric)
    scores = validation_scores(both)
    assert scores.target_estimate == pytest.approx(estimate)
    assert scores.shift == pytest.approx(selection_metric(plain, "shift"))


def test_an_average_is_not_penalised_for_being_less_confident_than_its_members() -> None:
    """Independent errors: the average is correct more often on the target, and its estimate must not be below theirs."""
    rng = np.random.default_rng(11)
    truth = replace(make_truth(rng, 600, 0), class_fractions=(0.25,) * CLASSES)
    target_labels = np.repeat(np.arange(CLASSES), 60)
    candidates = [
        with_target(make_candidate(rng, truth, f"m{i}", 2.5), probabilities(rng, target_labels, 2.0)) for i in range(4)
    ]
    scorer = EnsembleScorer(truth, metric="shift", num_classes=CLASSES)
    rows = [scorer.rows(candidate.predictions) for candidate in candidates]
    average = np.mean(rows, axis=0)
    accuracies = [(member[600:].argmax(axis=1) == target_labels).mean() for member in rows]
    assert (average[600:].argmax(axis=1) == target_labels).mean() > max(accuracies)
    assert scorer.estimate_target(average) > max(scorer.estimate_target(member) for member in rows)


def test_validation_scores_are_the_metrics_of_the_predictions() -> None:
    rng = np.random.default_rng(12)
    predictions = make_candidate(rng, make_truth(rng, 200, 100), "m", 2.0).predictions
    truth, scores = predictions.truth, validation_scores(predictions)
    metrics = compute_metrics(truth.labels, predictions.clean)
    assert (scores.accuracy, scores.balanced_accuracy) == (metrics.accuracy, metrics.balanced_accuracy)
    assert (scores.macro_f1, scores.loss) == (metrics.macro_f1, metrics.loss)
    assert scores.shift == selection_metric(predictions, "shift")
    assert scores.shifted_accuracy == (predictions.shifted.argmax(axis=1) == truth.shifted_labels).mean()
    assert scores.ece == expected_calibration_error(truth.labels, predictions.clean)
    assert scores.ece_shifted == expected_calibration_error(truth.shifted_labels, predictions.shifted)
    assert scores.target_estimate is None


def test_without_shifted_images_their_scores_are_unknown() -> None:
    rng = np.random.default_rng(13)
    scores = validation_scores(make_candidate(rng, make_truth(rng, 50, 0), "m", 2.0).predictions)
    assert scores.shifted_accuracy is None
    assert scores.ece_shifted is None


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 6),
    max_members=st.integers(1, 4),
    metric=st.sampled_from(METRICS),
    sites=st.sampled_from([0, 1, 3]),
    target=st.booleans(),
    shifted=st.sampled_from([0, 30]),
    max_latency_ms=st.sampled_from([4.0, 12.0, float("inf")]),
)
def test_laws_of_a_selection_with_sites_and_target_images(
    seed: int,
    count: int,
    max_members: int,
    metric: Objective,
    sites: int,
    target: bool,
    shifted: int,
    max_latency_ms: float,
) -> None:
    """Caps hold, and an ensemble is never worse than the best candidate that is fast enough."""
    rng = np.random.default_rng(seed)
    truth = with_sites(rng, make_truth(rng, 40, shifted), sites=sites, target=target)
    target_labels = rng.integers(0, CLASSES, 24)
    candidates = [
        replace(
            with_target(
                make_candidate(rng, truth, f"m{i}", rng.uniform(0, 4)),
                probabilities(rng, target_labels, rng.uniform(0, 3)),
            ),
            latency_ms=float(rng.uniform(2, 10)),
        )
        for i in range(count)
    ]
    limits = SelectionLimits(max_members=max_members, max_latency_ms=max_latency_ms, max_steps=6)
    selection = select(candidates, metric=metric, limits=limits)
    fast = [candidate for candidate in candidates if candidate.latency_ms <= max_latency_ms]
    latency_ms = {candidate.name: candidate.latency_ms for candidate in candidates}
    assert len(selection.names) <= max_members
    if fast:
        assert sum(latency_ms[name] for name in selection.names) <= max_latency_ms + 1e-9
        singles = [select([candidate], metric=metric).score.metric for candidate in fast]
        assert selection.score.metric >= max(singles) - 1e-9
