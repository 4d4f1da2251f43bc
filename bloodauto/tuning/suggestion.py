"""Which recipe a search tries next: initial configurations, then suggestions by TPE or near the incumbent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import optuna
from optuna.trial import TrialState

from bloodauto.config.recipe import Recipe
from bloodauto.config.space import (
    SearchSpace,
    covering_recipes,
    local_perturbation,
    parameters_of,
    recipe_from_parameters,
    sample,
)
from bloodauto.config.space.grammar import Scalar
from bloodauto.errors import RecipeError
from bloodauto.models.backbones import check_recipe
from bloodauto.run.study_attributes import SAMPLED, initial_origin, perturbed_origin, promoted_origin
from bloodauto.tuning.constants import SCHEDULER_CONSTANTS, SchedulerConstants
from bloodauto.tuning.refits import CompletedTrial
from bloodauto.tuning.settings import PriorTrial
from bloodauto.tuning.study import CandidateTrial, StudyRecord

#: Far above the number of trials, so that two searches with neighbouring seeds never share a sampler's seed.
_SEED_STRIDE = 1_000_003
#: Paths of domains that decide about the cost of a step begin so.
_COST_PATHS = ("backbone", "input")
#: Whether a recipe can be judged in the time that a suggestion is given.
Fits = Callable[[Recipe], bool]
#: The objective by which completed trials are compared, whatever time each was given.
Value = Callable[[CompletedTrial], float]


def last_objective(trial: CompletedTrial) -> float:
    """A ``Value``: the objective at the end, for trials that were given the same time."""
    return trial.objective


class Suggester:
    """Suggests trials.

    Initial configurations come first. Then a part of the suggestions comes from a tree-structured Parzen estimator
    (Bergstra et al., NeurIPS 2011; Optuna's multivariate form with groups of conditional parameters), the others are local
    perturbations of the incumbent, as PriorBand mixes them (Mallik et al., arXiv:2306.12370). Deviation: perturbations start
    from the incumbent, or with several objectives from a random trial on the Pareto front, never from a prior.

    Suggestions are drawn among recipes that fit: the estimator draws in a study in memory, a copy of the search's own, until a
    recipe fits, and only that one is added to the search's study. For a part of the suggestions, at first most and fewer with
    every trial of this search, the copy has trials of earlier runs, too, their objectives by rank among this search's own.

    A resumed search suggests what the uninterrupted one would have: everything random follows from the seed and the number
    of the trial.

    Args:
        study: The trials so far.
        space: The search space.
        initial: Name and recipe of the initial configurations, in order; each must be in the space. Those that were tried are
            skipped.
        seed: Of all suggestions.
        prior: Completed trials of earlier runs.
        constants: How many suggestions are random, and how many local perturbations.
    """

    def __init__(
        self,
        study: StudyRecord,
        space: SearchSpace,
        *,
        initial: Sequence[tuple[str, Recipe]],
        seed: int,
        prior: Sequence[PriorTrial] = (),
        constants: SchedulerConstants = SCHEDULER_CONSTANTS,
    ) -> None:
        self._study, self._space, self._seed, self._constants = study, space, seed, constants
        self._initial = [(name, recipe) for name, recipe in initial if not study.was_tried(recipe)]
        self._prior = sorted(prior, key=lambda trial: -trial.objective)
        self.covering_recipes = tuple(covering_recipes(space))

    # -- open trials and initial configurations ------------------------------------------------------------------------

    def next_open_trial(self) -> CandidateTrial | None:
        """The next trial that an earlier session left open; None when there is none."""
        while (number := self._study.next_open_number) is not None:
            candidate = self._study.reopen(self._sampler(number))
            if candidate is not None:
                return candidate
        return None

    @property
    def pending_initial(self) -> tuple[tuple[str, Recipe], ...]:
        """Name and recipe of the initial configurations that were not begun, in order."""
        return tuple(self._initial)

    def begin_initial(self, name: str) -> CandidateTrial | None:
        """Adds an initial configuration to the study; it is to be trained now.

        Args:
            name: One of ``pending_initial``.

        Returns:
            None when its backbone cannot be built; it is recorded as failed then.
        """
        index = next(index for index, (pending, _) in enumerate(self._initial) if pending == name)
        _, recipe = self._initial.pop(index)
        return self._begin(parameters_of(self._space, recipe), initial_origin(name))

    def _begin(self, parameters: Mapping[str, Scalar], origin: str, *, repeat: bool = False) -> CandidateTrial | None:
        self._study.enqueue(parameters, origin, repeat=repeat)
        return self._study.ask(self._sampler(self._study.num_trials))

    # -- promotion -----------------------------------------------------------------------------------------------------

    def promote(self, is_short: Fits, value: Value = last_objective) -> CandidateTrial | None:
        """Lets one of the best suggestions go on with its weights.

        The rule is that of asynchronous successive halving (ASHA, arXiv:1810.05934), with two rungs.

        Args:
            is_short: Of which recipes a suggestion is ended by time.
            value: By which suggestions are compared.

        Returns:
            A new trial with the same recipe; None when none of the best 1 / ``promotion_factor`` of the suggestions so far is
            left.
        """
        promoted = self._study.promoted()
        suggestions = [trial for trial in self._study.completed if self._study.is_suggestion(trial.number)]
        best = sorted(suggestions, key=lambda trial: -value(trial))[
            : len(suggestions) // self._constants.promotion_factor
        ]
        for trial in best:
            if trial.number not in promoted and is_short(trial.recipe):
                return self._begin(self._study.parameters(trial.number), promoted_origin(trial.number), repeat=True)
        return None

    # -- suggestions ---------------------------------------------------------------------------------------------------

    def suggest(self, fits: Fits, value: Value = last_objective) -> CandidateTrial | None:
        """Suggests a trial that fits, and adds it to the study; it is to be trained now.

        Args:
            fits: Which recipes can be trained now.
            value: By which completed trials are compared.

        Returns:
            None when no recipe was found that fits; nothing is added to the study then.
        """
        fitting = [recipe for recipe in self.covering_recipes if fits(recipe)]
        if not fitting:
            return None
        drawn = self._draw_perturbation(fits, value) or self._draw_sampled(fits, value, fitting)
        return None if drawn is None else self._begin(*drawn)

    def _draw_perturbation(self, fits: Fits, value: Value) -> tuple[Mapping[str, Scalar], str] | None:
        """In a part of the cases, a recipe near the incumbent that fits and was not tried."""
        rng = np.random.default_rng([self._seed, self._study.num_trials])
        if not self._study.completed or rng.random() >= self._constants.local_perturbation_fraction:
            return None
        parents = self._study.pareto_front()
        if not self._study.is_multi_objective:
            parents = [max(self._study.completed, key=lambda trial: (value(trial), -trial.number))]
        parent = parents[int(rng.integers(len(parents)))]
        values = self._study.parameters(parent.number)
        for _ in range(self._constants.max_perturbation_tries):
            try:
                recipe, parameters = local_perturbation(self._space, values, rng)
                check_recipe(recipe)
            except RecipeError:
                continue
            if not self._study.was_tried(recipe) and fits(recipe):
                return parameters, perturbed_origin(parent.number)
        return None

    def _draw_sampled(
        self, fits: Fits, value: Value, fitting: Sequence[Recipe]
    ) -> tuple[Mapping[str, Scalar], str] | None:
        """A draw of the estimator that fits; where none does, one whose network is replaced by one that fits."""
        last: Mapping[str, Scalar] | None = None
        for recipe, parameters in self._draws(value):
            last = parameters
            if fits(recipe):
                return parameters, SAMPLED
        rng = np.random.default_rng([self._seed, self._study.num_trials, 1])
        replacement = fitting[int(rng.integers(len(fitting)))]
        parameters = parameters_of(self._space, replacement)
        if last is not None:
            of_cost = {domain.parameter for domain in self._space.domains() if domain.path.startswith(_COST_PATHS)}
            kept = {name: entry for name, entry in last.items() if name not in of_cost}
            cost = {name: entry for name, entry in parameters.items() if name in of_cost}
            mixed = {**cost, **kept}
            try:
                recipe = recipe_from_parameters(self._space, mixed)
                check_recipe(recipe)
            except (RecipeError, KeyError):
                return parameters, SAMPLED
            if fits(recipe):
                return mixed, SAMPLED
        return parameters, SAMPLED

    def _draws(self, value: Value) -> Iterator[tuple[Recipe, Mapping[str, Scalar]]]:
        """Valid recipes, drawn by the estimator one after another; nothing of it is kept."""
        copy = optuna.create_study(directions=self._study.directions, sampler=self._sampler(self._study.num_trials))
        copy.add_trials([*self._prior_trials(value), *self._comparable_trials(value)])
        for _ in range(self._constants.max_suggestion_draws):
            trial = copy.ask()
            try:
                recipe = sample(self._space, trial)
                check_recipe(recipe)
            except RecipeError:
                pass
            else:
                yield recipe, dict(trial.params)
            # The estimator ignores failed trials.
            copy.tell(trial, state=TrialState.FAIL)

    def _comparable_trials(self, value: Value) -> Iterator[optuna.trial.FrozenTrial]:
        """The trials so far, completed ones with the objective by which they are compared."""
        completed = {trial.number: trial for trial in self._study.completed}
        for trial in self._study.frozen_trials():
            if trial.state in (TrialState.FAIL, TrialState.WAITING):
                continue
            values = trial.values
            if trial.number in completed and values is not None:
                values = [value(completed[trial.number]), *values[1:]]
            yield optuna.trial.create_trial(
                state=trial.state,
                values=values,
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=trial.intermediate_values,
            )

    def _prior_trials(self, value: Value) -> Iterator[optuna.trial.FrozenTrial]:
        """Trials of earlier runs, for a part of the suggestions."""
        if not self._prior or self._study.is_multi_objective:
            return
        objectives = sorted((value(trial) for trial in self._study.completed), reverse=True)
        rng = np.random.default_rng([self._seed, self._study.num_trials, 2])
        constants = self._constants
        if rng.random() >= constants.prior_fraction * 0.5 ** (len(objectives) / constants.prior_half_life):
            return
        # The objective of another run, of other images and other lengths, says no more than a rank.
        ranks = objectives if objectives else [trial.objective for trial in self._prior]
        for index, trial in enumerate(self._prior):
            fixed = optuna.trial.FixedTrial(parameters_of(self._space, trial.recipe))
            sample(self._space, fixed)
            yield optuna.trial.create_trial(
                value=ranks[index * len(ranks) // len(self._prior)],
                params=fixed.params,
                distributions=fixed.distributions,
            )

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A new sampler for each trial: made from seed and number, it needs no state on disk."""
        return optuna.samplers.TPESampler(
            n_startup_trials=self._constants.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=self._seed * _SEED_STRIDE + number,
        )
