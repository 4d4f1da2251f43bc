"""Selection bias: the best of many noisy scores is too high. Noise between seeds, and the winner's-curse correction."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodauto.run.artifacts import SelectionBias

_GRID_POINTS = 200
_EM_ITERATIONS = 300


@dataclass(frozen=True)
class TrainingScore:
    """One training that was evaluated on the validation images of all trials.

    Attributes:
        recipe_id: Trainings of one recipe differ by their seed, and refits train longer.
        is_refit: Whether it is a refit.
        objective: 0-1.
    """

    recipe_id: str
    is_refit: bool
    objective: float


def estimate_selection_bias(trainings: Sequence[TrainingScore]) -> SelectionBias | None:
    """Estimates the score that the best trial can be expected to reach again.

    The distribution of the recipes' true scores is estimated from the scores of all trials (Kiefer and Wolfowitz 1956; Jiang
    and Zhang, arXiv:0908.1709); the expected score of the best trial is the mean of this distribution given its measured score.
    A normal distribution is not assumed, because many trials fail and few are good.

    Args:
        trainings: Completed trials and refits, all evaluated on the same images.

    Returns:
        None where no recipe was trained twice, so that the noise is unknown, or there are fewer than two trials.
    """
    trials = [training for training in trainings if not training.is_refit]
    noise = seed_noise(trainings)
    if len(trials) < 2 or noise is None:
        return None
    deviation, degrees_of_freedom = noise
    best = max(trials, key=lambda training: training.objective)
    refits = [
        training.objective for training in trainings if training.is_refit and training.recipe_id == best.recipe_id
    ]
    objectives = np.array([training.objective for training in trials])
    return SelectionBias(
        trials=len(trials),
        best=best.objective,
        shrunk=_expected_true_score(objectives, deviation, best.objective),
        noise=deviation,
        noise_degrees_of_freedom=degrees_of_freedom,
        refits=float(np.mean(refits)) if refits else None,
    )


def seed_noise(trainings: Sequence[TrainingScore]) -> tuple[float, int] | None:
    """Estimates the standard deviation of the objective between trainings of one recipe.

    What a refit gains by training longer is estimated along, as one number for all recipes, and removed. Where only one pair
    can be compared, this gain cannot be distinguished from noise and counts as noise.

    Args:
        trainings: As in ``estimate_selection_bias``.

    Returns:
        The standard deviation and its degrees of freedom; None where no recipe was trained twice.
    """
    by_recipe: dict[str, list[TrainingScore]] = defaultdict(list)
    for training in trainings:
        by_recipe[training.recipe_id].append(training)
    repeated = [group for group in by_recipe.values() if len(group) > 1]
    degrees_of_freedom = sum(len(group) - 1 for group in repeated)
    if not degrees_of_freedom:
        return None
    objectives = np.concatenate([_centred([training.objective for training in group]) for group in repeated])
    refits = np.concatenate([_centred([float(training.is_refit) for training in group]) for group in repeated])
    if degrees_of_freedom > 1 and refits.any():
        objectives = objectives - refits * (refits @ objectives) / (refits @ refits)
        degrees_of_freedom -= 1
    return math.sqrt(float(objectives @ objectives) / degrees_of_freedom), degrees_of_freedom


def _centred(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.asarray(array - array.mean())


def _expected_true_score(scores: NDArray[np.float64], noise: float, score: float) -> float:
    """Mean true score given a measured one, under the distribution of true scores that makes all measured ones most likely."""
    if noise <= 0:
        return score
    grid = np.linspace(scores.min() - noise, scores.max(), _GRID_POINTS)
    # The grid spans all scores, so that none is far from all its points.
    likelihood = np.exp(-0.5 * ((scores[:, None] - grid) / noise) ** 2)
    prior = np.full(_GRID_POINTS, 1 / _GRID_POINTS)
    for _ in range(_EM_ITERATIONS):
        responsibility = likelihood * prior
        responsibility /= np.maximum(responsibility.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        prior = responsibility.mean(axis=0)
    posterior = np.exp(-0.5 * ((score - grid) / noise) ** 2) * prior
    return float(posterior @ grid / posterior.sum()) if posterior.sum() > 0 else score
