"""How much of the best trial's lead is luck: the noise between seeds, and the winner's score without its luck."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_GRID_POINTS = 200
_EM_ITERATIONS = 300


@dataclass(frozen=True)
class TrainingScore:
    """One training judged on the validation images that all trials are judged on.

    Attributes:
        recipe_id: trainings of the same one differ by seed, and by what a refit is given more.
        refit: whether it was trained again for the ensemble, longer than a trial.
        objective: 0-1.
    """

    recipe_id: str
    refit: bool
    objective: float


@dataclass(frozen=True)
class WinnersCurse:
    """What the best of many trials can be expected to show again.

    Attributes:
        trials: how many trials the best was taken from.
        best: its objective as it was measured, 0-1.
        shrunk: what another seed of it can be expected to reach.
        noise: standard deviation of the objective from seed to seed.
        noise_degrees_of_freedom: degrees of freedom the noise was estimated with; few are little to go by.
        refits: mean objective of the best trial's refits, which train longer; None where it has none.
    """

    trials: int
    best: float
    shrunk: float
    noise: float
    noise_degrees_of_freedom: int
    refits: float | None


def winners_curse(trainings: Sequence[TrainingScore]) -> WinnersCurse | None:
    """Takes the luck out of the best trial's score.

    The best of many noisy scores was lucky more often than not. What the recipes are worth is estimated as a distribution
    from all trials' scores (Kiefer and Wolfowitz 1956; Jiang and Zhang, arXiv:0908.1709), and the winner's worth is its mean
    given the winner's score: no normal distribution is presumed, since trials have many failures and few good ones.

    Args:
        runs: completed trials, and refits, all judged on the same images.

    Returns:
        None where no recipe was trained twice, so that nothing is known of the noise, or there is no second trial to win
        against.
    """
    trials = [run for run in trainings if not run.refit]
    noise = seed_noise(trainings)
    if len(trials) < 2 or noise is None:
        return None
    best = max(trials, key=lambda run: run.objective)
    again = [run.objective for run in trainings if run.refit and run.recipe_id == best.recipe_id]
    return WinnersCurse(
        trials=len(trials),
        best=best.objective,
        shrunk=_shrunk_score(np.array([run.objective for run in trials]), noise[0], best.objective),
        noise=noise[0],
        noise_degrees_of_freedom=noise[1],
        refits=float(np.mean(again)) if again else None,
    )


def seed_noise(trainings: Sequence[TrainingScore]) -> tuple[float, int] | None:
    """Standard deviation of the objective between trainings of one recipe, and the degrees of freedom it rests on.

    What a refit gains over its trial by training longer is estimated along (one number for all recipes) and taken out. Where
    only one pair is left to compare, that gain cannot be told from noise and is counted as noise.

    Returns:
        None where no recipe was trained twice.
    """
    by_recipe: dict[str, list[TrainingScore]] = defaultdict(list)
    for run in trainings:
        by_recipe[run.recipe_id].append(run)
    repeated = [group for group in by_recipe.values() if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return None
    objectives = np.concatenate([_centred([run.objective for run in group]) for group in repeated])
    refits = np.concatenate([_centred([float(run.refit) for run in group]) for group in repeated])
    if freedom > 1 and refits.any():
        objectives = objectives - refits * (refits @ objectives) / (refits @ refits)
        freedom -= 1
    return math.sqrt(float(objectives @ objectives) / freedom), freedom


def _centred(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array - array.mean()


def _shrunk_score(scores: np.ndarray, noise: float, score: float) -> float:
    """Mean worth, given one of the scores, under the distribution of worths that makes all scores likeliest."""
    if noise <= 0:
        return score
    grid = np.linspace(scores.min() - noise, scores.max(), _GRID_POINTS)
    likelihood = np.exp(-0.5 * ((scores[:, None] - grid) / noise) ** 2)
    # A score far from every point of the grid cannot happen: the grid spans them all.
    shares = np.full(_GRID_POINTS, 1 / _GRID_POINTS)
    for _ in range(_EM_ITERATIONS):
        belonging = likelihood * shares
        belonging /= np.maximum(belonging.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        shares = belonging.mean(axis=0)
    of_score = np.exp(-0.5 * ((score - grid) / noise) ** 2) * shares
    return float(of_score @ grid / of_score.sum()) if of_score.sum() > 0 else score
