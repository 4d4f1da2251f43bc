"""How a budget is divided: the search, the refits, and the end (ensemble, export, held-out test)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.messages import SchedulerSettings
from bloodauto.tuning.refit_candidates import UnfinishedTrial, refit_candidates
from bloodauto.tuning.refits import choose_recipes
from bloodauto.tuning.study import StudyRecord

#: Beyond so many times what its trial took a refit gains nothing any more; the search gets the rest.
_MAX_USEFUL_REFIT_OVER_TRIAL = 3.0
#: Running trials may reach so far into the refit budget.
_OVERRUN_FRACTION = 0.1
#: Those of initial configurations: a refit goes on from its trial's weights, so that what they learn there is not lost, and networks
#: of different kinds are what makes the ensemble good.
_INITIAL_OVERRUN_FRACTION = 0.6
#: Trainings that should be over may eat up so much of what is kept for the end before they are ended.
_FINALIZATION_OVERRUN_FRACTION = 0.3
#: So much of it is kept, before that, from trainings that were promised more than now seems right.
_MIN_FINALIZATION_FRACTION = 0.7


class BudgetAllocation:
    """Where each part of the budget ends, in device-seconds; moves as the costs become known.

    All reserved slots are charged by the second, so a training of s seconds is affordable when the whole pool's next s
    seconds still fit.

    Args:
        unfinished_trials: the trials in progress; what they will be as members counts before they have ended.
    """

    def __init__(
        self,
        ledger: Ledger,
        costs: CostModel,
        record: StudyRecord,
        settings: SchedulerSettings,
        unfinished_trials: Callable[[], Sequence[UnfinishedTrial]],
    ) -> None:
        self._ledger, self._costs, self._record, self._settings = ledger, costs, record, settings
        self._unfinished_trials = unfinished_trials
        self._members: list[Recipe] = []
        self._members_state: tuple[object, ...] = ()

    @property
    def pool_devices(self) -> float:
        """Devices of all slots."""
        return self._settings.workers * self._settings.devices_per_worker

    @property
    def finalization_device_seconds(self) -> float:
        """Kept for the end of the workers, ensemble, export and held-out test, as this machine has shown itself so far."""
        in_progress = self._unfinished_trials()
        state = (len(self._record.completed), *((one.number, one.last.epoch) for one in in_progress))
        if self._record.completed and state != self._members_state:
            self._members = [one.recipe for one in choose_recipes(refit_candidates(self._record, in_progress))]
            self._members_state = state
        slot_seconds = self._costs.finalization_slot_seconds(self._members, self._settings.workers)
        return min(slot_seconds * self._settings.devices_per_worker, self._settings.finalization_device_seconds)

    @property
    def refit_limit_device_seconds(self) -> float:
        """Where the trainings must be over."""
        return max(self._ledger.budget_device_seconds - self.finalization_device_seconds, 0.0)

    def training_limit_device_seconds(self, assigned_end: float) -> float:
        """Where trainings that should be over are ended, so that enough is left to conclude with one slot.

        Args:
            promised: where refits in progress were told to end; what is kept for the end may have grown since, but what they
                have learnt is worth more than the last of what it is kept for.
        """
        final = self.finalization_device_seconds
        latest = self._ledger.budget_device_seconds - _MIN_FINALIZATION_FRACTION * final
        return max(self.refit_limit_device_seconds, min(assigned_end, latest)) + _FINALIZATION_OVERRUN_FRACTION * final

    @property
    def search_limit_device_seconds(self) -> float:
        """Where the refits begin; later than their share says when they could not use it all."""
        share = self.refit_limit_device_seconds * self._settings.refit_fraction
        if (incumbent := self._record.incumbent) is not None:
            waves = math.ceil(max(self._settings.max_refits, self._settings.workers) / self._settings.workers)
            trial_seconds = self._costs.trial_seconds(incumbent.recipe) or self._costs.start_seconds()
            useful = _MAX_USEFUL_REFIT_OVER_TRIAL * trial_seconds * waves * self.pool_devices
            share = min(share, useful)
        return self.refit_limit_device_seconds - share

    def trial_limit_device_seconds(self, *, initial: bool) -> float:
        """Where running trials must be over: somewhat, those of initial configurations far, within the refit budget."""
        share = _INITIAL_OVERRUN_FRACTION if initial else _OVERRUN_FRACTION
        return self.search_limit_device_seconds + share * (
            self.refit_limit_device_seconds - self.search_limit_device_seconds
        )

    def seconds_until(self, device_seconds: float) -> float:
        """Wall seconds until so much is spent, all slots being reserved throughout."""
        return (device_seconds - self._ledger.spent_device_seconds) / self.pool_devices
