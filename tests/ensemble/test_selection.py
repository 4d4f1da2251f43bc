from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from bloodauto.ensemble.scoring import Scorer, Truth
from bloodauto.ensemble.selection import Candidate, average, select
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT, score_shift
from bloodauto.shift.suite import ShiftSuite

CLASSES = 4
METRICS = ("shift", "accuracy", "balanced_accuracy", "macro_f1")


def make_truth(rng: np.random.Generator, clean: int, shifted: int, groups: int = 3) -> Truth:
    return Truth(
        labels=rng.integers(0, CLASSES, clean),
        shifted_labels=rng.integers(0, CLASSES, shifted),
        shifted_groups=rng.integers(0, groups, shifted),
        shifted_weights=np.ones(shifted),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def answers(rng: np.random.Generator, labels: np.ndarray, skill: float) -> np.ndarray:
    """Probabilities that know the label as well as ``skill`` says."""
    return softmax(skill * np.eye(CLASSES)[labels] + rng.normal(0, 1, (len(labels), CLASSES)))


def make_candidate(rng: np.random.Generator, truth: Truth, name: str, skill: float, parameters: int = 1) -> Candidate:
    return Candidate(name, answers(rng, truth.labels, skill), answers(rng, truth.shifted_labels, skill / 2), parameters)


@pytest.mark.parametrize("metric", METRICS)
def test_members_with_independent_errors_are_combined_and_beat_the_best_of_them(metric):
    rng = np.random.default_rng(0)
    truth = make_truth(rng, 400, 900)
    candidates = [make_candidate(rng, truth, f"m{i}", 2.0) for i in range(5)]
    found = select(candidates, truth, metric=metric, max_members=3)
    assert len(found.names) == 3
    assert found.score.metric > found.best_single.score.metric + 0.02


@pytest.mark.parametrize("seed", range(8))
def test_a_candidate_that_answers_at_random_is_left_out(seed):
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 400, 400)
    candidates = [make_candidate(rng, truth, f"good{i}", 4.0) for i in range(2)]
    found = select([*candidates, make_candidate(rng, truth, "noise", 0.0)], truth)
    assert set(found.names) == {"good0", "good1"}


def test_shift_metric_chooses_what_holds_on_shifted_views_and_accuracy_does_not():
    rng = np.random.default_rng(2)
    truth = make_truth(rng, 500, 500)
    local = Candidate("local", answers(rng, truth.labels, 5.0), answers(rng, truth.shifted_labels, 0.2), 1)
    robust = Candidate("robust", answers(rng, truth.labels, 4.0), answers(rng, truth.shifted_labels, 4.0), 1)
    assert select([local, robust], truth, metric="shift", max_members=1).names == ("robust",)
    assert select([local, robust], truth, metric="accuracy", max_members=1).names == ("local",)


def test_of_equals_the_smaller_wins_and_is_not_joined_by_its_twin():
    rng = np.random.default_rng(3)
    truth = make_truth(rng, 200, 0)
    small = make_candidate(rng, truth, "z_small", 3.0, parameters=10)
    large = Candidate("a_large", small.probabilities, small.shifted, parameters=1000)
    found = select([large, small], truth)
    assert found.names == ("z_small",)
    assert found.weights == (1.0,)


def test_a_member_that_gains_less_than_asked_is_not_worth_its_training():
    rng = np.random.default_rng(4)
    truth = make_truth(rng, 400, 0)
    candidates = [make_candidate(rng, truth, f"m{i}", 2.0) for i in range(3)]
    assert len(select(candidates, truth, min_gain=0.0).names) > 1
    assert len(select(candidates, truth, min_gain=0.5).names) == 1


def test_own_temperature_is_applied_before_averaging():
    rng = np.random.default_rng(5)
    truth = make_truth(rng, 50, 20)
    sharp = make_candidate(rng, truth, "m", 3.0)
    soft = Candidate("m", sharp.probabilities, sharp.shifted, 1, temperature=4.0)
    plain, tempered = average([sharp], [1.0]), average([soft], [1.0])
    np.testing.assert_array_equal(plain.argmax(axis=1), tempered.argmax(axis=1))
    assert tempered.max(axis=1).mean() < plain.max(axis=1).mean() - 0.1
    assert select([soft], truth).score.log_loss != select([sharp], truth).score.log_loss


