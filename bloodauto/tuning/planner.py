"""Plans a budget, and plans it anew whenever something was learnt: how long trials are, which fit, when the refits begin."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.budget.allocation import BudgetLimits, allocate_budget
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.constants import (
    BUDGET_CONSTANTS,
    SCHEDULER_CONSTANTS,
    BudgetConstants,
    SchedulerConstants,
)
from bloodauto.tuning.expected_gain import BestErrorForecast, curve_exponent, ensemble_factor, error_after, error_of
from bloodauto.tuning.plan import BudgetPlan, PlannedInitial, PlannedSuggestions
from bloodauto.tuning.refits import CompletedTrial
from bloodauto.tuning.settings import SchedulerSettings
from bloodauto.tuning.study import StudyRecord

#: Where the search may end, between its earliest end and the last moment: so many places are compared.
_SEARCH_ENDS = 11
_MIN_SECONDS = 1.0
#: So much of a trial's time counts as training, however long it took to start.
_MIN_TRAINED_PART = 0.25
_TINY = 1e-9
#: Even when all wanted suggestions were made, more of their length are wanted: one in so many.
_MIN_TARGET_PART = 4


@dataclass(frozen=True)
class _RefitStart:
    """Where a refit starts: the error of its trial, and the seconds of training that led to it."""

    error: float
    trained_seconds: float
    overhead_seconds: float
    most_useful_seconds: float
    exponent: float

    def error_after(self, wall_seconds: float) -> float:
        useful = min(max(wall_seconds - self.overhead_seconds, 0.0), self.most_useful_seconds)
        return error_after(self.error, self.trained_seconds, self.trained_seconds + useful, self.exponent)


class Planner:
    """Plans what a budget buys.

    Time is the fidelity: a trial is given seconds, not epochs, and its schedule is compressed into them. All suggestions get
    the same seconds, so that they can be compared, whatever their network. Initial configurations get the time of their whole
    schedule where it fits, less where it does not, and wait where there is not even an epoch; nothing is refused for good,
    since every epoch that is timed leads to a new plan.

    Args:
        study: The trials so far.
        costs: Predicts seconds.
        ledger: Says what is spent.
        settings: What the search was asked for.
        recipes: Recipes that cover the search space: of which networks the suggestions may be.
        constants: How decisions are made.
        budget_constants: How the budget is divided.

    Attributes:
        costs: The same.
    """

    def __init__(
        self,
        study: StudyRecord,
        costs: CostModel,
        ledger: Ledger,
        settings: SchedulerSettings,
        *,
        recipes: Sequence[Recipe],
        constants: SchedulerConstants = SCHEDULER_CONSTANTS,
        budget_constants: BudgetConstants = BUDGET_CONSTANTS,
    ) -> None:
        self._study, self.costs, self._ledger, self._settings = study, costs, ledger, settings
        self._recipes = list({(recipe.backbone, recipe.input.size_px): recipe for recipe in recipes}.values())
        self._constants, self._budget_constants = constants, budget_constants
        #: The best end of the search, and of how many trials it follows.
        self._search_end: tuple[tuple[int, int], float] | None = None

    # -- time ----------------------------------------------------------------------------------------------------------

    def seconds_until(self, device_seconds: float) -> float:
        """Wall seconds until so much is spent, while all slots are reserved; negative when it is spent already.

        All slots are charged by the second, so that a training of s seconds is affordable when s seconds of them all are.

        Args:
            device_seconds: Of the budget.
        """
        return (device_seconds - self._ledger.spent_device_seconds) / self._settings.pool_devices

    def limits(self, likely_members: Sequence[Recipe]) -> BudgetLimits:
        """Where search, refits and budget end, by what is known now.

        Args:
            likely_members: Recipes that would be refitted if the search ended now; none before a trial has completed.
        """
        limits = allocate_budget(
            self._ledger.budget_device_seconds,
            costs=self.costs,
            incumbent=None if self._study.incumbent is None else self._study.incumbent.recipe,
            likely_members=likely_members,
            settings=self._settings,
            scheduler_constants=self._constants,
            constants=self._budget_constants,
        )
        state = self._study.num_started, len(self._study.completed)
        if self._search_end is None or self._search_end[0] != state:
            self._search_end = state, self._best_search_end(limits)
        return limits.with_search_end(max(limits.search, self._search_end[1]))

    # -- the plan ------------------------------------------------------------------------------------------------------

    def plan(
        self, pending: Sequence[tuple[str, Recipe]], *, limits: BudgetLimits, busy_seconds: float = 0.0
    ) -> BudgetPlan:
        """Plans what the rest of the budget buys.

        Args:
            pending: Name and recipe of the initial configurations that were not tried, in order.
            limits: Where search and refits end.
            busy_seconds: Seconds on a worker that trials in progress still need.

        Returns:
            The plan.
        """
        workers = self._settings.workers
        wall_seconds = max(self.seconds_until(limits.search), 0.0)
        search_seconds = max(workers * wall_seconds - busy_seconds, 0.0)
        room = self._constants.initial_fraction * search_seconds
        if self._settings.max_trials is not None and self._settings.max_trials <= len(pending):
            room = search_seconds
        initial, excluded = self._plan_initial(pending, wall_seconds, room)
        suggestions = self._plan_suggestions(initial, search_seconds)
        if not suggestions.is_worthwhile and (initial or excluded):
            initial, excluded = self._plan_initial(pending, wall_seconds, search_seconds)
        refit_wall_seconds = max(self.seconds_until(limits.refit) - wall_seconds, 0.0)
        num_refits = self.refit_count(refit_wall_seconds, self._study.refit_eligible_trials())
        refit_seconds = refit_wall_seconds / max(math.ceil(num_refits / workers), 1)
        return BudgetPlan(
            limits=limits,
            initial=initial,
            excluded=excluded,
            suggestions=suggestions,
            num_refits=num_refits,
            refit_seconds=refit_seconds,
            refits_reason=f"with them the expected error is least; at most {self._settings.refit_fraction:.0%} of the budget",
        )

    def _plan_suggestions(self, initial: Sequence[PlannedInitial], search_seconds: float) -> PlannedSuggestions:
        """What suggestions get of the search's time after the initial configurations, if there is enough for any."""
        constants, num_suggestions = self._constants, self._study.num_suggestions
        left = max(search_seconds - sum(0.0 if entry.seconds is None else entry.seconds for entry in initial), 0.0)
        seconds = self.trial_seconds(left)
        affordable = [recipe for recipe in self._recipes if self.fits(recipe, seconds)]
        count = int(left / (seconds * self._seconds_with_promotions)) if affordable else 0
        has_initial = bool(initial) or self._study.num_started > num_suggestions
        if affordable and has_initial and num_suggestions + count < constants.min_suggestions:
            reason = f"there is time for {count}; fewer than {constants.min_suggestions} find little"
            return PlannedSuggestions(seconds, 0, reason, is_worthwhile=False)
        if self._settings.max_trials is not None:
            count = min(count, max(self._settings.max_trials - self._study.num_started - len(initial), 0))
        return PlannedSuggestions(seconds, count, self._suggestions_reason(affordable, seconds), bool(affordable))

    def _plan_initial(
        self, pending: Sequence[tuple[str, Recipe]], wall_seconds: float, room: float
    ) -> tuple[tuple[PlannedInitial, ...], tuple[tuple[str, str], ...]]:
        """Gives initial configurations, in their order, the time that they need or less, while there is room for them."""
        initial: list[PlannedInitial] = []
        excluded: list[tuple[str, str]] = []
        for name, recipe in pending:
            full, shortest = self.costs.trial_seconds(recipe), self._shortest_initial_seconds(recipe)
            most = min(room, wall_seconds)
            if full is None or shortest is None:
                initial.append(PlannedInitial(name, recipe, None, "nothing is timed yet"))
            elif full <= most:
                epochs = recipe.total_epochs
                initial.append(PlannedInitial(name, recipe, full, f"its {epochs} epochs"))
                room -= full
            elif shortest <= most or not (initial or self._study.num_started):
                reason = f"{recipe.total_epochs} epochs take {full:.0f} s, of {wall_seconds:.0f} s; its schedule is shortened"
                initial.append(PlannedInitial(name, recipe, most, reason, is_shortened=True))
                room -= most
            else:
                reason = (
                    f"left out for now: {recipe.total_epochs} epochs take {full:.0f} s, one {shortest:.0f} s, of "
                    f"{most:.0f} s that initial configurations may still take"
                )
                excluded.append((name, reason))
        return tuple(initial), tuple(excluded)

    def _shortest_initial_seconds(self, recipe: Recipe) -> float | None:
        epoch = self.costs.epoch_seconds(recipe, 0, first=True)
        if epoch is None:
            return None
        return self.costs.overhead_seconds(recipe, cold=False) + self._constants.min_initial_epochs * epoch

    def _suggestions_reason(self, affordable: Sequence[Recipe], seconds: float) -> str:
        def names(recipes: Sequence[Recipe]) -> str:
            return ", ".join(dict.fromkeys(recipe.backbone.label for recipe in recipes))

        if not affordable:
            return "no network of the space fits into the time that is left"
        others = [recipe for recipe in self._recipes if recipe not in affordable]
        reason = f"among {names(affordable)}"
        if any(self.is_short(recipe, seconds) for recipe in affordable):
            factor = self._constants.promotion_factor
            reason += f"; the best of {factor} goes on to {factor} times the time"
        if others:
            reason += f"; {names(others)} would train for less than {self._constants.min_trial_steps} steps"
        return reason

    # -- suggestions ---------------------------------------------------------------------------------------------------

    def trial_seconds(self, search_seconds: float) -> float:
        """Wall seconds that one suggestion may take on a worker, start and final evaluation included.

        They are as many as give ``target_trials`` suggestions in all, but at least so many that training, not starting and
        evaluating, takes most of them. They change little while the machine's speed does not.

        Args:
            search_seconds: Seconds on a worker that there are for suggestions.
        """
        target = self._constants.target_trials
        left = max(target - self._study.num_suggestions, target / _MIN_TARGET_PART)
        seconds = search_seconds / left / self._seconds_with_promotions
        if all(self.costs.epoch_seconds(recipe, 0) is None for recipe in self._recipes):
            # Nobody knows what an epoch takes: too little would be a training of a step or two.
            seconds = self._constants.initial_fraction * search_seconds / self._settings.workers
        return max(seconds, self._shortest_trial_seconds(), _MIN_SECONDS)

    @property
    def _seconds_with_promotions(self) -> float:
        """Seconds of a suggestion with its part of the promotions, over its own."""
        factor = self._constants.promotion_factor
        return 1.0 + (factor - 1) / factor

    def is_short(self, recipe: Recipe, seconds: float) -> bool:
        """Whether time ends a recipe's training much before its last epoch.

        Args:
            recipe: A suggestion.
            seconds: What it is given, start and final evaluation included.
        """
        full = self.costs.trial_seconds(recipe)
        return full is not None and full > self._constants.trial_slack * seconds

    def _shortest_trial_seconds(self) -> float:
        """Of the quickest network: the fixed costs, as much again, and the least number of steps."""
        constants = self._constants
        shortest = []
        for recipe in self._recipes:
            overhead = self.costs.overhead_seconds(recipe, cold=False) + self.costs.first_epoch_extra_seconds()
            epoch = self.costs.epoch_seconds(recipe, 0)
            training = 0.0 if epoch is None else self._min_trial_epochs(recipe) * epoch
            shortest.append(overhead + max(constants.min_training_over_overhead * overhead, training))
        return min(shortest, default=_MIN_SECONDS)

    def _min_trial_epochs(self, recipe: Recipe) -> float:
        """The part of an epoch that a suggestion sees at least."""
        images = self._settings.training_images
        if images is None:
            return 1.0
        return min(self._constants.min_trial_steps * recipe.batch_size / images, 1.0)

    def training_seconds(self, recipe: Recipe, seconds: float, *, cold: bool) -> float:
        """Seconds of training in so many wall seconds on a worker.

        Args:
            recipe: What is trained.
            seconds: In all.
            cold: Whether the worker's process has to start.
        """
        return max(seconds - self.costs.overhead_seconds(recipe, cold=cold), _MIN_SECONDS)

    def fits(self, recipe: Recipe, seconds: float) -> bool:
        """Whether a recipe can be judged in so many seconds on a worker.

        Args:
            recipe: A suggestion.
            seconds: Start and final evaluation included.
        """
        epoch, full = self.costs.epoch_seconds(recipe, 0), self.costs.trial_seconds(recipe)
        if epoch is None or full is None or full <= seconds:
            return True
        needed = self._min_trial_epochs(recipe) * epoch + self.costs.first_epoch_extra_seconds()
        return seconds - self.costs.overhead_seconds(recipe, cold=False) >= needed * (1 - 1e-9)

    def comparable_objective(self, trial: CompletedTrial, seconds: float) -> float:
        """The objective that a trial would have had in so many seconds on a worker: what it had then, by its own curve.

        Of a time before its first epoch, what it had after that; without a curve, what the run's learning curves say.

        Args:
            trial: A trial that may have been given more time than others.
            seconds: What others are given.
        """
        spent = trial.device_seconds / self._settings.devices_per_worker
        if spent <= seconds:
            return trial.objective
        curve = self._study.curve(trial.number)
        epoch = max(int(max(curve, default=0) * seconds / spent), 1)
        if epoch in curve:
            return min(curve[epoch], trial.objective)
        return 1.0 - error_after(error_of(trial.objective), spent, seconds, self._exponent())

    # -- refits --------------------------------------------------------------------------------------------------------

    def refit_count(self, wall_seconds: float, candidates: Sequence[CompletedTrial]) -> int:
        """The number of refits that is expected to give the best ensemble: more members, or longer training of each.

        Args:
            wall_seconds: Until the refits must be over.
            candidates: The trials whose recipes may be refitted, the first first.
        """
        workers = self._settings.workers
        best, best_error = workers, math.inf
        if not candidates:
            return best
        exponent = self._exponent()
        starts = [self._refit_start(trial, exponent) for trial in candidates]
        full = [self.costs.trial_seconds(trial.recipe) for trial in candidates]
        shortest = self._constants.refit_over_trial * max(0.0 if seconds is None else seconds for seconds in full)
        for count in range(workers, max(self._constants.max_refits, workers) + 1):
            seconds = wall_seconds / math.ceil(count / workers)
            if count > workers and seconds < shortest:
                break
            members = [starts[index % len(starts)].error_after(seconds) for index in range(count)]
            error = statistics.fmean(members) * ensemble_factor(count, self._constants)
            if error < best_error:
                best, best_error = count, error
        return best

    def shortest_refit_seconds(self) -> float:
        """Wall seconds below which a refit of the incumbent is not begun; 0 before any trial has completed."""
        if self._study.incumbent is None:
            return 0.0
        recipe = self._study.incumbent.recipe
        epoch = self.costs.epoch_seconds(recipe, 0)
        overhead = self.costs.overhead_seconds(recipe, cold=False)
        return overhead + self._constants.min_refit_epoch_fraction * (0.0 if epoch is None else epoch)

    def refitted(self, trials: Sequence[CompletedTrial], wall_seconds: float) -> list[CompletedTrial]:
        """The trials, each with the objective that its recipe is expected to have after a refit from its weights.

        Args:
            trials: The trials.
            wall_seconds: Of each refit.
        """
        exponent = self._exponent()
        return [
            replace(trial, objective=1.0 - self._refit_start(trial, exponent).error_after(wall_seconds))
            for trial in trials
        ]

    def _refit_start(self, trial: CompletedTrial, exponent: float) -> _RefitStart:
        spent = trial.device_seconds / self._settings.devices_per_worker
        overhead = self.costs.overhead_seconds(trial.recipe, cold=False)
        trained = max(spent - overhead, _MIN_TRAINED_PART * spent, _MIN_SECONDS)
        full = self.costs.remaining_seconds(trial.recipe, 0)
        most = self._budget_constants.max_useful_refit_over_trial * (trained if full is None else max(full, trained))
        return _RefitStart(error_of(trial.objective), trained, overhead, most, exponent)

    def _exponent(self) -> float:
        return curve_exponent(self._study.recent_curves(), self._constants)

    def _best_search_end(self, limits: BudgetLimits) -> float:
        """Where search and refits gain equally: later ends find better recipes, earlier ones train them longer."""
        trials, incumbent = self._study.completed, self._study.incumbent
        if incumbent is None or len(trials) < self._constants.startup_trials:
            return limits.search
        # Of trainings of different lengths the shorter ones would make the spread, and with it the gain, look large.
        shortest = min(trial.device_seconds for trial in trials) / self._settings.devices_per_worker
        errors = [error_of(self.comparable_objective(trial, shortest)) for trial in trials]
        forecast = BestErrorForecast(errors, self._constants)
        took = statistics.median(trial.device_seconds for trial in trials) / self._settings.devices_per_worker
        workers, start = self._settings.workers, self._refit_start(incumbent, self._exponent())
        earliest = max(limits.search, self._ledger.spent_device_seconds)
        best_end, best_error = limits.search, math.inf
        for step in range(_SEARCH_ENDS):
            end = earliest + (limits.refit - earliest) * step / _SEARCH_ENDS
            more_trials = int(max(self.seconds_until(end), 0.0) * workers / max(took, _MIN_SECONDS))
            search_factor = forecast.after(more_trials) / forecast.after(0)
            refit_seconds = (limits.refit - end) / self._settings.pool_devices
            most = max(self._constants.max_refits, workers)
            error = search_factor * min(
                start.error_after(refit_seconds / math.ceil(count / workers)) * ensemble_factor(count, self._constants)
                for count in range(workers, most + 1)
            )
            if error < best_error - _TINY:
                best_end, best_error = max(end, limits.search), error
        return best_end
