"""The policy: which training next, whether it goes on, what its end means. Plain Python, driven by an executor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import optuna

from bloodauto.config.recipe import Recipe
from bloodauto.config.space import Space
from bloodauto.run.artifacts import EpochReport
from bloodauto.tuning.budget.allocation import BudgetAllocation
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.messages import Assignment, EndedTrial, Outcome, RunningTraining, SchedulerSettings, TrainingEnd
from bloodauto.tuning.pruning import Pruning
from bloodauto.tuning.refit_candidates import UnfinishedTrial, refit_candidates
from bloodauto.tuning.refit_queue import RefitQueue
from bloodauto.tuning.refits import CompletedTrial
from bloodauto.tuning.study import CandidateTrial, StudyRecord
from bloodauto.tuning.watchdog import heartbeat_timeout_seconds

__all__ = ["Assignment", "EndedTrial", "Outcome", "RunningTraining", "Scheduler", "SchedulerSettings", "TrainingEnd"]

#: A suggestion nobody can afford is told to the study and another one asked for, this many times; the next time that nothing
#: is affordable half as many, and so on.
_AFFORDABLE_TRIES = 8
#: Suggestions in a row that are no valid recipes, before a slot waits until some trial ends.
_INVALID_TRIES = 64
#: Endings after which a slot's next training has to wait for a new process.
_PROCESS_DEATH_REASONS = frozenset({"worker_died", "watchdog"})


@dataclass
class _OpenTraining:
    assignment: Assignment
    trial: optuna.Trial | None
    assigned_at: float
    last_report_at: float
    last_heartbeat_at: float
    cold: bool
    epochs_done: int = 0
    initial: bool = False
    assigned_end: float = 0.0
    start_seconds: float = 0.0
    overdue: bool = False
    last: EpochReport | None = None
    slowness: list[float] = field(default_factory=list)
    stop_outcome: Outcome | None = None
    reason: str = ""


class Scheduler:
    """Decides. Knows the study, the space, the ledger and a clock; knows no process, no Ray and no TensorFlow.

    Until some trial has completed, every training has a time limit in which its schedule runs to its end: however
    small the budget, there is something to export.

    Args:
        study: its only writer is this policy.
        initial: recipes that are tried first, in order; each must be in the space.
        now: the ledger's clock.
    """

    def __init__(
        self,
        *,
        study: optuna.Study,
        space: Space,
        ledger: Ledger,
        pruning: Pruning,
        settings: SchedulerSettings,
        initial: Sequence[tuple[str, Recipe]],
        now: Callable[[], float],
    ) -> None:
        self._ledger, self._settings, self._now = ledger, settings, now
        self.costs = CostModel()
        self._record = StudyRecord(
            study,
            space,
            pruning,
            seed=settings.seed,
            startup_trials=settings.startup_trials,
            local_perturbation_fraction=settings.local_perturbation_fraction,
            initial=initial,
            costs=self.costs,
            objectives=settings.objectives,
        )
        self._open_trainings: dict[str, _OpenTraining] = {}
        self._ended: list[EndedTrial] = []
        self._budget_stopped: list[UnfinishedTrial] = []
        self._warm_slots: set[str] = set()
        self._none_affordable = False
        self._tries = _AFFORDABLE_TRIES
        self._refits = RefitQueue(self._record, self.costs, settings)
        self.allocation = BudgetAllocation(ledger, self.costs, self._record, settings, self._unfinished_trials)
        #: Why nothing more should be started; None while all is well.
        self.abort_reason: str | None = None

    # -- what is asked -------------------------------------------------------------------------------------------------

    def incumbent(self) -> CompletedTrial | None:
        """The best completed trial."""
        return self._record.incumbent

    def pareto_front(self) -> tuple[CompletedTrial, ...]:
        """Of the completed trials those no other dominates; with one objective, the best."""
        return tuple(self._record.pareto_front())

    def running(self) -> tuple[RunningTraining, ...]:
        """The trainings in progress, oldest first."""
        return tuple(RunningTraining(one.assignment, one.last) for one in self._open_trainings.values())

    def ended(self) -> tuple[EndedTrial, ...]:
        """The trials that ended in this session, in the order they did."""
        return tuple(self._ended)

    def next_assignment(self, slot: str) -> Assignment | None:
        """The slot's next training; None when nothing is to be started on it now. Cheap when asked again and again."""
        if self.abort_reason is not None:
            return None
        assignment = self._next_trial(slot) or self._next_refit(slot)
        self._ledger.set_phase(slot, "idle" if assignment is None else assignment.phase)
        return assignment

    def on_epoch(self, name: str, report: EpochReport) -> bool:
        """Takes an epoch's report; False: stop this training."""
        running = self._open_trainings[name]
        recipe, now, first = running.assignment.recipe, self._now(), running.last is None
        self.costs.observe_epoch(recipe, report.stage, report.seconds, report.evaluation_seconds, first=first)
        if first:
            running.start_seconds = max(now - running.assigned_at - report.seconds, 0.0)
            if not running.overdue:
                # What was killed once did not start when it was assigned.
                self.costs.observe_start(running.start_seconds, cold=running.cold)
            self._warm_slots.add(running.assignment.slot)
        predicted = self.costs.epoch_seconds(recipe, report.stage, first=first) or report.seconds
        running.slowness.append(report.seconds / max(predicted, 1e-9))
        running.last_report_at, running.last, running.overdue = now, report, False
        if running.trial is None:
            return True
        # A worker that died may have to repeat the epoch it had reported last.
        if report.epoch > running.epochs_done:
            running.epochs_done = report.epoch
            self._record.report(running.trial, recipe, report.epoch, report.objective)
        if running.stop_outcome is None:
            self._decide_stop(running, report)
        return running.stop_outcome is None

    def on_end(self, name: str, ending: TrainingEnd) -> None:
        """Takes a training's end; tells the study the right state and charges the slot."""
        running = self._open_trainings.pop(name)
        assignment = running.assignment
        self._ledger.set_phase(assignment.slot, "idle")
        finish_seconds = None
        if ending.kind == "finished" and running.last is not None:
            finish_seconds = self._now() - running.last_report_at
            self.costs.observe_finish(assignment.recipe, finish_seconds)
        if ending.kind == "failed" and ending.reason in _PROCESS_DEATH_REASONS:
            self._warm_slots.discard(assignment.slot)
        if running.trial is None:
            self._record.record_refit_end(name, ending.kind)
            return
        if running.last is not None:
            timing = self.costs.timing(
                assignment.recipe,
                start_seconds=running.start_seconds,
                cold=running.cold,
                finish_seconds=finish_seconds,
            )
            self._record.save_timing(running.trial, timing)
        self._end_trial(running, ending)
        self._none_affordable = False
        if ending.kind == "failed" and ending.reason == "abort":
            self.abort_reason = ending.message

    def close(self) -> None:
        """After the last training: whatever is still open was cut by the budget."""
        for name in list(self._open_trainings):
            self.on_end(name, TrainingEnd("stopped"))
        while (candidate := self._record.next_open_trial()) is not None:
            reason = "the budget was spent before it could go on"
            self._record_end(candidate.trial, candidate.recipe, "out_of_budget", reason, None, candidate.epochs_done)

    # -- time ----------------------------------------------------------------------------------------------------------

    def seconds_until_hard_limit(self, assignment: Assignment) -> float:
        """Wall seconds after which a training must leave, finished or not."""
        search, initial = (
            assignment.kind == "trial" and self._record.completed,
            self._open_trainings[assignment.name].initial,
        )
        ends_at = (
            self.allocation.trial_limit_device_seconds(initial=initial)
            if search
            else self.allocation.refit_limit_device_seconds
        )
        return max(self.allocation.seconds_until(ends_at), 0.0)

    @property
    def is_budget_exhausted(self) -> bool:
        """Whether all is spent, or there is something to export and less is left for trainings than starting workers costs."""
        seconds_left = self.allocation.seconds_until(self.allocation.refit_limit_device_seconds)
        return seconds_left <= (self.costs.start_seconds(cold=True) if self._record.completed else 0.0)

    @property
    def training_limit_device_seconds(self) -> float:
        """How much may be spent, in device-seconds, before whatever still trains must be gone: see ``Division``."""
        return self.allocation.training_limit_device_seconds(
            max((one.assigned_end for one in self._open_trainings.values()), default=0.0)
        )

    def is_past_hard_limit(self) -> bool:
        """Whether even what is left for the end is being eaten up; everything must stop at once."""
        return self._ledger.spent_device_seconds > self.training_limit_device_seconds

    def on_heartbeat(self, name: str) -> None:
        """A training works, though its epoch is not over; an epoch may take longer than any silence is borne."""
        if name in self._open_trainings:
            self._open_trainings[name].last_heartbeat_at = self._now()

    def overdue(self) -> list[str]:
        """Trainings not heard of for so long that they must be hanging; one that was restarted may be named again."""
        names = []
        for name, running in self._open_trainings.items():
            silence = self._now() - max(running.last_report_at, running.last_heartbeat_at)
            if silence <= self._settings.watchdog_seconds:
                continue
            if silence > heartbeat_timeout_seconds(self.costs, running.assignment.recipe):
                running.overdue, running.last_heartbeat_at = True, self._now()
                names.append(name)
        return names

    def was_overdue(self, name: str) -> bool:
        """Whether a training was named by ``overdue`` and has not been heard of since."""
        return name in self._open_trainings and self._open_trainings[name].overdue

    # -- trials --------------------------------------------------------------------------------------------------------

    def _overhead_seconds(self, recipe: Recipe, slot: str) -> float:
        """What a training takes beyond its time limit: start, last batch, the evaluation after it, finish; with a margin."""
        start = self.costs.start_seconds(cold=slot not in self._warm_slots)
        evaluation, epoch = self.costs.evaluation_seconds(recipe), self.costs.epoch_seconds(recipe, 0) or 0.0
        return start + 1.3 * evaluation + 0.01 * epoch + self.costs.finish_seconds(recipe)

    def _search_seconds_left(self, *, initial: bool = False) -> float:
        """Wall seconds the search has left; while nothing has completed, the refit budget is open to it too."""
        ends_at = (
            self.allocation.trial_limit_device_seconds(initial=True)
            if initial
            else self.allocation.search_limit_device_seconds
        )
        seconds_left = self.allocation.seconds_until(ends_at)
        if not self._record.completed and seconds_left <= self.costs.start_seconds():
            seconds_left = self.allocation.seconds_until(self.allocation.refit_limit_device_seconds)
        return seconds_left

    def _next_trial(self, slot: str) -> Assignment | None:
        while (candidate := self._record.next_open_trial()) is not None:
            seconds_left = self._search_seconds_left()
            if self._record.completed:
                seconds_left = self.allocation.seconds_until(
                    self.allocation.trial_limit_device_seconds(initial=candidate.initial)
                )
            assignment = self._try_assign(candidate, slot, seconds_left)
            if assignment is not None:
                return assignment
        most = self._settings.max_trials
        if self._none_affordable or (most is not None and self._record.started >= most):
            return None
        refused = invalid = 0
        while refused < self._tries and invalid < _INVALID_TRIES:
            seconds_left = self._search_seconds_left(initial=self._record.next_is_initial)
            if seconds_left <= self.costs.start_seconds():
                break
            new = self._record.ask()
            if new is None:
                invalid += 1
                continue
            assignment = self._try_assign(new, slot, seconds_left)
            if assignment is not None:
                return assignment
            refused += 1
        # What is left only shrinks: until another trial's end teaches something, asking again would be asking in vain.
        self._none_affordable = True
        self._tries = max(self._tries // 2, 1)
        return None

    def _try_assign(self, candidate: CandidateTrial, slot: str, seconds_left: float) -> Assignment | None:
        """Assigns a trial that fits into ``left`` wall seconds, and tells the study of one that does not."""
        cold = slot not in self._warm_slots
        needed = self.costs.trial_seconds(candidate.recipe, cold=cold, epochs_done=candidate.epochs_done)
        limit = None
        if seconds_left > 0 and (needed is None or not self._record.completed):
            limit = max(seconds_left - self._overhead_seconds(candidate.recipe, slot), 1.0)
        elif needed is None or needed > seconds_left:
            reason = f"predicted {needed or 0.0:.0f} s, left {max(seconds_left, 0.0):.0f} s"
            self._record_end(candidate.trial, candidate.recipe, "out_of_budget", reason, None, candidate.epochs_done)
            return None
        self._record.mark_started(candidate)
        assignment = Assignment(
            kind="trial",
            name=f"{candidate.trial.number:05d}",
            slot=slot,
            recipe=candidate.recipe,
            seed=self._settings.seed,
            fold=0,
            time_limit_seconds=limit,
            weights_from_trial=None,
        )
        self._start(assignment, candidate)
        return assignment

    def _start(self, assignment: Assignment, candidate: CandidateTrial | None) -> None:
        now, cold = self._now(), assignment.slot not in self._warm_slots
        running = self._open_trainings[assignment.name] = _OpenTraining(assignment, None, now, now, now, cold)
        if candidate is None:
            running.assigned_end = self.allocation.refit_limit_device_seconds
        else:
            running.trial, running.epochs_done, running.initial = (
                candidate.trial,
                candidate.epochs_done,
                candidate.initial,
            )

    def _decide_stop(self, running: _OpenTraining, report: EpochReport) -> None:
        """Decides whether a trial is pruned, cut, or goes on."""
        assert running.trial is not None
        recipe, limit = running.assignment.recipe, running.assignment.time_limit_seconds
        seconds_left = self.costs.remaining_seconds(recipe, report.epoch) or 0.0
        seconds_left *= statistics.median(running.slowness)
        squeezed = (
            limit is not None and seconds_left > running.assigned_at + running.start_seconds + limit - self._now()
        )
        if report.epoch >= recipe.total_epochs or squeezed:
            # What its time limit ends before its number of epochs does cannot be compared epoch by epoch, and comes to its
            # end in time anyway.
            return
        at_end = self._ledger.spent_device_seconds + seconds_left * self.allocation.pool_devices
        if self._record.should_prune(running.trial):
            running.stop_outcome, running.reason = "pruned", f"rung_{report.epoch}"
        elif at_end > self.allocation.trial_limit_device_seconds(initial=running.initial) and self._record.completed:
            running.stop_outcome, running.reason = "out_of_budget", f"epoch {report.epoch} of {recipe.total_epochs}"

    def _end_trial(self, running: _OpenTraining, ending: TrainingEnd) -> None:
        assert running.trial is not None
        outcome: Outcome
        if ending.kind == "finished":
            outcome, reason = "complete", ""
        elif ending.kind == "failed":
            outcome, reason = "failed", ending.reason
        elif running.stop_outcome is not None:
            outcome, reason = running.stop_outcome, running.reason
        else:
            outcome, reason = "out_of_budget", "hard_limit"
        recipe = running.assignment.recipe
        if outcome == "out_of_budget" and running.initial and running.last is not None:
            self._budget_stopped.append(UnfinishedTrial(running.trial.number, recipe, running.last))
        self._record_end(running.trial, recipe, outcome, reason, ending, running.epochs_done, running.last)

    def _record_end(
        self,
        trial: optuna.Trial,
        recipe: Recipe,
        outcome: Outcome,
        reason: str,
        ending: TrainingEnd | None,
        epochs_done: int,
        last: EpochReport | None = None,
    ) -> None:
        device_seconds = self._ledger.charged_for(f"trial {trial.number}")
        objective = ending.objective if ending is not None else None
        outcome, reason = self._record.tell(
            trial,
            outcome,
            reason,
            recipe=recipe,
            objective=objective,
            secondary=ending.secondary if ending is not None else (),
            message=ending.message if ending is not None else "",
            epochs_done=epochs_done,
            device_seconds=device_seconds,
        )
        if objective is None and last is not None:
            objective = last.objective
        self._ended.append(EndedTrial(trial.number, recipe.backbone.label, outcome, reason, objective, device_seconds))

    # -- refits --------------------------------------------------------------------------------------------------------

    def _next_refit(self, slot: str) -> Assignment | None:
        """The next refit, as long as lets every slot's last one end when the refit budget does."""
        seconds_left = self.allocation.seconds_until(self.allocation.refit_limit_device_seconds)
        if not self._record.completed or seconds_left <= self.costs.start_seconds():
            return None
        timed = self._refits.take(
            seconds_left,
            refit_candidates(self._record, self._unfinished_trials()),
            lambda recipe: self._overhead_seconds(recipe, slot),
        )
        if timed is None:
            return None
        planned = timed.refit
        assignment = Assignment(
            kind="refit",
            name=planned.name,
            slot=slot,
            recipe=timed.recipe,
            seed=planned.seed,
            fold=planned.fold,
            time_limit_seconds=timed.seconds,
            weights_from_trial=planned.trial if planned.fold == 0 else None,
            time_limit_with_startup_seconds=self.costs.start_seconds(cold=slot not in self._warm_slots) + timed.seconds,
        )
        self._start(assignment, None)
        return assignment

    def _unfinished_trials(self) -> list[UnfinishedTrial]:
        """The trials in progress that have reported an epoch and are not to be stopped, and initial configurations that were cut."""
        open_trials = [
            (one.trial, one)
            for one in self._open_trainings.values()
            if one.trial is not None and one.stop_outcome is None
        ]
        going = [
            UnfinishedTrial(trial.number, one.assignment.recipe, one.last) for trial, one in open_trials if one.last
        ]
        return self._budget_stopped + going
