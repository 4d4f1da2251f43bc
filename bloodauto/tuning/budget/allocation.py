"""How a budget is divided: the search, the refits, and the finalization (ensemble, export, held-out test)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.constants import (
    BUDGET_CONSTANTS,
    SCHEDULER_CONSTANTS,
    BudgetConstants,
    SchedulerConstants,
)
from bloodauto.tuning.settings import SchedulerSettings


@dataclass(frozen=True)
class BudgetLimits:
    """Where each part of a budget ends, in device-seconds from its beginning.

    Attributes:
        budget: The whole budget.
        finalization: How much is reserved for the end of the workers, ensemble, export and held-out test.
        search: Where the refits begin.
        refit: Where the trainings must be over.
        constants: How far trainings may reach beyond these.

    Example:
        >>> limits = BudgetLimits(budget=100.0, finalization=10.0, search=50.0, refit=90.0)
        >>> limits.with_search_end(95.0).search
        90.0
    """

    budget: float
    finalization: float
    search: float
    refit: float
    constants: BudgetConstants = field(default=BUDGET_CONSTANTS, repr=False)

    def with_search_end(self, device_seconds: float) -> BudgetLimits:
        """The limits with another end of the search, at most that of the refits.

        Args:
            device_seconds: Where the refits begin.
        """
        return replace(self, search=min(device_seconds, self.refit))

    def training_limit(self, assigned_end: float) -> float:
        """Where trainings that should be over are ended, so that enough is left for the finalization.

        Args:
            assigned_end: Where the refits in progress were assigned to end. The reserve for the finalization may have grown
                since, but their training is worth more than the last of that reserve.
        """
        latest = self.budget - self.constants.min_finalization_fraction * self.finalization
        overrun = self.constants.finalization_overrun_fraction * self.finalization
        return max(self.refit, min(assigned_end, latest)) + overrun


def allocate_budget(
    budget_device_seconds: float,
    *,
    costs: CostModel,
    incumbent: Recipe | None,
    likely_members: Sequence[Recipe],
    settings: SchedulerSettings,
    scheduler_constants: SchedulerConstants = SCHEDULER_CONSTANTS,
    constants: BudgetConstants = BUDGET_CONSTANTS,
) -> BudgetLimits:
    """Divides a budget by what is known of the costs so far.

    Args:
        budget_device_seconds: The whole budget.
        costs: Predicts the seconds of trainings and of the finalization.
        incumbent: Recipe of the best trial; None before any has completed.
        likely_members: Recipes that would be refitted if the search ended now.
        settings: Workers, devices and the fractions that the user chose.
        scheduler_constants: How many refits there are at most.
        constants: What a refit can use.

    Returns:
        The limits; they move as the costs become known.
    """
    slot_seconds = costs.finalization_slot_seconds(likely_members, settings.workers)
    finalization = min(slot_seconds * settings.devices_per_worker, settings.finalization_device_seconds)
    refit = max(budget_device_seconds - finalization, 0.0)
    for_refits = refit * settings.refit_fraction
    if incumbent is not None:
        refits = max(scheduler_constants.max_refits, settings.workers)
        waves = math.ceil(refits / settings.workers)
        predicted = costs.trial_seconds(incumbent)
        trial_seconds = costs.start_seconds() if predicted is None else predicted
        useful = constants.max_useful_refit_over_trial * trial_seconds * waves * settings.pool_devices
        for_refits = min(for_refits, useful)
    return BudgetLimits(
        budget=budget_device_seconds,
        finalization=finalization,
        search=refit - for_refits,
        refit=refit,
        constants=constants,
    )
