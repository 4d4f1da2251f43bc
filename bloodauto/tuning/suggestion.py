"""Which recipe a search tries next: initial configurations, then suggestions by TPE or near the incumbent."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import optuna

from bloodauto.config.recipe import Recipe
from bloodauto.config.space import SearchSpace, local_perturbation, parameters_of
from bloodauto.errors import RecipeError
from bloodauto.models.backbones import check_recipe
from bloodauto.run.study_attributes import initial_origin, perturbed_origin
from bloodauto.tuning.constants import SCHEDULER_CONSTANTS, SchedulerConstants
from bloodauto.tuning.study import CandidateTrial, StudyRecord

#: Far above the number of trials, so that two searches with neighbouring seeds never share a sampler's seed.
_SEED_STRIDE = 1_000_003


class Suggester:
    """Suggests trials.

    Initial configurations come first. Then a part of the suggestions comes from a tree-structured Parzen estimator
    (Bergstra et al., NeurIPS 2011; Optuna's multivariate form with groups of conditional parameters), the others are local
    perturbations of the incumbent, as PriorBand mixes them (Mallik et al., arXiv:2306.12370). Deviation: perturbations start
    from the incumbent, or with several objectives from a random trial on the Pareto front, never from a prior.

    A resumed search suggests what the uninterrupted one would have: everything random follows from the seed and the number
    of the trial.

    Args:
        study: The trials so far.
        space: The search space.
        initial: Name and recipe of the initial configurations, in order; each must be in the space. Those that were tried are
            skipped.
        seed: Of all suggestions.
        constants: How many suggestions are random, and how many local perturbations.
    """

    def __init__(
        self,
        study: StudyRecord,
        space: SearchSpace,
        *,
        initial: Sequence[tuple[str, Recipe]],
        seed: int,
        constants: SchedulerConstants = SCHEDULER_CONSTANTS,
    ) -> None:
        self._study, self._space, self._seed, self._constants = study, space, seed, constants
        self._initial = deque((name, recipe) for name, recipe in initial if not study.was_tried(recipe))

    def next_open_trial(self) -> CandidateTrial | None:
        """The next trial that an earlier session left open; None when there is none."""
        while (number := self._study.next_open_number) is not None:
            candidate = self._study.reopen(self._sampler(number))
            if candidate is not None:
                return candidate
        return None

    @property
    def next_is_initial(self) -> bool:
        """Whether the next suggestion is an initial configuration."""
        return bool(self._initial)

    def suggest(self) -> CandidateTrial | None:
        """Suggests a trial.

        Returns:
            None when the suggestion was no valid recipe; it is recorded as failed then.
        """
        if self._initial:
            name, recipe = self._initial.popleft()
            self._study.enqueue(parameters_of(self._space, recipe), initial_origin(name))
        elif self._study.completed:
            self._enqueue_perturbation()
        return self._study.ask(self._sampler(self._study.num_trials))

    def _enqueue_perturbation(self) -> None:
        """Enqueues, in a part of the cases, a recipe near the incumbent that was not tried."""
        rng = np.random.default_rng([self._seed, self._study.num_trials])
        if rng.random() >= self._constants.local_perturbation_fraction:
            return
        pareto_front = self._study.pareto_front()
        parent = pareto_front[int(rng.integers(len(pareto_front)))]
        values = self._study.parameters(parent.number)
        for _ in range(self._constants.max_perturbation_tries):
            try:
                recipe, parameters = local_perturbation(self._space, values, rng)
                check_recipe(recipe)
            except RecipeError:
                continue
            if not self._study.was_tried(recipe):
                self._study.enqueue(parameters, perturbed_origin(parent.number))
                return

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A new sampler for each trial: made from seed and number, it needs no state on disk."""
        return optuna.samplers.TPESampler(
            n_startup_trials=self._constants.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=self._seed * _SEED_STRIDE + number,
        )
