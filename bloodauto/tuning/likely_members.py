"""Which trials' recipes would be refitted if the search ended now."""

from __future__ import annotations

from collections.abc import Sequence

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.constants import SCHEDULER_CONSTANTS, SchedulerConstants
from bloodauto.tuning.planner import Planner
from bloodauto.tuning.refits import CompletedTrial, UnfinishedTrial, choose_recipes, refit_candidates
from bloodauto.tuning.study import StudyRecord

#: Recipes are compared by what they are expected to gain from this part of the time until the refits are over.
_REFIT_WAVES = 2


class LikelyMembers:
    """Ranks trials by what their recipes are expected to reach after a refit.

    A short trial is behind a long one because it is short; the run's learning curves say how far.

    Args:
        study: The trials.
        planner: Knows the learning curves.
        constants: How many recipes are refitted, and how far behind the best they may be.
    """

    def __init__(
        self, study: StudyRecord, planner: Planner, constants: SchedulerConstants = SCHEDULER_CONSTANTS
    ) -> None:
        self._study, self._planner, self._constants = study, planner, constants
        self._recipes: list[Recipe] = []
        self._state: tuple[object, ...] = ()

    def candidates(self, unfinished: Sequence[UnfinishedTrial], seconds_left: float) -> list[CompletedTrial]:
        """The trials that may be refitted, each with the objective that it is expected to have after its refit.

        Args:
            unfinished: Trials that may be refitted although they have not completed.
            seconds_left: Wall seconds until the refits must be over.
        """
        completed = self._study.refit_eligible_trials()
        trials = refit_candidates(completed, [self._study.curve(trial.number) for trial in completed], unfinished)
        seconds = max(seconds_left, 0.0) / _REFIT_WAVES
        return self._planner.refitted(trials, seconds)

    def recipes(self, unfinished: Sequence[UnfinishedTrial], seconds_left: float) -> list[Recipe]:
        """Recipes that would be refitted if the search ended now; none before a trial has completed.

        Args:
            unfinished: As for ``candidates``.
            seconds_left: Likewise.
        """
        if not self._study.completed:
            return []
        state = (len(self._study.completed), *((trial.number, trial.last_report.epoch) for trial in unfinished))
        if state != self._state:
            chosen = choose_recipes(self.candidates(unfinished, seconds_left), self._constants)
            self._recipes, self._state = [trial.recipe for trial in chosen], state
        return self._recipes
