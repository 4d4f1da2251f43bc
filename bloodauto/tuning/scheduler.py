"""The scheduler: which training is next, whether it continues, what its end means. Plain Python, driven by an executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from bloodauto.config.recipe import Recipe
from bloodauto.config.space import SearchSpace
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.study_attributes import Outcome
from bloodauto.training.limits import TimeLimits
from bloodauto.tuning.budget.allocation import BudgetLimits
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.budget.time_limits import heartbeat_timeout_seconds
from bloodauto.tuning.constants import (
    BUDGET_CONSTANTS,
    SCHEDULER_CONSTANTS,
    BudgetConstants,
    SchedulerConstants,
)
from bloodauto.tuning.failure_streak import FailureStreak
from bloodauto.tuning.likely_members import LikelyMembers
from bloodauto.tuning.messages import (
    Aborted,
    Assignment,
    Completed,
    EndedTrial,
    Interrupted,
    RunningTraining,
    Stopped,
    TrainingEnd,
    refit_outcome,
    trial_phase,
)
from bloodauto.tuning.open_training import OpenTraining
from bloodauto.tuning.plan import BudgetPlan, PlannedInitial
from bloodauto.tuning.planner import Planner
from bloodauto.tuning.pruning import Pruning, TrialPruner
from bloodauto.tuning.refits import CompletedTrial, RefitQueue, UnfinishedTrial, choose_recipes
from bloodauto.tuning.settings import SchedulerSettings
from bloodauto.tuning.study import CandidateTrial, StudyRecord, TrialEnd
from bloodauto.tuning.suggestion import Suggester

_IDLE, _TINY_SECONDS = "idle", 1e-9


class Scheduler:
    """Decides which training each worker slot does next, and when trainings stop.

    It knows the study, the space, the ledger and its clock. It knows no process, no Ray and no TensorFlow. An executor asks it
    for assignments and tells it what happens.

    It follows the plan of a ``Planner``, which is made anew whenever something was learnt. Every training has a time limit
    within which its schedule ends: however small the budget and slow the machine, what is begun can be compared and exported.
    A trial is added to the study when it begins, not before.

    Args:
        study: The trials; nobody else writes to them.
        suggester: Suggests trials.
        pruner: Decides at the rungs.
        planner: Plans what the budget buys; the scheduler lets its cost model observe every training.
        ledger: Charged for what the slots do.
        settings: What the search was asked for.
        constants: How decisions are made.
        budget_constants: How the budget is divided.

    Attributes:
        abort_reason: Why nothing more should be started; None while all is well.
    """

    def __init__(
        self,
        *,
        study: StudyRecord,
        suggester: Suggester,
        pruner: TrialPruner,
        planner: Planner,
        ledger: Ledger,
        settings: SchedulerSettings,
        constants: SchedulerConstants = SCHEDULER_CONSTANTS,
        budget_constants: BudgetConstants = BUDGET_CONSTANTS,
    ) -> None:
        self._study, self._suggester, self._pruner = study, suggester, pruner
        self._planner, self._costs = planner, planner.costs
        self._ledger, self._clock = ledger, ledger.clock
        self._settings, self._constants, self._budget_constants = settings, constants, budget_constants
        self._refits = RefitQueue(planner.costs, settings, constants)
        self._open_trainings: dict[str, OpenTraining] = {}
        self._ended: list[EndedTrial] = []
        #: Trials that the budget stopped: a refit may go on with their weights.
        self._budget_stopped: list[UnfinishedTrial] = []
        self._warm_slots: set[str] = set()
        #: Counts what was learnt: with the same number the plan stays the same.
        self._events = 0
        self._limits: tuple[int, BudgetLimits] | None = None
        self._plan: tuple[int, BudgetPlan] | None = None
        self._nothing_fits_until = -1
        self._members = LikelyMembers(study, planner, constants)
        self._failure_streak = FailureStreak(any_epoch_ended=bool(study.timings()))
        self.abort_reason: str | None = None

    @classmethod
    def create(
        cls,
        study: StudyRecord,
        space: SearchSpace,
        ledger: Ledger,
        *,
        pruning: Pruning,
        settings: SchedulerSettings,
        initial: Sequence[tuple[str, Recipe]],
        constants: SchedulerConstants = SCHEDULER_CONSTANTS,
        budget_constants: BudgetConstants = BUDGET_CONSTANTS,
    ) -> Self:
        """A scheduler with its usual parts.

        Args:
            study: A new study, or one that an earlier session left; nobody else writes to it.
            space: The search space.
            ledger: Charged for what the slots do.
            pruning: The pruner and its rungs.
            settings: What the search was asked for.
            initial: Name and recipe of the initial configurations, in order; each must be in the space.
            constants: How decisions are made.
            budget_constants: How the budget is divided.
        """
        suggester = Suggester(
            study, space, initial=initial, seed=settings.seed, prior=settings.prior, constants=constants
        )
        costs = CostModel.from_timings(study.timings(), budget_constants)
        for recipe, seconds in settings.epoch_seconds:
            costs.observe_steps(recipe, seconds)
        return cls(
            study=study,
            suggester=suggester,
            pruner=TrialPruner(study, pruning, costs, settings.objectives, constants),
            planner=Planner(
                study,
                costs,
                ledger,
                settings,
                recipes=suggester.covering_recipes,
                constants=constants,
                budget_constants=budget_constants,
            ),
            ledger=ledger,
            settings=settings,
            constants=constants,
            budget_constants=budget_constants,
        )

    # -- for display ---------------------------------------------------------------------------------------------------

    def incumbent(self) -> CompletedTrial | None:
        """The best completed trial; None before the first."""
        return self._study.incumbent

    def pareto_front(self) -> tuple[CompletedTrial, ...]:
        """The completed trials that no other dominates; with one objective, the incumbent."""
        return tuple(self._study.pareto_front())

    def observed_epoch_seconds(self) -> list[tuple[Recipe, float]]:
        """A recipe with each network of which an epoch was observed, and the seconds of an epoch's steps."""
        recipes = self._suggester.covering_recipes
        return [(recipe, self._costs.steps_seconds(recipe)) for recipe in recipes if self._costs.has_timed(recipe)]

    def running(self) -> tuple[RunningTraining, ...]:
        """The trainings in progress, oldest first."""
        return tuple(
            RunningTraining(training.assignment, training.last_report) for training in self._open_trainings.values()
        )

    def ended(self) -> tuple[EndedTrial, ...]:
        """The trials that ended in this session, in the order in which they ended."""
        return tuple(self._ended)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def next_assignment(self, slot: str) -> Assignment | None:
        """The next training of a worker slot. Cheap when asked again and again.

        Args:
            slot: A slot that is reserved in the ledger and does nothing.

        Returns:
            None when nothing is to be started on it now.
        """
        if self.abort_reason is not None:
            return None
        assignment = self._next_trial(slot) or self._next_refit(slot)
        self._ledger.set_phase(slot, _IDLE if assignment is None else assignment.phase)
        return assignment

    def on_epoch(self, name: str, report: EpochReport) -> bool:
        """Takes the report of an epoch.

        Args:
            name: Name of the assignment.
            report: What the epoch did.

        Returns:
            Whether the training continues.
        """
        training = self._open_trainings[name]
        self._events += 1
        self._observe_epoch(training, report)
        self._failure_streak.epoch_ended()
        if training.trial is None:
            return True
        # A worker that died may have to repeat the epoch that it reported last.
        if report.epoch > training.epochs_done:
            training.epochs_done = report.epoch
            self._study.report(training.trial.number, report.epoch, report.objective)
        if training.stop_outcome is None:
            self._decide_stop(training, training.trial, report)
        return training.stop_outcome is None

    def on_end(self, name: str, end: TrainingEnd) -> None:
        """Takes the end of a training: records it in the study, and charges its slot.

        Args:
            name: Name of the assignment.
            end: How it ended.
        """
        training = self._open_trainings.pop(name)
        self._events += 1
        assignment = training.assignment
        self._ledger.set_phase(assignment.slot, _IDLE)
        finish_seconds = None
        if isinstance(end, Completed) and end.is_timed and training.last_report is not None:
            finish_seconds = self._clock.now() - training.last_report_at
            self._costs.observe_finish(assignment.recipe, finish_seconds)
        if isinstance(end, Interrupted) and end.process_lost:
            self._warm_slots.discard(assignment.slot)
        if training.trial is None:
            self._study.record_refit_end(name, refit_outcome(end))
            return
        if training.last_report is not None:
            timing = self._costs.timing(
                assignment.recipe,
                start_seconds=training.start_seconds,
                cold=training.cold,
                finish_seconds=finish_seconds,
            )
            self._study.save_timing(training.trial.number, timing)
        self._end_trial(training, training.trial, end)
        failure = self._failure_streak.training_ended(end)
        if self.abort_reason is None:
            self.abort_reason = end.message if isinstance(end, Aborted) else failure

    def close(self) -> None:
        """Ends the search after the last training: the budget stopped whatever is still open."""
        for name in list(self._open_trainings):
            self.on_end(name, Stopped())
        while (candidate := self._suggester.next_open_trial()) is not None:
            self._record_end(candidate, "out_of_budget", "the budget was spent before it could be resumed")

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def limits(self) -> BudgetLimits:
        """Where each part of the budget ends, by what is known of the costs now."""
        if self._limits is None or self._limits[0] != self._events:
            # What the members are hardly depends on the exact time that is left.
            seconds_left = self._planner.seconds_until(self._ledger.budget_device_seconds)
            members = self._members.recipes(self._unfinished_trials(), seconds_left)
            self._limits = self._events, self._planner.limits(members)
        return self._limits[1]

    @property
    def plan(self) -> BudgetPlan:
        """What the rest of the budget buys, by what was known at the last event."""
        if self._plan is None or self._plan[0] != self._events:
            self._plan = self._events, self._make_plan()
        return self._plan[1]

    def _make_plan(self) -> BudgetPlan:
        """What the rest of the budget buys now; time has passed since the last event."""
        now = self._clock.now()
        busy = sum(
            training.seconds_left(now) for training in self._open_trainings.values() if training.trial is not None
        )
        return self._planner.plan(self._suggester.pending_initial, limits=self.limits, busy_seconds=busy)

    @property
    def is_budget_exhausted(self) -> bool:
        """Whether no training can start: nothing is left, or, with something to export, less than a cold start costs."""
        needed = self._costs.start_seconds(cold=True) if self._study.completed else 0.0
        return self._planner.seconds_until(self.limits.refit) <= needed

    @property
    def training_limit_device_seconds(self) -> float:
        """How many device-seconds may be spent before whatever still trains must be ended."""
        assigned_end = max((training.assigned_end for training in self._open_trainings.values()), default=0.0)
        return self.limits.training_limit(assigned_end)

    def is_past_training_limit(self) -> bool:
        """Whether trainings use the reserve of the finalization; everything must stop at once."""
        return self._ledger.spent_device_seconds > self.training_limit_device_seconds

    def on_heartbeat(self, name: str) -> None:
        """Takes a sign that a training works although its epoch has not ended; epochs may be long.

        Args:
            name: Name of the assignment; one that has ended is ignored.
        """
        if name in self._open_trainings:
            self._open_trainings[name].last_heartbeat_at = self._clock.now()

    def overdue(self) -> list[str]:
        """Names of trainings that were silent for so long that they must be hanging.

        The executor restarts them; if they stay silent, they are named again.
        """
        names = []
        for name, training in self._open_trainings.items():
            silence = self._clock.now() - max(training.last_report_at, training.last_heartbeat_at)
            if silence <= self._budget_constants.min_heartbeat_timeout_seconds:
                continue
            if silence > heartbeat_timeout_seconds(self._costs, training.assignment.recipe, self._budget_constants):
                training.is_overdue, training.last_heartbeat_at = True, self._clock.now()
                names.append(name)
        return names

    def was_overdue(self, name: str) -> bool:
        """Whether ``overdue`` named a training and it has reported nothing since.

        Args:
            name: Name of the assignment.
        """
        return name in self._open_trainings and self._open_trainings[name].is_overdue

    # -- trials --------------------------------------------------------------------------------------------------------

    def _next_trial(self, slot: str) -> Assignment | None:
        while (candidate := self._suggester.next_open_trial()) is not None:
            assignment = self._resume(candidate, slot)
            if assignment is not None:
                return assignment
        max_trials = self._settings.max_trials
        if (
            max_trials is not None and self._study.num_started >= max_trials
        ) or self._nothing_fits_until == self._events:
            return None
        plan = self._make_plan()
        for initial in plan.initial:
            candidate = self._suggester.begin_initial(initial.name)
            if candidate is not None:
                return self._assign_trial(candidate, slot, self._initial_seconds(initial, plan))
        assignment = self._next_promotion(slot, plan) or self._next_suggestion(slot, plan)
        if assignment is None:
            # The time left only shrinks: until something is learnt, asking again is useless.
            self._nothing_fits_until = self._events
        return assignment

    def _next_promotion(self, slot: str, plan: BudgetPlan) -> Assignment | None:
        suggestion_seconds = plan.suggestions.seconds
        seconds = (self._constants.promotion_factor - 1) * suggestion_seconds
        if not self._has_time_for(seconds, plan.limits):
            return None
        candidate = self._suggester.promote(
            lambda recipe: self._planner.is_short(recipe, suggestion_seconds),
            lambda trial: self._planner.comparable_objective(trial, suggestion_seconds),
        )
        return None if candidate is None else self._assign_trial(candidate, slot, seconds)

    def _next_suggestion(self, slot: str, plan: BudgetPlan) -> Assignment | None:
        seconds = plan.suggestions.seconds
        # Until a trial has completed there is nothing to refit, and the slot would be idle.
        if (plan.suggestions.is_worthwhile or not self._study.completed) and self._has_time_for(seconds, plan.limits):
            candidate = self._suggester.suggest(
                lambda recipe: self._planner.fits(recipe, seconds),
                lambda trial: self._planner.comparable_objective(trial, seconds),
            )
        elif self._study.completed or self._open_trainings:
            return None
        else:
            # Nothing can be exported yet: the refits' part is used, too.
            seconds = max(self._planner.seconds_until(plan.limits.refit), 0.0)
            if seconds <= self._costs.start_seconds():
                return None
            candidate = self._suggester.suggest(lambda _: True)
        return None if candidate is None else self._assign_trial(candidate, slot, seconds)

    def _has_time_for(self, seconds: float, limits: BudgetLimits) -> bool:
        """Whether the search has time for a trial of so many wall seconds, and enough is left to refit the incumbent."""
        left_after = self._planner.seconds_until(limits.refit) - seconds
        if self._study.completed and left_after < self._planner.shortest_refit_seconds():
            # What it would leave is too short for anything; the refits are worth more with all of it.
            return False
        return self._planner.seconds_until(limits.search) >= self._constants.min_suggestion_fraction * seconds

    def _initial_seconds(self, initial: PlannedInitial, plan: BudgetPlan) -> float:
        """Wall seconds that an initial configuration may take: as planned, with some slack."""
        if initial.seconds is not None and not initial.is_shortened:
            return self._constants.trial_slack * initial.seconds
        left = self._planner.seconds_until(plan.limits.search)
        if not self._study.completed and left <= self._costs.start_seconds():
            return self._planner.seconds_until(plan.limits.refit)
        # While nothing is timed, half is kept for the others.
        return self._constants.initial_fraction * left if initial.seconds is None else min(initial.seconds, left)

    def _resume(self, candidate: CandidateTrial, slot: str) -> Assignment | None:
        """Goes on with a trial that an earlier session left; records its end where there is no time for it."""
        limits, cold = self.limits, slot not in self._warm_slots
        left = self._planner.seconds_until(limits.search if self._study.completed else limits.refit)
        overhead = self._costs.overhead_seconds(candidate.recipe, cold=cold)
        if left <= 0 or (self._study.completed and left <= overhead):
            self._record_end(candidate, "out_of_budget", f"{overhead:.0f} s to resume it, left {max(left, 0.0):.0f} s")
            return None
        predicted = self._costs.trial_seconds(candidate.recipe, cold=cold, epochs_done=candidate.epochs_done)
        return self._assign_trial(candidate, slot, left if predicted is None else min(predicted, left))

    def _assign_trial(self, candidate: CandidateTrial, slot: str, seconds: float) -> Assignment:
        """Assigns a trial that ends within so many wall seconds, or in its own time where that is less."""
        cold = slot not in self._warm_slots
        if cold:
            # Its length is that of a trial on a warm worker; that this one has to start first is not its fault.
            seconds += max(self._costs.start_seconds(cold=True) - self._costs.start_seconds(), 0.0)
        limits = self.limits
        seconds = min(seconds, self._planner.seconds_until(limits.refit))
        self._study.mark_started(candidate.number, given_seconds=max(seconds, 0.0))
        training_seconds = self._planner.training_seconds(candidate.recipe, seconds, cold=cold)
        assignment = Assignment(
            kind="trial",
            name=f"{candidate.number:05d}",
            slot=slot,
            recipe=candidate.recipe,
            seed=self._settings.seed,
            fold=0,
            limits=TimeLimits(training_seconds=training_seconds, hard_deadline=self._deadline(limits.refit)),
            weights_from_trial=candidate.promoted_from,
        )
        self._open(assignment, candidate, planned_seconds=seconds)
        return assignment

    def _deadline(self, device_seconds: float) -> float:
        """The moment at which so much is spent."""
        return self._clock.now() + max(self._planner.seconds_until(device_seconds), 0.0)

    def _open(
        self,
        assignment: Assignment,
        trial: CandidateTrial | None,
        *,
        planned_seconds: float,
        assigned_end: float = 0.0,
    ) -> None:
        now = self._clock.now()
        self._events += 1
        self._open_trainings[assignment.name] = OpenTraining(
            assignment=assignment,
            trial=trial,
            cold=assignment.slot not in self._warm_slots,
            assigned_at=now,
            last_report_at=now,
            last_heartbeat_at=now,
            assigned_end=assigned_end,
            planned_seconds=planned_seconds,
            epochs_done=0 if trial is None else trial.epochs_done,
        )

    def _observe_epoch(self, training: OpenTraining, report: EpochReport) -> None:
        """Lets the cost model observe an epoch, and notes how much slower it was than predicted."""
        recipe, now, first = training.assignment.recipe, self._clock.now(), training.last_report is None
        self._costs.observe_epoch(
            recipe,
            report.stage,
            report.seconds,
            report.evaluation_seconds,
            first=first,
            epoch_fraction=report.epoch_fraction,
            is_resumed=report.is_resumed,
        )
        if first:
            training.start_seconds = max(now - training.assigned_at - report.seconds, 0.0)
            if not training.is_overdue:
                # A training that was killed once did not start when it was assigned.
                self._costs.observe_start(training.start_seconds, cold=training.cold)
            self._warm_slots.add(training.assignment.slot)
        predicted = self._costs.epoch_seconds(recipe, report.stage, first=first)
        assert predicted is not None, "an epoch was observed"
        if report.epoch_fraction == 1.0:
            training.slowness.append(report.seconds / max(predicted, _TINY_SECONDS))
        training.last_report_at, training.last_report, training.is_overdue = now, report, False

    def _decide_stop(self, training: OpenTraining, trial: CandidateTrial, report: EpochReport) -> None:
        """Decides whether a trial is pruned."""
        recipe = training.assignment.recipe
        remaining = self._costs.remaining_seconds(recipe, report.epoch)
        assert remaining is not None, "an epoch was observed"
        if report.epoch >= recipe.total_epochs or training.ends_by_time(self._clock.now(), remaining):
            # A trial that its time limit ends before its number of epochs cannot be compared epoch by epoch, and ends in time.
            return
        if self._pruner.should_prune(trial.number):
            training.stop_outcome, training.stop_reason = "pruned", f"rung_{report.epoch}"

    def _end_trial(self, training: OpenTraining, trial: CandidateTrial, end: TrainingEnd) -> None:
        outcome: Outcome
        if isinstance(end, Completed):
            outcome, reason = "complete", ""
        elif not isinstance(end, Stopped):
            outcome, reason = "failed", end.reason
        elif training.stop_outcome is not None:
            outcome, reason = training.stop_outcome, training.stop_reason
        else:
            outcome, reason = "out_of_budget", "hard_deadline"
        last = training.last_report
        if outcome == "out_of_budget" and last is not None:
            self._budget_stopped.append(UnfinishedTrial(trial.number, trial.recipe, last))
        self._record_end(trial, outcome, reason, end, training)

    def _record_end(
        self,
        trial: CandidateTrial,
        outcome: Outcome,
        reason: str,
        end: TrainingEnd | None = None,
        training: OpenTraining | None = None,
    ) -> None:
        """Records how a trial ended; ``training`` is None for one that was not trained in this session."""
        completed = end if isinstance(end, Completed) else None
        recorded = self._study.record_end(
            trial.number,
            TrialEnd(
                outcome,
                reason,
                objective=None if completed is None else completed.objective,
                secondary=() if completed is None else completed.secondary,
                message="" if end is None or isinstance(end, Completed | Stopped) else end.message,
                epochs_done=trial.epochs_done if training is None else training.epochs_done,
                device_seconds=self._ledger.charged_for(trial_phase(trial.number)),
            ),
        )
        objective = recorded.objective
        if objective is None and training is not None and training.last_report is not None:
            objective = training.last_report.objective
        backbone = trial.recipe.backbone.label
        self._ended.append(
            EndedTrial(trial.number, backbone, recorded.outcome, recorded.reason, objective, recorded.device_seconds)
        )

    # -- refits --------------------------------------------------------------------------------------------------------

    def _next_refit(self, slot: str) -> Assignment | None:
        """The next refit, so long that the last one of every slot ends when the refit budget does."""
        limits, cold = self.limits, slot not in self._warm_slots
        seconds_left = self._planner.seconds_until(limits.refit)
        if not self._study.completed or seconds_left <= self._costs.start_seconds():
            return None
        self._plan_refits(seconds_left)
        timed = self._refits.take(seconds_left, cold=cold)
        if timed is None:
            return None
        refit = timed.refit
        schedule_seconds = self._costs.start_seconds(cold=cold) + timed.seconds
        assignment = Assignment(
            kind="refit",
            name=refit.name,
            slot=slot,
            recipe=timed.recipe,
            seed=refit.seed,
            fold=refit.fold,
            limits=TimeLimits(
                training_seconds=timed.seconds,
                schedule_until=self._clock.now() + schedule_seconds,
                hard_deadline=self._deadline(limits.refit),
            ),
            weights_from_trial=refit.trial if refit.fold == 0 else None,
        )
        self._open(assignment, None, planned_seconds=schedule_seconds, assigned_end=limits.refit)
        return assignment

    def _plan_refits(self, seconds_left: float) -> None:
        """Plans the refits when the first is due, or takes over the plan of an earlier session."""
        if self._refits.is_planned:
            return
        pending = self._study.pending_refits()
        if pending is not None:
            self._refits.restore(pending)
            return
        unfinished = self._unfinished_trials()
        candidates = self._members.candidates(unfinished, seconds_left)
        chosen = choose_recipes(candidates, self._constants)
        planned = self._refits.plan(self._planner.refit_count(seconds_left, chosen), candidates, unfinished)
        self._study.save_refit_plan(planned)

    def _unfinished_trials(self) -> list[UnfinishedTrial]:
        """Trials that the budget stopped, and trials in progress with an epoch that are not to be stopped."""
        in_progress = [
            UnfinishedTrial(training.trial.number, training.assignment.recipe, training.last_report)
            for training in self._open_trainings.values()
            if training.trial is not None and training.stop_outcome is None and training.last_report is not None
        ]
        return self._budget_stopped + in_progress