def test_weights_of_the_selection_give_its_score_again():
    rng = np.random.default_rng(6)
    truth = make_truth(rng, 300, 300)
    candidates = {f"m{i}": make_candidate(rng, truth, f"m{i}", 2.0 + i / 4) for i in range(5)}
    found = select(list(candidates.values()), truth, log_loss_weight=0.02)
    scorer = Scorer(truth, metric="shift", class_count=CLASSES, log_loss_weight=0.02)
    again = scorer.score(average([candidates[name] for name in found.names], found.weights))
    assert again.metric == pytest.approx(found.score.metric)
    assert again.log_loss == pytest.approx(found.score.log_loss, abs=1e-6)
    assert found.trace[found.steps_kept - 1].score == found.score


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 6),
    max_members=st.integers(1, 4),
    metric=st.sampled_from(METRICS),
    log_loss_weight=st.sampled_from([0.0, 0.02, 1.0]),
    shifted=st.sampled_from([0, 30]),
)
def test_laws_of_every_selection(seed, count, max_members, metric, log_loss_weight, shifted):
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 25, shifted)
    candidates = [make_candidate(rng, truth, f"m{i}", rng.uniform(0, 4), int(rng.integers(1, 4))) for i in range(count)]
    arguments = {"metric": metric, "max_members": max_members, "max_steps": 8, "log_loss_weight": log_loss_weight}
    found = select(candidates, truth, **arguments)

    singles = [select([candidate], truth, **arguments).score.metric for candidate in candidates]
    assert found.best_single.score.metric == max(singles)
    assert found.score.metric >= max(singles) - 1e-9
    assert sum(found.weights) == pytest.approx(1.0)
    assert min(found.weights) > 0
    assert len(found.names) == len(set(found.names)) <= max_members
    shuffled = [candidates[index] for index in rng.permutation(count)]
    assert select(shuffled, truth, **arguments) == found


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), max_latency_ms=st.floats(1.0, 40.0))
def test_laws_of_a_selection_under_a_latency_cap(seed, count, max_latency_ms):
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 60, 30)
    candidates = [
        replace(make_candidate(rng, truth, f"m{i}", rng.uniform(1, 3)), latency_ms=float(rng.uniform(2, 20)))
        for i in range(count)
    ]
    found = select(candidates, truth, max_latency_ms=max_latency_ms)
    latency_ms = {candidate.name: candidate.latency_ms for candidate in candidates}
    fast = [candidate for candidate in candidates if candidate.latency_ms <= max_latency_ms]
    if not fast:
        assert found.names == (min(latency_ms, key=lambda name: latency_ms[name]),)
        return
    assert sum(latency_ms[name] for name in found.names) <= max_latency_ms + 1e-9
    assert found.score.metric >= max(select([one], truth).score.metric for one in fast) - 1e-9


@pytest.mark.parametrize("absent", [None, 2])
def test_metrics_are_those_of_scikit_learn(absent):
    rng = np.random.default_rng(7)
    truth = make_truth(rng, 200, 0)
    truth = replace(truth, labels=np.where(truth.labels == absent, 0, truth.labels))
    guesses = answers(rng, truth.labels, 1.0)
    if absent is not None:
        guesses[:, absent] = 0
    wanted = {
        "accuracy": (guesses.argmax(axis=1) == truth.labels).mean(),
        "balanced_accuracy": balanced_accuracy_score(truth.labels, guesses.argmax(axis=1)),
        "macro_f1": f1_score(truth.labels, guesses.argmax(axis=1), average="macro"),
        "shift": balanced_accuracy_score(truth.labels, guesses.argmax(axis=1)),
    }
    for metric, value in wanted.items():
        scorer = Scorer(truth, metric=metric, class_count=CLASSES, log_loss_weight=0.0)
        assert scorer.score(guesses).metric == pytest.approx(value), metric


def test_shift_metric_weighs_clean_images_and_groups_not_numbers_of_views():
    labels = np.array([0, 1, 0, 1])
    shifted_labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    groups = np.array(["blur"] * 2 + ["stain"] * 6)
    right = np.eye(2)
    rows = np.concatenate([right[labels], right[1 - shifted_labels[:2]], right[shifted_labels[2:]]])
    scorer = Scorer(
        Truth(labels, shifted_labels, groups, np.ones(len(groups))), metric="shift", class_count=2, log_loss_weight=0.0
    )
    assert scorer.score(rows).metric == pytest.approx((1.0 + 0.0 + 1.0) / 3)


def test_the_shift_metric_is_that_of_the_search():
    rng = np.random.default_rng(8)
    labels = rng.integers(0, CLASSES, 120)
    plan = ShiftSuite(seed=1, num_images=60).plan(labels)
    plan = replace(plan, weights=rng.choice([0.0, 0.25, 1.0], len(plan)))
    clean, shifted = answers(rng, labels, 3.0), answers(rng, labels[plan.image_index], 1.0)
    truth = Truth(labels, labels[plan.image_index], plan.group_names, plan.weights)
    scorer = Scorer(truth, metric="shift", class_count=CLASSES, log_loss_weight=0.0)
    found = scorer.score(np.concatenate([clean, shifted])).metric
    assert found == pytest.approx(score_shift(labels, clean, plan, shifted).objective)


def with_places(rng: np.random.Generator, truth: Truth, *, sites: int, target: bool) -> Truth:
    """The same images, from left-out laboratories and beside unlabelled images of a target."""
    return replace(
        truth,
        left_out_sites=rng.integers(0, sites, len(truth.labels)) if sites else None,
        target_class_priors=tuple(rng.dirichlet(np.full(CLASSES, 3.0))) if target else None,
    )


