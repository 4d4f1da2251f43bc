"""The policy: which training next, whether it goes on, what its end means. Plain Python, driven by an executor."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import TrialState

from bloodauto.errors import RecipeError
from bloodauto.recipe import Recipe
from bloodauto.searching.costs import CostModel
from bloodauto.searching.ledger import Ledger
from bloodauto.searching.pruning import Pruning
from bloodauto.searching.refits import Finished, PlannedRefit, plan_refits
from bloodauto.space import Space, parameters_of, realise, sample
from bloodauto.trial.backbones import check_recipe
from bloodauto.trial.checkpoint import EpochReport

Outcome = Literal["complete", "pruned", "failed", "out_of_budget"]

#: A suggestion nobody can afford is told to the study and another one asked for, this many times.
_AFFORDABLE_TRIES = 8
_UNKNOWN_EPOCH_SECONDS = 300.0
_OVERDUE_FACTOR = 4.0
#: A refit gets at least this many times what its trial took.
_REFIT_OVER_TRIAL = 1.5


@dataclass(frozen=True)
class PolicySettings:
    """What the policy is told.

    Attributes:
        seed: of suggestions and trainings.
        workers: trainings that run together.
        devices_per_worker: devices each of them reserves.
        refit_share: share of the budget kept for refits, 0-1.
        final_device_seconds: kept for ensemble, export and the sealed test.
        num_folds: folds of the splits.
        max_refits: most refits of all.
        max_trials: most trials; None: as many as the budget affords.
        startup_trials: suggestions drawn at random before the sampler models anything.
        watchdog_seconds: a training is never called hanging before so many seconds of silence.
    """

    seed: int
    workers: int
    devices_per_worker: float
    refit_share: float
    final_device_seconds: float
    num_folds: int
    max_refits: int = 10
    max_trials: int | None = None
    startup_trials: int = 6
    watchdog_seconds: float = 120.0


@dataclass(frozen=True)
class Assignment:
    """A training for one worker.

    Attributes:
        kind: a trial of the search, or a refit for the ensemble.
        name: unique in the run; ``00017`` for trial 17, a refit's own name otherwise.
        lane: the ledger's lane it is charged to.
        time_limit_seconds: for the training itself; None: as long as the recipe takes.
        start_trial: go on from this trial's weights; None: from the recipe's own.
    """

    kind: Literal["trial", "refit"]
    name: str
    lane: str
    recipe: Recipe
    seed: int
    fold: int
    time_limit_seconds: float | None
    start_trial: int | None

    @property
    def purpose(self) -> str:
        return f"{self.kind} {int(self.name) if self.kind == 'trial' else self.name}"


@dataclass(frozen=True)
class Ending:
    """How a training ended, as its worker or the executor saw it.

    Attributes:
        kind: ``finished`` its course, was ``stopped`` when asked to, or ``failed``.
        objective: on all validation images; None unless finished.
        reason: of a failure, a word; message: a sentence.
    """

    kind: Literal["finished", "stopped", "failed"]
    objective: float | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Ended:
    """A trial that is over, for display; ``objective`` is its last value, None when there was none."""

    number: int
    backbone: str
    outcome: Outcome
    reason: str
    objective: float | None
    device_seconds: float


@dataclass(frozen=True)
class Running:
    """One training in progress, for display."""

    assignment: Assignment
    last: EpochReport | None


@dataclass
class _Open:
    assignment: Assignment
    trial: optuna.Trial | None
    assigned_at: float
    heard_at: float
    overdue: bool = False
    last: EpochReport | None = None
    verdict: Outcome | None = None
    reason: str = ""


class Policy:
    """Decides. Knows the study, the space, the ledger and a clock; knows no process, no Ray and no TensorFlow.

    The budget is cut in three: the search, the refits, and the end (ensemble, export, sealed test). All reserved lanes are
    charged by the second, so a training of s seconds is affordable when the whole pool's next s seconds still fit.

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
        self._study, self._space, self._ledger, self._settings, self._now = study, space, ledger, settings, now
        study.pruner = pruning.build()
        self.costs = CostModel()
        self._open: dict[str, _Open] = {}
        self._ended: list[Ended] = []
        self._again: deque[int] = deque()
        self._refit_queue: deque[PlannedRefit] | None = None
        self._abort: str | None = None
        self._declared = deque(declared)
        self._reconcile()

    # -- what is asked -------------------------------------------------------------------------------------------------

    @property
    def abort_reason(self) -> str | None:
        """Why nothing more should be started; None while all is well."""
        return self._abort

    @property
    def pool_devices(self) -> float:
        return self._settings.workers * self._settings.devices_per_worker

    @property
    def search_ends_at(self) -> float:
        """Device-seconds at which the refits begin."""
        return self._refits_end_at * (1 - self._settings.refit_share)

    @property
    def _refits_end_at(self) -> float:
        return max(self._ledger.budget_device_seconds - self._settings.final_device_seconds, 0.0)

    def best(self) -> Finished | None:
        """The best trial that ran its course."""
        finished = self.finished()
        return max(finished, key=lambda trial: (trial.objective, -trial.number)) if finished else None

    def running(self) -> tuple[Running, ...]:
        """The trainings in progress, oldest first."""
        return tuple(Running(one.assignment, one.last) for one in self._open.values())

    def ended(self) -> tuple[Ended, ...]:
        """The trials that ended in this session, in the order they did."""
        return tuple(self._ended)

    def finished(self) -> list[Finished]:
        """The trials that ran their course."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [
            Finished(trial.number, realise(self._space, trial.params), float(trial.value))
            for trial in trials
            if trial.value is not None
        ]

    def next_assignment(self, lane: str) -> Assignment | None:
        """The lane's next training; None when nothing more is to be started on it."""
        if self._abort is not None:
            return None
        assignment = self._next_trial(lane) or self._next_refit(lane)
        if assignment is not None:
            self._ledger.enter(lane, assignment.purpose)
        else:
            self._ledger.enter(lane, "idle")
        return assignment

    def on_epoch(self, name: str, report: EpochReport) -> bool:
        """Takes an epoch's report; False: stop this training."""
        running = self._open[name]
        recipe = running.assignment.recipe
        first = running.heard_at == running.assigned_at
        running.heard_at = self._now()
        running.last = report
        self.costs.saw_epoch(recipe, report.stage, report.seconds, report.evaluation_seconds)
        if first:
            self.costs.saw_start(max(running.heard_at - running.assigned_at - report.seconds, 0.0))
        if running.trial is None:
            return True
        running.trial.report(report.objective, report.epoch)
        if running.verdict is not None:
            return False
        last = report.epoch >= recipe.total_epochs
        if not last and running.trial.should_prune():
            running.verdict, running.reason = "pruned", f"rung_{report.epoch}"
        elif not last and not self._may_go_on(recipe, report):
            running.verdict, running.reason = "out_of_budget", f"epoch {report.epoch} of {recipe.total_epochs}"
        return running.verdict is None

    def on_end(self, name: str, ending: Ending) -> None:
        """Takes a training's end; tells the study the right state and charges the lane."""
        running = self._open.pop(name)
        self._ledger.enter(running.assignment.lane, "idle")
        if running.trial is None:
            self._study.set_user_attr(f"refit {name}", ending.kind)
            return
        outcome: Outcome
        if ending.kind == "finished":
            outcome, reason = "complete", ""
        elif ending.kind == "failed":
            outcome, reason = "failed", ending.reason
        else:
            outcome = running.verdict if running.verdict is not None else "out_of_budget"
            reason = running.reason
        self._tell(running.trial, outcome, reason, ending)
        last = running.last.objective if running.last is not None else None
        self._ended.append(
            Ended(
                number=running.trial.number,
                backbone=running.assignment.recipe.backbone.name,
                outcome=outcome,
                reason=reason,
                objective=ending.objective if ending.objective is not None else last,
                device_seconds=self._ledger.charged_for(running.assignment.purpose),
            )
        )
        if ending.kind == "failed" and ending.reason == "abort":
            self._abort = ending.message

    def close(self) -> None:
        """After the last training: whatever is still open was cut by the budget."""
        for name in list(self._open):
            self.on_end(name, Ending("stopped"))

    # -- time ----------------------------------------------------------------------------------------------------------

    def seconds_until_deadline(self, assignment: Assignment) -> float:
        """Wall seconds after which a training must leave, finished or not."""
        end = self._refits_end_at if assignment.kind == "refit" else self.search_ends_at + self._overdraft
        return max((end - self._ledger.spent_device_seconds) / self.pool_devices, 0.0)

    def out_of_time(self) -> bool:
        """Whether even what is left for the end is being eaten up; everything must stop at once."""
        return self._ledger.spent_device_seconds > self._refits_end_at + 0.3 * self._settings.final_device_seconds

    def overdue(self) -> list[str]:
        """Trainings not heard of for so long that they must be hanging; each is named once."""
        names = []
        for name, running in self._open.items():
            epoch = self.costs.epoch_seconds(running.assignment.recipe, len(running.assignment.recipe.stages) - 1)
            expected = _UNKNOWN_EPOCH_SECONDS if epoch is None else self.costs.start_seconds + epoch
            allowed = max(_OVERDUE_FACTOR * expected, self._settings.watchdog_seconds)
            if not running.overdue and self._now() - running.heard_at > allowed:
                running.overdue = True
                names.append(name)
        return names

    def was_overdue(self, name: str) -> bool:
        """Whether a training was named by ``overdue``."""
        return name in self._open and self._open[name].overdue

    @property
    def _overdraft(self) -> float:
        """How far running trials may reach into the refits' share, in device-seconds."""
        return 0.1 * (self._refits_end_at - self.search_ends_at)

    # -- trials --------------------------------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Open trials of an earlier session go on, from their checkpoints where they have one."""
        tried = set()
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:
                self._again.append(trial.number)
            tried.add(trial.user_attrs.get("recipe_id"))
        self._declared = deque((name, recipe) for name, recipe in self._declared if recipe.id not in tried)

    def _searching(self) -> bool:
        limit = self._settings.max_trials
        started = len(self._study.get_trials(deepcopy=False))
        return self._ledger.spent_device_seconds < self.search_ends_at and (limit is None or started < limit)

    def _affordable_seconds(self) -> float:
        """Wall seconds until the search's share is spent, if the whole pool stays reserved."""
        return (self.search_ends_at - self._ledger.spent_device_seconds) / self.pool_devices

    def _next_trial(self, lane: str) -> Assignment | None:
        if self._again:
            number = self._again.popleft()
            frozen = self._study.get_trials(deepcopy=False)[number]
            return self._assign(optuna.Trial(self._study, frozen._trial_id), realise(self._space, frozen.params), lane)
        if not self._searching():
            return None
        nothing_yet = not self._study.get_trials(deepcopy=False)
        for _ in range(_AFFORDABLE_TRIES):
            asked = self._ask()
            if asked is None:
                continue
            trial, recipe = asked
            seconds = self.costs.trial_seconds(recipe)
            affordable = self._affordable_seconds()
            if seconds is None or seconds <= affordable:
                # The first trainings of a run are timed by nobody; a limit keeps even them inside the search's share.
                limit = None
                if seconds is None:
                    limit = max(affordable - self.costs.start_seconds, 1.0)
                return self._assign(trial, recipe, lane, time_limit_seconds=limit)
            self._tell(trial, "out_of_budget", f"predicted {seconds:.0f} s, left {affordable:.0f} s", None)
            if nothing_yet:
                break
        return None

    def _ask(self) -> tuple[optuna.Trial, Recipe] | None:
        """A declared recipe, or a suggestion; None when the suggestion was no valid recipe."""
        number = len(self._study.get_trials(deepcopy=False))
        origin = "sampled"
        if self._declared:
            name, recipe = self._declared.popleft()
            self._study.enqueue_trial(parameters_of(self._space, recipe))
            origin = f"declared: {name}"
        # A sampler made anew from seed and number needs no state on disk: a resumed search suggests what it would have.
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self._settings.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=self._settings.seed * 1_000_003 + number,
        )
        trial = self._study.ask()
        trial.set_user_attr("origin", origin)
        try:
            recipe = sample(self._space, trial)
            check_recipe(recipe)
        except RecipeError as error:
            self._tell(trial, "failed", "rejected", Ending("failed", None, "rejected", str(error)))
            return None
        trial.set_user_attr("recipe_id", recipe.id)
        return trial, recipe

    def _assign(
        self, trial: optuna.Trial, recipe: Recipe, lane: str, *, time_limit_seconds: float | None = None
    ) -> Assignment:
        assignment = Assignment(
            kind="trial",
            name=f"{trial.number:05d}",
            lane=lane,
            recipe=recipe,
            seed=self._settings.seed,
            fold=0,
            time_limit_seconds=time_limit_seconds,
            start_trial=None,
        )
        self._open[assignment.name] = _Open(assignment, trial, self._now(), self._now())
        return assignment

    def _may_go_on(self, recipe: Recipe, report: EpochReport) -> bool:
        """Whether what is left of a trial still fits, at the price of at most a tenth of the refits' share."""
        left = recipe.total_epochs - report.epoch
        at_end = self._ledger.spent_device_seconds + left * report.seconds * self.pool_devices
        return at_end <= self.search_ends_at + self._overdraft or not self.finished()

    def _tell(self, trial: optuna.Trial, outcome: Outcome, reason: str, ending: Ending | None) -> None:
        value = ending.objective if ending is not None and outcome == "complete" else None
        if outcome == "complete" and (value is None or not math.isfinite(value)):
            outcome, reason = "failed", "nan"
        trial.set_user_attr("outcome", outcome)
        trial.set_user_attr("reason", reason)
        if ending is not None and ending.message:
            trial.set_user_attr("message", ending.message[:1000])
        trial.set_user_attr("device_seconds", round(self._ledger.charged_for(f"trial {trial.number}"), 3))
        if outcome == "complete":
            self._study.tell(trial.number, value)
            return
        # Without any epoch reported there is nothing a sampler could learn from it.
        reported = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        state = TrialState.FAIL if outcome == "failed" or not reported else TrialState.PRUNED
        self._study.tell(trial.number, state=state)

    # -- refits --------------------------------------------------------------------------------------------------------

    def _refit_seconds_left(self) -> float:
        return (self._refits_end_at - self._ledger.spent_device_seconds) / self.pool_devices

    def _planned_refits(self) -> deque[PlannedRefit]:
        """The refits still to be done; planned once, and kept in the study for a resume."""
        attributes = self._study.user_attrs
        if "refit_plan" not in attributes:
            planned = self._plan_refits()
            if planned:
                self._study.set_user_attr("refit_plan", [[one.name, one.trial, one.fold, one.seed] for one in planned])
            return planned
        trials = self._study.get_trials(deepcopy=False)
        return deque(
            PlannedRefit(name, trial, realise(self._space, trials[trial].params), fold, seed)
            for name, trial, fold, seed in attributes["refit_plan"]
            if f"refit {name}" not in attributes
        )

    def _plan_refits(self) -> deque[PlannedRefit]:
        finished = self.finished()
        if not finished:
            return deque()
        best = max(finished, key=lambda trial: trial.objective)
        one = (self.costs.trial_seconds(best.recipe) or self.costs.start_seconds) * _REFIT_OVER_TRIAL
        waves = max(int(self._refit_seconds_left() // one), 1)
        count = min(waves * self._settings.workers, self._settings.max_refits)
        return deque(plan_refits(finished, count=count, num_folds=self._settings.num_folds, seed=self._settings.seed))

    def _next_refit(self, lane: str) -> Assignment | None:
        if any(running.trial is not None for running in self._open.values()) and not self.finished():
            return None
        if self._refit_queue is None:
            self._refit_queue = self._planned_refits()
        if not self._refit_queue:
            return None
        waves_left = math.ceil(len(self._refit_queue) / self._settings.workers)
        planned = self._refit_queue[0]
        overhead = self.costs.start_seconds + self.costs.finish_seconds(planned.recipe)
        seconds = self._refit_seconds_left() / waves_left - overhead
        if seconds < (self.costs.epoch_seconds(planned.recipe, 0) or 1.0):
            return None
        self._refit_queue.popleft()
        assignment = Assignment(
            kind="refit",
            name=planned.name,
            lane=lane,
            recipe=_stretched(planned.recipe),
            seed=planned.seed,
            fold=planned.fold,
            time_limit_seconds=seconds,
            start_trial=planned.trial if planned.fold == 0 else None,
        )
        self._open[assignment.name] = _Open(assignment, None, self._now(), self._now())
        return assignment


def _stretched(recipe: Recipe) -> Recipe:
    """The same recipe with so many epochs that time, not their number, ends it; stages keep their proportions."""
    stages = tuple(
        stage.model_copy(update={"epochs": min(stage.epochs * 8, 1000), "patience_epochs": None})
        for stage in recipe.stages
    )
    return recipe.model_copy(update={"stages": stages})
