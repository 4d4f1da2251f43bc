"""The study as the policy sees it: suggestions come out of it, states and what was learned go in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import optuna
from optuna.trial import TrialState

from bloodauto.errors import RecipeError
from bloodauto.recipe import Recipe
from bloodauto.searching.assignment import Outcome
from bloodauto.searching.costs import CostModel, Timing
from bloodauto.searching.pruning import Pruning
from bloodauto.searching.refits import Finished, PlannedRefit
from bloodauto.space import Space, parameters_of, realise, sample
from bloodauto.trial.backbones import check_recipe


@dataclass(frozen=True)
class Asked:
    """A trial to be trained; ``epochs_done``: of an earlier session."""

    trial: optuna.Trial
    recipe: Recipe
    epochs_done: int


class StudyRecord:
    """The only reader and writer of a search's study.

    The study is read in full once; afterwards what is asked often is kept in memory, so that a decision costs no more
    with thousands of trials than with ten, but for the sampler's own work.

    Args:
        declared: recipes that are tried first, in order; each must be in the space.
        costs: learns from what earlier sessions measured.

    Attributes:
        finished: the trials that ran their course; ``best``: of them.
        started: how many trials were ever trained.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        pruning: Pruning,
        *,
        seed: int,
        startup_trials: int,
        declared: Sequence[tuple[str, Recipe]],
        costs: CostModel,
    ) -> None:
        self._study, self._space, self._seed, self._startup_trials = study, space, seed, startup_trials
        study.pruner = pruning.build()
        self.finished: list[Finished] = []
        self.best: Finished | None = None
        self.started = 0
        self._reopened: deque[optuna.trial.FrozenTrial] = deque()
        trials = study.get_trials(deepcopy=False)
        self._count = len(trials)
        tried = set()
        for trial in trials:
            attributes = trial.user_attrs
            tried.add(attributes.get("recipe_id"))
            self.started += "started" in attributes
            if trial.state == TrialState.RUNNING:
                self._reopened.append(trial)
            elif trial.state == TrialState.COMPLETE and trial.value is not None:
                self._finish(Finished(trial.number, realise(space, trial.params), float(trial.value)))
            if "timing" in attributes:
                costs.restore(realise(space, trial.params), Timing(**attributes["timing"]))
        self._declared = deque((name, recipe) for name, recipe in declared if recipe.id not in tried)

    # -- out -----------------------------------------------------------------------------------------------------------

    def reopen(self) -> Asked | None:
        """The next trial that an earlier session left open."""
        while self._reopened:
            frozen = self._reopened.popleft()
            # The public constructor takes the storage's own id of a trial, which only this attribute tells.
            trial = optuna.Trial(self._study_for(frozen.number), frozen._trial_id)
            asked = self._realised(trial, epochs_done=max(frozen.intermediate_values, default=0))
            if asked is not None:
                return asked
        return None

    def ask(self) -> Asked | None:
        """A declared recipe, or a suggestion; None when the suggestion was no valid recipe."""
        if self._declared:
            name, recipe = self._declared.popleft()
            # Left waiting by a kill right after this line, it is not put in the queue a second time.
            self._study.enqueue_trial(
                parameters_of(self._space, recipe), user_attrs={"origin": f"declared: {name}"}, skip_if_exists=True
            )
        trial = self._study_for(self._count).ask()
        self._count = max(self._count, trial.number + 1)
        return self._realised(trial, epochs_done=0)

    def _study_for(self, number: int) -> optuna.Study:
        # A sampler made anew from seed and number needs no state on disk: a resumed search suggests what it would have.
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self._startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=self._seed * 1_000_003 + number,
        )
        return self._study

    def _realised(self, trial: optuna.Trial, *, epochs_done: int) -> Asked | None:
        if "origin" not in trial.user_attrs:
            trial.set_user_attr("origin", "sampled")
        try:
            recipe = sample(self._space, trial)
            check_recipe(recipe)
        except RecipeError as error:
            self.tell(trial, "failed", "rejected", message=str(error))
            return None
        trial.set_user_attr("recipe_id", recipe.id)
        return Asked(trial, recipe, epochs_done)

    # -- in ------------------------------------------------------------------------------------------------------------

    def begin(self, asked: Asked) -> None:
        """Notes that a trial is being trained."""
        if "started" not in asked.trial.user_attrs:
            asked.trial.set_user_attr("started", True)
            self.started += 1

    def _finish(self, finished: Finished) -> None:
        self.finished.append(finished)
        if self.best is None or (finished.objective, -finished.number) > (self.best.objective, -self.best.number):
            self.best = finished

    def keep_timing(self, trial: optuna.Trial, timing: Timing) -> None:
        """Notes what a trial took."""
        trial.set_user_attr("timing", asdict(timing))

    def tell(
        self,
        trial: optuna.Trial,
        outcome: Outcome,
        reason: str,
        *,
        recipe: Recipe | None = None,
        objective: float | None = None,
        message: str = "",
        epochs_done: int = 0,
        device_seconds: float = 0.0,
    ) -> tuple[Outcome, str]:
        """Notes a trial's end and returns outcome and reason as noted: complete without a finite objective is a failure."""
        if outcome == "complete" and (objective is None or not math.isfinite(objective)):
            outcome, reason = "failed", "nan"
        trial.set_user_attr("outcome", outcome)
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("device_seconds", round(device_seconds, 3))
        if message:
            trial.set_user_attr("message", message[:1000])
        if outcome == "complete":
            assert recipe is not None
            assert objective is not None
            self._study.tell(trial.number, objective)
            self._finish(Finished(trial.number, recipe, objective))
        elif outcome == "failed" or epochs_done == 0:
            # Without any epoch reported there is nothing a sampler could learn from it.
            self._study.tell(trial.number, state=TrialState.FAIL)
        else:
            self._study.tell(trial.number, state=TrialState.PRUNED)
        return outcome, reason

    def curve(self, number: int) -> Mapping[int, float]:
        """A trial's objective after each epoch."""
        return self._study.get_trials(deepcopy=False)[number].intermediate_values

    def refits_to_do(self) -> deque[PlannedRefit] | None:
        """Of the refits planned in an earlier session those that did not end; None when none were planned."""
        attributes = self._study.user_attrs
        if "refit_plan" not in attributes:
            return None
        trials = self._study.get_trials(deepcopy=False)
        return deque(
            PlannedRefit(name, trial, realise(self._space, trials[trial].params), fold, seed)
            for name, trial, fold, seed in attributes["refit_plan"]
            if f"refit {name}" not in attributes
        )

    def keep_refit_plan(self, planned: Sequence[PlannedRefit]) -> None:
        """Notes which refits there will be."""
        self._study.set_user_attr("refit_plan", [[one.name, one.trial, one.fold, one.seed] for one in planned])

    def refit_ended(self, name: str, kind: str) -> None:
        """Notes a refit's end."""
        self._study.set_user_attr(f"refit {name}", kind)
