"""The trials on the Pareto front of a search with several objectives, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bloodauto.config.objectives import Objectives
from bloodauto.config.space import recipe_from_parameters
from bloodauto.run.artifacts import ParetoFront, ParetoTrial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from bloodauto.config.space import Space


def pareto_front(objectives: Objectives, completed: Sequence[FrozenTrial], space: Space) -> ParetoFront:
    """The completed trials that no other dominates, the best in the primary objective first.

    Args:
        objectives: of the search.
        completed: its completed trials.
        space: its search space.
    """
    front = objectives.pareto_front(completed, lambda trial: trial.values)
    trials = []
    for trial in sorted(front, key=lambda trial: (-trial.values[0], trial.number)):
        recipe = recipe_from_parameters(space, trial.params)
        values = dict(zip(objectives.names, trial.values, strict=True))
        trials.append(
            ParetoTrial(trial=trial.number, backbone=recipe.backbone.label, recipe_id=recipe.id, values=values)
        )
    return ParetoFront(objectives=objectives.names, trials=tuple(trials))
