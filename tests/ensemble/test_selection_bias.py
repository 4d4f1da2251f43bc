"""The score of the best of many trials is too high; by how much."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.ensemble.selection_bias import TrainingScore, estimate_selection_bias, seed_noise


def trial(recipe_id: str, objective: float) -> TrainingScore:
    return TrainingScore(recipe_id, is_refit=False, objective=objective)


def refit(recipe_id: str, objective: float) -> TrainingScore:
    return TrainingScore(recipe_id, is_refit=True, objective=objective)


def _search(rng: np.random.Generator, trials: int, noise: float) -> tuple[list[TrainingScore], float]:
    """A search with two refits of each of its best two recipes, and the true score of the winner."""
    true_scores = 0.7 - rng.gamma(1.5, 0.05, trials)
    scores = true_scores + noise * rng.standard_normal(trials)
    trainings = [trial(f"r{index}", float(score)) for index, score in enumerate(scores)]
    for index in np.argsort(-scores)[:2]:
        again = true_scores[index] + 0.01 + noise * rng.standard_normal(2)
        trainings += [refit(f"r{index}", float(score)) for score in again]
    return trainings, float(true_scores[scores.argmax()])


@pytest.mark.parametrize(("trials", "noise"), [(8, 0.03), (25, 0.03), (25, 0.06)])
def test_the_shrunk_score_is_nearer_to_the_true_one_than_the_measured_one(trials: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    measured_errors, shrunk_errors = [], []
    for _ in range(100):
        trainings, true_score = _search(rng, trials, noise)
        bias = estimate_selection_bias(trainings)
        assert bias is not None
        measured_errors.append(bias.best - true_score)
        shrunk_errors.append(bias.shrunk - true_score)
    assert np.mean(measured_errors) > 0.3 * noise
    assert abs(np.mean(shrunk_errors)) < 0.5 * np.mean(measured_errors)
    assert np.mean(np.square(shrunk_errors)) < np.mean(np.square(measured_errors))


def test_noise_between_seeds_is_estimated_although_refits_train_longer() -> None:
    rng = np.random.default_rng(1)
    variances = []
    for _ in range(200):
        noise = seed_noise(_search(rng, 6, 0.02)[0])
        assert noise is not None
        assert noise[1] == 3
        variances.append(noise[0] ** 2)
    # A winner's own score is too high, which the comparison with its refits includes: somewhat too large is the safe side.
    assert 0.9 * 0.02 < np.sqrt(np.mean(variances)) < 1.5 * 0.02


def test_of_one_trial_and_one_refit_the_whole_difference_counts_as_noise() -> None:
    assert seed_noise([trial("a", 0.90), refit("a", 0.94)]) == pytest.approx((0.04 / np.sqrt(2), 1))


def test_two_trials_of_one_recipe_are_a_comparison() -> None:
    assert seed_noise([trial("a", 0.90), trial("a", 0.92)]) == pytest.approx((0.02 / np.sqrt(2), 1))


def test_without_a_repetition_nothing_is_estimated() -> None:
    assert estimate_selection_bias([trial("a", 0.9), trial("b", 0.8)]) is None
    assert estimate_selection_bias([]) is None
    assert estimate_selection_bias([trial("a", 0.9), refit("a", 0.92)]) is None


def test_without_noise_the_best_score_is_kept() -> None:
    bias = estimate_selection_bias([trial("a", 0.9), refit("a", 0.9), trial("b", 0.8)])
    assert bias is not None
    assert bias.noise == 0
    assert bias.shrunk == bias.best == 0.9
    assert bias.refits == 0.9


def test_a_clear_winner_keeps_its_score_and_one_of_many_equals_does_not() -> None:
    repeated = [refit("x", 0.70), refit("x", 0.72)]
    clear = estimate_selection_bias([*repeated, trial("a", 0.95), *(trial(f"b{i}", 0.5) for i in range(9))])
    rng = np.random.default_rng(2)
    equals = [trial(f"c{i}", 0.80 + 0.014 * float(rng.standard_normal())) for i in range(20)]
    best_of_equals = estimate_selection_bias([*repeated, *equals])
    assert clear is not None
    assert best_of_equals is not None
    assert clear.shrunk == pytest.approx(0.95, abs=0.005)
    assert best_of_equals.best - best_of_equals.shrunk > 0.01