def test_clean_images_of_left_out_laboratories_count_as_in_the_search():
    rng = np.random.default_rng(9)
    labels = rng.integers(0, CLASSES, 120)
    plan = ShiftSuite(seed=1, num_images=60).plan(labels)
    plan = replace(plan, weights=rng.choice([0.25, 1.0], len(plan)))
    clean, shifted = answers(rng, labels, 3.0), answers(rng, labels[plan.image_index], 1.0)
    truth = Truth(labels, labels[plan.image_index], plan.group_names, plan.weights, np.zeros(120, np.int64))
    scorer = Scorer(truth, metric="shift", class_count=CLASSES, log_loss_weight=0.0)
    found = scorer.score(np.concatenate([clean, shifted])).metric
    assert found == pytest.approx(
        score_shift(labels, clean, plan, shifted, clean_weight=HELD_OUT_SITE_WEIGHT).objective
    )


def test_each_left_out_laboratory_counts_alike_however_many_images_it_has():
    labels = np.array([0, 1] * 10)
    sites = np.array(["small"] * 2 + ["large"] * 18)
    right = np.eye(2)
    rows = np.concatenate([right[1 - labels[:2]], right[labels[2:]]])
    truth = Truth(labels, labels[:0], labels[:0], labels[:0].astype(float), sites)
    scorer = Scorer(truth, metric="shift", class_count=2, log_loss_weight=0.0)
    assert scorer.score(rows).metric == pytest.approx(0.5)


def test_target_images_are_half_of_the_shift_metric_and_none_of_the_others():
    rng = np.random.default_rng(10)
    truth = make_truth(rng, 300, 200)
    candidate = make_candidate(rng, truth, "m", 2.0)
    placed = with_places(rng, truth, sites=0, target=True)
    target = answers(rng, rng.integers(0, CLASSES, 80), 1.0)
    plain = {metric: select([candidate], truth, metric=metric).score.metric for metric in METRICS}
    with_target = replace(candidate, target=target)
    both = {metric: select([with_target], placed, metric=metric).score.metric for metric in METRICS}
    scorer = Scorer(placed, metric="shift", class_count=CLASSES, log_loss_weight=0.0)
    estimate = scorer.estimate_target(np.concatenate([candidate.probabilities, candidate.shifted]), target)
    assert both["shift"] == pytest.approx((plain["shift"] + estimate) / 2)
    assert {name: both[name] for name in METRICS[1:]} == {name: plain[name] for name in METRICS[1:]}


def test_an_average_is_not_blamed_for_being_less_sure_than_its_members():
    """Independent errors: the average is right more often on the target, and its estimate must not fall below theirs."""
    rng = np.random.default_rng(11)
    truth = replace(make_truth(rng, 600, 0), target_class_priors=(0.25,) * CLASSES)
    of_target = np.repeat(np.arange(CLASSES), 60)
    candidates = [
        replace(make_candidate(rng, truth, f"m{i}", 2.5), target=answers(rng, of_target, 2.0)) for i in range(4)
    ]
    scorer = Scorer(truth, metric="shift", class_count=CLASSES, log_loss_weight=0.0)
    tables = [one.comparison_rows(scorer) for one in candidates]
    estimates = [scorer.estimate_target(table[:600], table[600:]) for table in tables]
    together = np.mean(tables, axis=0)
    right = (together[600:].argmax(axis=1) == of_target).mean()
    assert right > max((table[600:].argmax(axis=1) == of_target).mean() for table in tables)
    assert scorer.estimate_target(together[:600], together[600:]) > max(estimates)


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
def test_laws_of_a_selection_by_places_too(seed, count, max_members, metric, sites, target, shifted, max_latency_ms):
    """Caps hold, and whatever it is chosen by, it is never worse than the best candidate that is fast enough."""
    rng = np.random.default_rng(seed)
    truth = with_places(rng, make_truth(rng, 40, shifted), sites=sites, target=target)
    of_target = rng.integers(0, CLASSES, 24)
    candidates = [
        replace(
            make_candidate(rng, truth, f"m{i}", rng.uniform(0, 4)),
            target=answers(rng, of_target, rng.uniform(0, 3)),
            latency_ms=float(rng.uniform(2, 10)),
        )
        for i in range(count)
    ]
    caps = {"max_members": max_members, "max_latency_ms": max_latency_ms}
    found = select(candidates, truth, metric=metric, max_steps=6, **caps)
    fast = [one for one in candidates if one.latency_ms <= max_latency_ms]
    latency_ms = {one.name: one.latency_ms for one in candidates}
    assert len(found.names) <= max_members
    if fast:
        assert sum(latency_ms[name] for name in found.names) <= max_latency_ms + 1e-9
        singles = [select([one], truth, metric=metric).score.metric for one in fast]
        assert found.score.metric >= max(singles) - 1e-9
