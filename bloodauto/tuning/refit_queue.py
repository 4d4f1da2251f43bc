"""The refits still to be done, and how long each may take."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.messages import SchedulerSettings
from bloodauto.tuning.refits import CompletedTrial, PlannedRefit, choose_recipes, plan_refits, with_extended_epochs
from bloodauto.tuning.study import StudyRecord

#: A refit gets about this many times what its trial took, and never less than the second: rather one for each recipe worth it
#: than several of the best, since networks of different kinds err differently.
_REFIT_OVER_TRIAL = 1.5
_MIN_REFIT_OVER_TRIAL = 0.5
#: Epochs of a refit over those of its trial: so many that time ends it.
_MIN_EPOCH_FACTOR = 8.0
#: A refit goes on from its trial's weights, so that even a part of an epoch, but no less than this, is worth its start.
_MIN_EPOCH_FRACTION = 0.25


@dataclass(frozen=True)
class TimedRefit:
    """A refit, its recipe with epochs to spare, and the wall seconds its training may take."""

    refit: PlannedRefit
    recipe: Recipe
    seconds: float


class RefitQueue:
    """Plans the refits when the first is asked for, keeps the plan in the study, and hands them out."""

    def __init__(self, record: StudyRecord, costs: CostModel, settings: SchedulerSettings) -> None:
        self._record, self._costs, self._settings = record, costs, settings
        self._queue: deque[PlannedRefit] | None = None

    def _plan(self, seconds_left: float, refit_candidates: Sequence[CompletedTrial]) -> deque[PlannedRefit]:
        kept = self._record.pending_refits()
        if kept is not None:
            return kept
        workers = self._settings.workers
        planned = plan_refits(
            refit_candidates,
            count=min(self._count(seconds_left * workers, refit_candidates), max(self._settings.max_refits, workers)),
            num_folds=self._settings.num_folds,
            seed=self._settings.seed,
            workers=workers,
        )
        # A trial that has not ended goes on learning until its refit's turn comes.
        unended = {one.number for one in refit_candidates} - {one.number for one in self._record.completed}
        planned = tuple(sorted(planned, key=lambda refit: refit.trial in unended))
        self._record.save_refit_plan(planned)
        return deque(planned)

    def _count(self, seconds_left: float, refit_candidates: Sequence[CompletedTrial]) -> int:
        """How many refits ``left`` worker-seconds are good for: as many for each of the chosen recipes, or one for some."""
        chosen = choose_recipes(refit_candidates)
        known = [self._costs.trial_seconds(one.recipe) for one in chosen]
        trials = [self._costs.start_seconds() if seconds is None else seconds for seconds in known]
        rounds = int(seconds_left // (_REFIT_OVER_TRIAL * sum(trials)))
        if rounds:
            return rounds * len(chosen)
        return sum(total <= seconds_left for total in accumulate(_MIN_REFIT_OVER_TRIAL * seconds for seconds in trials))

    def take(
        self, seconds_left: float, refit_candidates: Sequence[CompletedTrial], overhead: Callable[[Recipe], float]
    ) -> TimedRefit | None:
        """The next refit; None when there is none, or too little time for it.

        Args:
            left: wall seconds until the refit budget is spent; every slot's last refit is to end then.
            contenders: trials to choose recipes from, at least one.
            overhead: wall seconds that a training of a recipe takes beyond its time limit.
        """
        if self._queue is None:
            self._queue = self._plan(seconds_left, refit_candidates)
        if not self._queue:
            return None
        planned = self._queue[0]
        extra = overhead(planned.recipe)
        shortest = self._costs.epoch_seconds(planned.recipe, 0) or 1.0
        waves = math.ceil(len(self._queue) / self._settings.workers)
        # Better fewer refits that are worth something than all of them cut to less than an epoch.
        while waves > 1 and seconds_left / waves - extra < shortest:
            waves -= 1
        seconds = seconds_left / waves - extra
        if seconds < _MIN_EPOCH_FRACTION * shortest:
            return None
        self._queue.popleft()
        whole = self._costs.remaining_seconds(planned.recipe, 0) or 1.0
        return TimedRefit(
            planned, with_extended_epochs(planned.recipe, max(_MIN_EPOCH_FACTOR, 2 * seconds / whole)), seconds
        )
