"""What a search's trials took, from its study alone: for what comes after the trainings."""

from __future__ import annotations

import optuna

from bloodauto.config.space import Space, realise
from bloodauto.tuning.budget.cost_model import CostModel, Timing


def costs_of(study: optuna.Study, space: Space) -> CostModel:
    """The costs as a resumed search would know them."""
    costs = CostModel()
    for trial in study.get_trials(deepcopy=False):
        if "timing" in trial.user_attrs:
            costs.restore(realise(space, trial.params), Timing(**trial.user_attrs["timing"]))
    return costs
