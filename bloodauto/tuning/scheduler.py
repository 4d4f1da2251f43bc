"""The policy: which training next, whether it goes on, what its end means. Plain Python, driven by an executor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import optuna

from bloodauto.config.recipe import Recipe
from bloodauto.config.space import Space
from bloodauto.training.checkpoint import EpochReport
from bloodauto.tuning.budget.allocation import Division
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.messages import Assignment, Ended, Ending, Outcome, PolicySettings, Running
from bloodauto.tuning.pruning import Pruning
from bloodauto.tuning.refit_candidates import OnItsWay, contenders
from bloodauto.tuning.refit_queue import RefitQueue
from bloodauto.tuning.refits import Finished
from bloodauto.tuning.study import Asked, StudyRecord
from bloodauto.tuning.watchdog import allowed_silence_seconds

__all__ = ["Assignment", "Ended", "Ending", "Outcome", "Policy", "PolicySettings", "Running"]

#: A suggestion nobody can afford is told to the study and another one asked for, this many times; the next time that nothing
#: is affordable half as many, and so on.
_AFFORDABLE_TRIES = 8
#: Suggestions in a row that are no valid recipes, before a lane waits until some trial ends.
_INVALID_TRIES = 64
#: Endings after which a lane's next training has to wait for a new process.
_DEADLY_REASONS = frozenset({"worker_died", "watchdog"})


@dataclass
class _Open:
    assignment: Assignment
    trial: optuna.Trial | None
    assigned_at: float
    heard_at: float
    alive_at: float
    cold: bool
    epochs_done: int = 0
    declared: bool = False
    promised_end: float = 0.0
    start_seconds: float = 0.0
    overdue: bool = False
    last: EpochReport | None = None
    slowness: list[float] = field(default_factory=list)
    verdict: Outcome | None = None
    reason: str = ""


class Policy:
    """Decides. Knows the study, the space, the ledger and a clock; knows no process, no Ray and no TensorFlow.

    Until some trial has run its course, every training has a time limit in which its schedule runs to its end: however
    small the budget, there is something to export.

    Args:
        study: its only writer is this policy.
        declared: recipes that are tried first, in order; each must be in the space.
        now: the ledger's clock.
    """

    def __init__(
        self,
        *,
        study: optuna.Study,
        space: Space,
        ledger: Ledger,
        pruning: Pruning,
        settings: PolicySettings,
        declared: Sequence[tuple[str, Recipe]],
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
            local_share=settings.local_share,
            declared=declared,
            costs=self.costs,
            objectives=settings.objectives,
        )
        self._open: dict[str, _Open] = {}
        self._ended: list[Ended] = []
        self._cut: list[OnItsWay] = []
        self._warm_lanes: set[str] = set()
        self._nothing_affordable = False
        self._tries = _AFFORDABLE_TRIES
        self._refits = RefitQueue(self._record, self.costs, settings)
        self.division = Division(ledger, self.costs, self._record, settings, self._on_their_way)
        #: Why nothing more should be started; None while all is well.
        self.abort_reason: str | None = None

    # -- what is asked -------------------------------------------------------------------------------------------------

    def best(self) -> Finished | None:
        """The best trial that ran its course."""
        return self._record.best

    def front(self) -> tuple[Finished, ...]:
        """Of the trials that ran their course those no other beats in all objectives; with one objective, the best."""
        return tuple(self._record.front())

    def running(self) -> tuple[Running, ...]:
        """The trainings in progress, oldest first."""
        return tuple(Running(one.assignment, one.last) for one in self._open.values())

    def ended(self) -> tuple[Ended, ...]:
        """The trials that ended in this session, in the order they did."""
        return tuple(self._ended)

    def next_assignment(self, lane: str) -> Assignment | None:
        """The lane's next training; None when nothing is to be started on it now. Cheap when asked again and again."""
        if self.abort_reason is not None:
            return None
        assignment = self._next_trial(lane) or self._next_refit(lane)
        self._ledger.enter(lane, "idle" if assignment is None else assignment.purpose)
        return assignment

    def on_epoch(self, name: str, report: EpochReport) -> bool:
        """Takes an epoch's report; False: stop this training."""
        running = self._open[name]
        recipe, now, first = running.assignment.recipe, self._now(), running.last is None
        self.costs.saw_epoch(recipe, report.stage, report.seconds, report.evaluation_seconds, first=first)
        if first:
            running.start_seconds = max(now - running.assigned_at - report.seconds, 0.0)
            if not running.overdue:
                # What was killed once did not start when it was assigned.
                self.costs.saw_start(running.start_seconds, cold=running.cold)
            self._warm_lanes.add(running.assignment.lane)
        predicted = self.costs.epoch_seconds(recipe, report.stage, first=first) or report.seconds
        running.slowness.append(report.seconds / max(predicted, 1e-9))
        running.heard_at, running.last, running.overdue = now, report, False
        if running.trial is None:
            return True
        # A worker that died may have to repeat the epoch it had reported last.
        if report.epoch > running.epochs_done:
            running.epochs_done = report.epoch
            self._record.report(running.trial, recipe, report.epoch, report.objective)
        if running.verdict is None:
            self._judge(running, report)
        return running.verdict is None

    def on_end(self, name: str, ending: Ending) -> None:
        """Takes a training's end; tells the study the right state and charges the lane."""
        running = self._open.pop(name)
        assignment = running.assignment
        self._ledger.enter(assignment.lane, "idle")
        finish_seconds = None
        if ending.kind == "finished" and running.last is not None:
            finish_seconds = self._now() - running.heard_at
            self.costs.saw_finish(assignment.recipe, finish_seconds)
        if ending.kind == "failed" and ending.reason in _DEADLY_REASONS:
            self._warm_lanes.discard(assignment.lane)
        if running.trial is None:
            self._record.refit_ended(name, ending.kind)
            return
        if running.last is not None:
            timing = self.costs.timing(
                assignment.recipe,
                start_seconds=running.start_seconds,
                cold=running.cold,
                finish_seconds=finish_seconds,
            )
            self._record.keep_timing(running.trial, timing)
        self._end_trial(running, ending)
        self._nothing_affordable = False
        if ending.kind == "failed" and ending.reason == "abort":
            self.abort_reason = ending.message

    def close(self) -> None:
        """After the last training: whatever is still open was cut by the budget."""
        for name in list(self._open):
            self.on_end(name, Ending("stopped"))
        while (asked := self._record.reopen()) is not None:
            reason = "the budget was spent before it could go on"
            self._tell_end(asked.trial, asked.recipe, "out_of_budget", reason, None, asked.epochs_done)

    # -- time ----------------------------------------------------------------------------------------------------------

    def seconds_until_deadline(self, assignment: Assignment) -> float:
        """Wall seconds after which a training must leave, finished or not."""
        search, declared = assignment.kind == "trial" and self._record.finished, self._open[assignment.name].declared
        ends_at = self.division.trials_end_at(declared=declared) if search else self.division.refits_end_at
        return max(self.division.seconds_until(ends_at), 0.0)

    @property
    def is_too_late(self) -> bool:
        """Whether all is spent, or there is something to export and less is left for trainings than starting workers costs."""
        left = self.division.seconds_until(self.division.refits_end_at)
        return left <= (self.costs.start_seconds(cold=True) if self._record.finished else 0.0)

    @property
    def trainings_end_at(self) -> float:
        """How much may be spent, in device-seconds, before whatever still trains must be gone: see ``Division``."""
        return self.division.trainings_end_at(max((one.promised_end for one in self._open.values()), default=0.0))

    def out_of_time(self) -> bool:
        """Whether even what is left for the end is being eaten up; everything must stop at once."""
        return self._ledger.spent_device_seconds > self.trainings_end_at

    def on_sign_of_life(self, name: str) -> None:
        """A training works, though its epoch is not over; an epoch may take longer than any silence is borne."""
        if name in self._open:
            self._open[name].alive_at = self._now()

    def overdue(self) -> list[str]:
        """Trainings not heard of for so long that they must be hanging; one that was restarted may be named again."""
        names = []
        for name, running in self._open.items():
            silence = self._now() - max(running.heard_at, running.alive_at)
            if silence <= self._settings.watchdog_seconds:
                continue
            if silence > allowed_silence_seconds(self.costs, running.assignment.recipe):
                running.overdue, running.alive_at = True, self._now()
                names.append(name)
        return names

    def was_overdue(self, name: str) -> bool:
        """Whether a training was named by ``overdue`` and has not been heard of since."""
        return name in self._open and self._open[name].overdue

    # -- trials --------------------------------------------------------------------------------------------------------

    def _overhead_seconds(self, recipe: Recipe, lane: str) -> float:
        """What a training takes beyond its time limit: start, last batch, the evaluation after it, finish; with a margin."""
        start = self.costs.start_seconds(cold=lane not in self._warm_lanes)
        evaluation, epoch = self.costs.evaluation_seconds(recipe), self.costs.epoch_seconds(recipe, 0) or 0.0
        return start + 1.3 * evaluation + 0.01 * epoch + self.costs.finish_seconds(recipe)

    def _search_seconds_left(self, *, declared: bool = False) -> float:
        """Wall seconds the search has left; while nothing has run its course, the refits' share is open to it too."""
        ends_at = self.division.trials_end_at(declared=True) if declared else self.division.search_ends_at
        left = self.division.seconds_until(ends_at)
        if not self._record.finished and left <= self.costs.start_seconds():
            left = self.division.seconds_until(self.division.refits_end_at)
        return left

    def _next_trial(self, lane: str) -> Assignment | None:
        while (asked := self._record.reopen()) is not None:
            left = self._search_seconds_left()
            if self._record.finished:
                left = self.division.seconds_until(self.division.trials_end_at(declared=asked.declared))
            assignment = self._try(asked, lane, left)
            if assignment is not None:
                return assignment
        most = self._settings.max_trials
        if self._nothing_affordable or (most is not None and self._record.started >= most):
            return None
        refused = invalid = 0
        while refused < self._tries and invalid < _INVALID_TRIES:
            left = self._search_seconds_left(declared=self._record.declares_next)
            if left <= self.costs.start_seconds():
                break
            new = self._record.ask()
            if new is None:
                invalid += 1
                continue
            assignment = self._try(new, lane, left)
            if assignment is not None:
                return assignment
            refused += 1
        # What is left only shrinks: until another trial's end teaches something, asking again would be asking in vain.
        self._nothing_affordable = True
        self._tries = max(self._tries // 2, 1)
        return None

    def _try(self, asked: Asked, lane: str, left: float) -> Assignment | None:
        """Assigns a trial that fits into ``left`` wall seconds, and tells the study of one that does not."""
        cold = lane not in self._warm_lanes
        needed = self.costs.trial_seconds(asked.recipe, cold=cold, epochs_done=asked.epochs_done)
        limit = None
        if left > 0 and (needed is None or not self._record.finished):
            limit = max(left - self._overhead_seconds(asked.recipe, lane), 1.0)
        elif needed is None or needed > left:
            reason = f"predicted {needed or 0.0:.0f} s, left {max(left, 0.0):.0f} s"
            self._tell_end(asked.trial, asked.recipe, "out_of_budget", reason, None, asked.epochs_done)
            return None
        self._record.begin(asked)
        assignment = Assignment(
            kind="trial",
            name=f"{asked.trial.number:05d}",
            lane=lane,
            recipe=asked.recipe,
            seed=self._settings.seed,
            fold=0,
            time_limit_seconds=limit,
            start_trial=None,
        )
        self._start(assignment, asked)
        return assignment

    def _start(self, assignment: Assignment, asked: Asked | None) -> None:
        now, cold = self._now(), assignment.lane not in self._warm_lanes
        running = self._open[assignment.name] = _Open(assignment, None, now, now, now, cold)
        if asked is None:
            running.promised_end = self.division.refits_end_at
        else:
            running.trial, running.epochs_done, running.declared = asked.trial, asked.epochs_done, asked.declared

    def _judge(self, running: _Open, report: EpochReport) -> None:
        """Decides whether a trial is pruned, cut, or goes on."""
        assert running.trial is not None
        recipe, limit = running.assignment.recipe, running.assignment.time_limit_seconds
        left = self.costs.remaining_seconds(recipe, report.epoch) or 0.0
        left *= statistics.median(running.slowness)
        squeezed = limit is not None and left > running.assigned_at + running.start_seconds + limit - self._now()
        if report.epoch >= recipe.total_epochs or squeezed:
            # What its time limit ends before its number of epochs does cannot be compared epoch by epoch, and comes to its
            # end in time anyway.
            return
        at_end = self._ledger.spent_device_seconds + left * self.division.pool_devices
        if self._record.should_prune(running.trial):
            running.verdict, running.reason = "pruned", f"rung_{report.epoch}"
        elif at_end > self.division.trials_end_at(declared=running.declared) and self._record.finished:
            running.verdict, running.reason = "out_of_budget", f"epoch {report.epoch} of {recipe.total_epochs}"

    def _end_trial(self, running: _Open, ending: Ending) -> None:
        assert running.trial is not None
        outcome: Outcome
        if ending.kind == "finished":
            outcome, reason = "complete", ""
        elif ending.kind == "failed":
            outcome, reason = "failed", ending.reason
        elif running.verdict is not None:
            outcome, reason = running.verdict, running.reason
        else:
            outcome, reason = "out_of_budget", "deadline"
        recipe = running.assignment.recipe
        if outcome == "out_of_budget" and running.declared and running.last is not None:
            self._cut.append(OnItsWay(running.trial.number, recipe, running.last))
        self._tell_end(running.trial, recipe, outcome, reason, ending, running.epochs_done, running.last)

    def _tell_end(
        self,
        trial: optuna.Trial,
        recipe: Recipe,
        outcome: Outcome,
        reason: str,
        ending: Ending | None,
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
            others=ending.others if ending is not None else (),
            message=ending.message if ending is not None else "",
            epochs_done=epochs_done,
            device_seconds=device_seconds,
        )
        if objective is None and last is not None:
            objective = last.objective
        self._ended.append(Ended(trial.number, recipe.backbone.label, outcome, reason, objective, device_seconds))

    # -- refits --------------------------------------------------------------------------------------------------------

    def _next_refit(self, lane: str) -> Assignment | None:
        """The next refit, as long as lets every lane's last one end when the refits' share does."""
        left = self.division.seconds_until(self.division.refits_end_at)
        if not self._record.finished or left <= self.costs.start_seconds():
            return None
        timed = self._refits.take(
            left, contenders(self._record, self._on_their_way()), lambda recipe: self._overhead_seconds(recipe, lane)
        )
        if timed is None:
            return None
        planned = timed.refit
        assignment = Assignment(
            kind="refit",
            name=planned.name,
            lane=lane,
            recipe=timed.recipe,
            seed=planned.seed,
            fold=planned.fold,
            time_limit_seconds=timed.seconds,
            start_trial=planned.trial if planned.fold == 0 else None,
            train_within_seconds=self.costs.start_seconds(cold=lane not in self._warm_lanes) + timed.seconds,
        )
        self._start(assignment, None)
        return assignment

    def _on_their_way(self) -> list[OnItsWay]:
        """The trials in progress that have reported an epoch and are not to be stopped, and declared recipes that were cut."""
        open_trials = [(one.trial, one) for one in self._open.values() if one.trial is not None and one.verdict is None]
        going = [OnItsWay(trial.number, one.assignment.recipe, one.last) for trial, one in open_trials if one.last]
        return self._cut + going
