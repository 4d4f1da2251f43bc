"""The study as the policy sees it: suggestions come out of it, states and what was learned go in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import optuna
from optuna.trial import TrialState

from bloodauto.config.objectives import COSTS, Objectives
from bloodauto.config.recipe import Recipe
from bloodauto.config.space import Space, local_perturbation, parameters_of, recipe_from_parameters, sample
from bloodauto.errors import RecipeError
from bloodauto.models.backbones import check_recipe, num_parameters
from bloodauto.tuning.budget.cost_model import CostModel, Timing
from bloodauto.tuning.messages import Outcome
from bloodauto.tuning.pruning import Pruning
from bloodauto.tuning.refits import OTHER_BACKBONE_SCORE_TOLERANCE, CompletedTrial, PlannedRefit

#: Where a trial of several objectives keeps the leading one after each epoch: [[epoch, value], ...].
CURVE = "curve"


@dataclass(frozen=True)
class CandidateTrial:
    """A trial to be trained; ``epochs_done``: of an earlier session; ``declared``: no suggestion."""

    trial: optuna.Trial
    recipe: Recipe
    epochs_done: int
    initial: bool


#: A neighbour may be no valid recipe, or one that was tried; then another is drawn, this many times.
_PERTURBATION_TRIES = 16
#: How the origin of a initial configuration's trial begins.
_INITIAL_PREFIX = "initial: "


class StudyRecord:
    """The only reader and writer of a search's study.

    Some of the suggestions are the sampler's, some lie near the incumbent, as PriorBand (Mallik et al.,
    arXiv:2306.12370) mixes them: a few dozen trials, all a small budget has, are too few for a sampler to find what people
    put into the initial configurations, and enough to improve on them step by step.

    The study is read in full once; afterwards what is asked often is kept in memory, so that a decision costs no more
    with thousands of trials than with ten, but for the sampler's own work.

    Args:
        initial: recipes that are tried first, in order; each must be in the space.
        costs: learns from what earlier sessions measured.
        objectives: as many as the study has directions.

    Attributes:
        finished: the completed trials; ``best``: of them.
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
        local_perturbation_fraction: float,
        initial: Sequence[tuple[str, Recipe]],
        costs: CostModel,
        objectives: Objectives,
    ) -> None:
        self._pruning, self._costs, self._objectives = pruning, costs, objectives
        self._is_multi_objective = len(objectives.names) > 1
        self._curves: dict[int, dict[int, float]] = {}
        self._recipes: dict[int, Recipe] = {}
        self._study, self._space, self._seed = study, space, seed
        self._startup_trials, self._local_perturbation_fraction = startup_trials, local_perturbation_fraction
        study.pruner = pruning.build()
        self.completed: list[CompletedTrial] = []
        self.incumbent: CompletedTrial | None = None
        self.started = 0
        self._open_trials: deque[optuna.trial.FrozenTrial] = deque()
        trials = study.get_trials(deepcopy=False)
        self._count = len(trials)
        self._tried_recipe_ids: set[str] = set()
        for trial in trials:
            attributes = trial.user_attrs
            self._tried_recipe_ids.add(attributes.get("recipe_id", ""))
            self.started += "started" in attributes
            if trial.state == TrialState.RUNNING:
                self._open_trials.append(trial)
            elif trial.state == TrialState.COMPLETE and trial.values is not None:
                first, *secondary = trial.values
                self._add_completed(
                    CompletedTrial(trial.number, recipe_from_parameters(space, trial.params), first, tuple(secondary))
                )
            if CURVE in attributes:
                self._curves[trial.number] = {int(epoch): value for epoch, value in attributes[CURVE]}
                self._recipes[trial.number] = recipe_from_parameters(space, trial.params)
            if "timing" in attributes:
                costs.restore(recipe_from_parameters(space, trial.params), Timing(**attributes["timing"]))
        self._initial = deque((name, recipe) for name, recipe in initial if recipe.id not in self._tried_recipe_ids)

    # -- out -----------------------------------------------------------------------------------------------------------

    def next_open_trial(self) -> CandidateTrial | None:
        """The next trial that an earlier session left open."""
        while self._open_trials:
            frozen = self._open_trials.popleft()
            # The public constructor takes the storage's own id of a trial, which only this attribute tells.
            trial = optuna.Trial(self._study_with_sampler(frozen.number), frozen._trial_id)
            candidate = self._to_candidate(trial, epochs_done=max(self.curve(frozen.number), default=0))
            if candidate is not None:
                return candidate
        return None

    @property
    def next_is_initial(self) -> bool:
        """Whether ``ask`` will give a initial configuration."""
        return bool(self._initial)

    def ask(self) -> CandidateTrial | None:
        """A initial configuration, or a suggestion; None when the suggestion was no valid recipe."""
        if self._initial:
            name, recipe = self._initial.popleft()
            # Left waiting by a kill right after this line, it is not put in the queue a second time.
            self._study.enqueue_trial(
                parameters_of(self._space, recipe),
                user_attrs={"origin": f"{_INITIAL_PREFIX}{name}"},
                skip_if_exists=True,
            )
        elif self.completed:
            self._enqueue_perturbation()
        trial = self._study_with_sampler(self._count).ask()
        self._count = max(self._count, trial.number + 1)
        return self._to_candidate(trial, epochs_done=0)

    def _enqueue_perturbation(self) -> None:
        """Puts, in its share of the cases, a recipe near one of the front's in the queue."""
        rng = np.random.default_rng([self._seed, self._count])
        if rng.random() >= self._local_perturbation_fraction:
            return
        pareto_front = self.pareto_front()
        parent = pareto_front[int(rng.integers(len(pareto_front)))]
        values = self._study.get_trials(deepcopy=False)[parent.number].params
        for _ in range(_PERTURBATION_TRIES):
            try:
                recipe, parameters = local_perturbation(self._space, values, rng)
                check_recipe(recipe)
            except RecipeError:
                continue
            if recipe.id not in self._tried_recipe_ids:
                self._study.enqueue_trial(
                    parameters, user_attrs={"origin": f"perturbed from trial {parent.number}"}, skip_if_exists=True
                )
                return

    def _study_with_sampler(self, number: int) -> optuna.Study:
        # A sampler made anew from seed and number needs no state on disk: a resumed search suggests what it would have.
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self._startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=self._seed * 1_000_003 + number,
        )
        return self._study

    def _to_candidate(self, trial: optuna.Trial, *, epochs_done: int) -> CandidateTrial | None:
        if "origin" not in trial.user_attrs:
            trial.set_user_attr("origin", "sampled")
        try:
            recipe = sample(self._space, trial)
            check_recipe(recipe)
        except RecipeError as error:
            self.tell(trial, "failed", "rejected", message=str(error))
            return None
        trial.set_user_attr("recipe_id", recipe.id)
        trial.set_user_attr("backbone", recipe.backbone.label)
        self._tried_recipe_ids.add(recipe.id)
        return CandidateTrial(trial, recipe, epochs_done, trial.user_attrs["origin"].startswith(_INITIAL_PREFIX))

    # -- in ------------------------------------------------------------------------------------------------------------

    def mark_started(self, candidate: CandidateTrial) -> None:
        """Notes that a trial is being trained."""
        if "started" not in candidate.trial.user_attrs:
            candidate.trial.set_user_attr("started", True)
            self.started += 1

    def pareto_front(self) -> list[CompletedTrial]:
        """Of the completed trials those no other dominates; with one objective, the best."""
        if not self._is_multi_objective:
            return [] if self.incumbent is None else [self.incumbent]
        return self._objectives.pareto_front(self.completed, lambda trial: (trial.objective, *trial.secondary))

    def refit_eligible_trials(self) -> list[CompletedTrial]:
        """The trials refits may repeat: with several objectives, those of the front."""
        return self.pareto_front() if self._is_multi_objective else list(self.completed)

    def report(self, trial: optuna.Trial, recipe: Recipe, epoch: int, value: float) -> None:
        """Notes the primary objective after an epoch."""
        if not self._is_multi_objective:
            trial.report(value, epoch)
            return
        curve = self._curves.setdefault(trial.number, {})
        self._recipes[trial.number] = recipe
        curve[epoch] = value
        # Optuna keeps no intermediate values for several objectives, and its sampler stumbles over them.
        trial.set_user_attr(CURVE, sorted(curve.items()))

    def should_prune(self, trial: optuna.Trial) -> bool:
        """Whether the pruner stops a trial at the epoch it reported last.

        A initial configuration that is the best of its backbone goes on in spite of it while it is not far behind: refits want
        several backbones, and after an epoch the order of what lies near is noise.

        With several objectives a trial competes only with those that cost no more: a light network need not be as good
        as a heavy one to be worth its place on the front.
        """
        if not self._is_multi_objective:
            return trial.should_prune() and not self._is_exempt_from_pruning(trial)
        curve, recipe = self._curves[trial.number], self._recipes[trial.number]
        epoch = max(curve)
        competitors = [
            other[epoch]
            for number, other in self._curves.items()
            if number != trial.number and epoch in other and self._costs_no_more(self._recipes[number], recipe)
        ]
        return self._pruning.should_prune(epoch, curve[epoch], competitors)

    def _is_exempt_from_pruning(self, trial: optuna.Trial) -> bool:
        if not trial.user_attrs["origin"].startswith(_INITIAL_PREFIX):
            return False
        trials = self._study.get_trials(deepcopy=False)
        own = trials[trial.number].intermediate_values
        epoch = max(own)
        competitors = [one for one in trials if one.number != trial.number and epoch in one.intermediate_values]
        if any(
            one.user_attrs["backbone"] == trial.user_attrs["backbone"] and one.intermediate_values[epoch] > own[epoch]
            for one in competitors
        ):
            return False
        incumbent = max((one.intermediate_values[epoch] for one in competitors), default=own[epoch])
        return own[epoch] >= incumbent - OTHER_BACKBONE_SCORE_TOLERANCE

    def _costs_no_more(self, recipe: Recipe, other: Recipe) -> bool:
        predicted: dict[str, Callable[[Recipe], float]] = {
            "parameters": lambda one: num_parameters(one.backbone),
            "latency": self._costs.evaluation_seconds,
        }
        return all(
            predicted[name](recipe) <= predicted[name](other) for name in self._objectives.secondary if name in COSTS
        )

    def _add_completed(self, completed: CompletedTrial) -> None:
        self.completed.append(completed)
        if self.incumbent is None or (completed.objective, -completed.number) > (
            self.incumbent.objective,
            -self.incumbent.number,
        ):
            self.incumbent = completed

    def save_timing(self, trial: optuna.Trial, timing: Timing) -> None:
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
        secondary: tuple[float, ...] = (),
        message: str = "",
        epochs_done: int = 0,
        device_seconds: float = 0.0,
    ) -> tuple[Outcome, str]:
        """Notes a trial's end and returns outcome and reason as noted: complete without a finite objective is a failure."""
        complete = objective is not None and all(math.isfinite(value) for value in (objective, *secondary))
        if outcome == "complete" and not complete:
            outcome, reason = "failed", "nan"
        trial.set_user_attr("outcome", outcome)
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("device_seconds", round(device_seconds, 3))
        if message:
            trial.set_user_attr("message", message[:1000])
        if outcome == "complete":
            assert recipe is not None
            assert objective is not None
            self._study.tell(trial.number, [objective, *secondary])
            self._add_completed(CompletedTrial(trial.number, recipe, objective, secondary))
        elif outcome == "failed" or epochs_done == 0:
            # Without any epoch reported there is nothing a sampler could learn from it.
            self._study.tell(trial.number, state=TrialState.FAIL)
        else:
            self._study.tell(trial.number, state=TrialState.PRUNED)
        return outcome, reason

    def curve(self, number: int) -> Mapping[int, float]:
        """A trial's objective after each epoch."""
        if self._is_multi_objective:
            return self._curves.get(number, {})
        return self._study.get_trials(deepcopy=False)[number].intermediate_values

    def pending_refits(self) -> deque[PlannedRefit] | None:
        """Of the refits planned in an earlier session those that did not end; None when none were planned."""
        attributes = self._study.user_attrs
        if "refit_plan" not in attributes:
            return None
        trials = self._study.get_trials(deepcopy=False)
        return deque(
            PlannedRefit(name, trial, recipe_from_parameters(self._space, trials[trial].params), fold, seed)
            for name, trial, fold, seed in attributes["refit_plan"]
            if f"refit {name}" not in attributes
        )

    def save_refit_plan(self, planned: Sequence[PlannedRefit]) -> None:
        """Notes which refits there will be."""
        self._study.set_user_attr("refit_plan", [[one.name, one.trial, one.fold, one.seed] for one in planned])

    def record_refit_end(self, name: str, kind: str) -> None:
        """Notes a refit's end."""
        self._study.set_user_attr(f"refit {name}", kind)
