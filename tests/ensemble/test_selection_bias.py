"""The best of many trials was lucky; by how much."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.ensemble.selection_bias import TrainingScore, seed_noise, winners_curse


def _search(rng: np.random.Generator, trials: int, noise: float) -> tuple[list[TrainingScore], float]:
    """A search with two refits of each of its best two recipes, and what the winner is truly worth."""
    worth = 0.9 - rng.gamma(1.5, 0.05, trials)
    scores = worth + noise * rng.standard_normal(trials)
    trainings = [TrainingScore(f"r{index}", False, float(score)) for index, score in enumerate(scores)]
    for index in np.argsort(-scores)[:2]:
        again = worth[index] + 0.01 + noise * rng.standard_normal(2)
        trainings += [TrainingScore(f"r{index}", True, float(score)) for score in again]
    return trainings, float(worth[scores.argmax()])


@pytest.mark.parametrize(("trials", "noise"), [(8, 0.03), (25, 0.03), (25, 0.06)])
def test_the_shrunk_score_is_nearer_to_the_truth_than_the_measured_one(trials: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    luck, left = [], []
    for _ in range(100):
        trainings, worth = _search(rng, trials, noise)
        found = winners_curse(trainings)
        assert found is not None
        luck.append(found.best - worth)
        left.append(found.shrunk - worth)
    assert np.mean(luck) > 0.3 * noise
    assert abs(np.mean(left)) < 0.5 * np.mean(luck)
    assert np.mean(np.square(left)) < np.mean(np.square(luck))


def test_noise_between_seeds_is_found_although_refits_train_longer() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        noise = seed_noise(_search(rng, 6, 0.02)[0])
        assert noise is not None
        assert noise[1] == 3
        found.append(noise[0] ** 2)
    # A winner's own score is lucky, which the comparison with its refits feels too: somewhat too large is the safe side.
    assert 0.9 * 0.02 < np.sqrt(np.mean(found)) < 1.5 * 0.02


def test_one_trial_with_one_refit_counts_all_difference_as_noise() -> None:
    assert seed_noise([TrainingScore("a", False, 0.90), TrainingScore("a", True, 0.94)]) == (
        pytest.approx(0.04 / np.sqrt(2)),
        1,
    )


def test_a_recipe_tried_twice_is_a_comparison_too() -> None:
    assert seed_noise([TrainingScore("a", False, 0.90), TrainingScore("a", False, 0.92)]) == (
        pytest.approx(0.02 / np.sqrt(2)),
        1,
    )


def test_without_a_repetition_nothing_is_claimed() -> None:
    assert winners_curse([TrainingScore("a", False, 0.9), TrainingScore("b", False, 0.8)]) is None
    assert winners_curse([]) is None
    assert winners_curse([TrainingScore("a", False, 0.9), TrainingScore("a", True, 0.92)]) is None


def test_without_noise_the_best_stands_as_it_is() -> None:
    found = winners_curse(
        [TrainingScore("a", False, 0.9), TrainingScore("a", True, 0.9), TrainingScore("b", False, 0.8)]
    )
    assert found is not None
    assert found.noise == 0
    assert found.shrunk == found.best == 0.9
    assert found.refits == 0.9


def test_a_clear_winner_keeps_its_score_and_one_of_many_equals_does_not() -> None:
    repeated = [TrainingScore("x", True, 0.70), TrainingScore("x", True, 0.72)]
    clear = winners_curse(
        [*repeated, TrainingScore("a", False, 0.95), *(TrainingScore(f"b{i}", False, 0.5) for i in range(9))]
    )
    rng = np.random.default_rng(2)
    crowd = [TrainingScore(f"c{i}", False, 0.80 + 0.014 * float(rng.standard_normal())) for i in range(20)]
    lucky = winners_curse([*repeated, *crowd])
    assert clear is not None
    assert lucky is not None
    assert clear.shrunk == pytest.approx(0.95, abs=0.005)
    assert lucky.best - lucky.shrunk > 0.01
