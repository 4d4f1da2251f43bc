"""What a search's trials took, from its study alone: for what comes after the trainings."""

from __future__ import annotations

import optuna

from bloodauto.config.space import Space, recipe_from_parameters
from bloodauto.tuning.budget.cost_model import CostModel, Timing


def cost_model_from_study(study: optuna.Study, space: Space) -> CostModel:
    """The costs as a resumed search would know them."""
    costs = CostModel()
    for trial in study.get_trials(deepcopy=False):
        if "timing" in trial.user_attrs:
            costs.restore(recipe_from_parameters(space, trial.params), Timing(**trial.user_attrs["timing"]))
    return costs
