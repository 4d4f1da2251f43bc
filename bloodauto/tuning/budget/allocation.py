"""How a budget is divided: the search, the refits, and the end (ensemble, export, sealed test)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.messages import PolicySettings
from bloodauto.tuning.refit_candidates import OnItsWay, contenders
from bloodauto.tuning.refits import choose_recipes
from bloodauto.tuning.study import StudyRecord

#: Beyond so many times what its trial took a refit gains nothing any more; the search gets the rest.
_USEFUL_REFIT_OVER_TRIAL = 3.0
#: Running trials may reach so far into the refits' share.
_OVERDRAFT_SHARE = 0.1
#: Those of declared recipes: a refit goes on from its trial's weights, so that what they learn there is not lost, and networks
#: of different kinds are what makes the ensemble good.
_DECLARED_OVERDRAFT_SHARE = 0.6
#: Trainings that should be over may eat up so much of what is kept for the end before they are ended.
_FINAL_OVERDRAFT_SHARE = 0.3
#: So much of it is kept, before that, from trainings that were promised more than now seems right.
_LEAST_FINAL_SHARE = 0.7


class Division:
    """Where each part of the budget ends, in device-seconds; moves as the costs become known.

    All reserved lanes are charged by the second, so a training of s seconds is affordable when the whole pool's next s
    seconds still fit.

    Args:
        on_their_way: the trials in progress; what they will be as members counts before they have ended.
    """

    def __init__(
        self,
        ledger: Ledger,
        costs: CostModel,
        record: StudyRecord,
        settings: PolicySettings,
        on_their_way: Callable[[], Sequence[OnItsWay]],
    ) -> None:
        self._ledger, self._costs, self._record, self._settings = ledger, costs, record, settings
        self._on_their_way = on_their_way
        self._members: list[Recipe] = []
        self._members_known_at: tuple[object, ...] = ()

    @property
    def pool_devices(self) -> float:
        """Devices of all lanes."""
        return self._settings.workers * self._settings.devices_per_worker

    @property
    def final_device_seconds(self) -> float:
        """Kept for the end of the workers, ensemble, export and sealed test, as this machine has shown itself so far."""
        in_progress = self._on_their_way()
        state = (len(self._record.finished), *((one.number, one.last.epoch) for one in in_progress))
        if self._record.finished and state != self._members_known_at:
            self._members = [one.recipe for one in choose_recipes(contenders(self._record, in_progress))]
            self._members_known_at = state
        lane_seconds = self._costs.final_lane_seconds(self._members, self._settings.workers)
        return min(lane_seconds * self._settings.devices_per_worker, self._settings.final_device_seconds)

    @property
    def refits_end_at(self) -> float:
        """Where the trainings must be over."""
        return max(self._ledger.budget_device_seconds - self.final_device_seconds, 0.0)

    def trainings_end_at(self, promised: float) -> float:
        """Where trainings that should be over are ended, so that enough is left to conclude with one lane.

        Args:
            promised: where refits in progress were told to end; what is kept for the end may have grown since, but what they
                have learnt is worth more than the last of what it is kept for.
        """
        final = self.final_device_seconds
        latest = self._ledger.budget_device_seconds - _LEAST_FINAL_SHARE * final
        return max(self.refits_end_at, min(promised, latest)) + _FINAL_OVERDRAFT_SHARE * final

    @property
    def search_ends_at(self) -> float:
        """Where the refits begin; later than their share says when they could not use it all."""
        share = self.refits_end_at * self._settings.refit_share
        if (best := self._record.best) is not None:
            waves = math.ceil(max(self._settings.max_refits, self._settings.workers) / self._settings.workers)
            trial_seconds = self._costs.trial_seconds(best.recipe) or self._costs.start_seconds()
            useful = _USEFUL_REFIT_OVER_TRIAL * trial_seconds * waves * self.pool_devices
            share = min(share, useful)
        return self.refits_end_at - share

    def trials_end_at(self, *, declared: bool) -> float:
        """Where running trials must be over: somewhat, those of declared recipes far, within the refits' share."""
        share = _DECLARED_OVERDRAFT_SHARE if declared else _OVERDRAFT_SHARE
        return self.search_ends_at + share * (self.refits_end_at - self.search_ends_at)

    def seconds_until(self, device_seconds: float) -> float:
        """Wall seconds until so much is spent, all lanes being reserved throughout."""
        return (device_seconds - self._ledger.spent_device_seconds) / self.pool_devices
