"""Refits: which recipes are trained again for the ensemble, on which folds, in which order and for how long."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bloodauto.config.recipe import Recipe, Stage
from bloodauto.run.artifacts import EpochReport
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.constants import SCHEDULER_CONSTANTS, SchedulerConstants
from bloodauto.tuning.settings import SchedulerSettings

#: A recipe's stage may have no more epochs.
_MAX_EPOCHS = 1000
#: For the time of an epoch before any was measured.
_DEFAULT_EPOCH_SECONDS = 1.0


@dataclass(frozen=True)
class CompletedTrial:
    """A trial whose recipe may be refitted.

    Attributes:
        number: Its number.
        recipe: What it trained.
        objective: The primary objective on all validation images, 0-1.
        secondary: The values of the other objectives, in their order.
        device_seconds: What it was charged.
    """

    number: int
    recipe: Recipe
    objective: float
    secondary: tuple[float, ...] = ()
    device_seconds: float = 0.0

    @property
    def values(self) -> tuple[float, ...]:
        """The values of all objectives."""
        return (self.objective, *self.secondary)


@dataclass(frozen=True)
class UnfinishedTrial:
    """A trial that has not completed.

    Attributes:
        number: Its number.
        recipe: What it trains.
        last_report: Its last epoch.
    """

    number: int
    recipe: Recipe
    last_report: EpochReport


@dataclass(frozen=True)
class PlannedRefit:
    """One training for the ensemble.

    Attributes:
        name: Unique in the run: ``<trial>-fold<fold>-seed<seed>``.
        trial: The trial whose recipe it trains.
        recipe: That recipe.
        fold: The fold that is left out of training and evaluated on.
        seed: Seed of the training.
    """

    name: str
    trial: int
    recipe: Recipe
    fold: int
    seed: int


@dataclass(frozen=True)
class TimedRefit:
    """A refit that is to start now.

    Attributes:
        refit: What was planned.
        recipe: The recipe with so many epochs that time ends it.
        seconds: Wall seconds of its training.
    """

    refit: PlannedRefit
    recipe: Recipe
    seconds: float


def refit_candidates(
    completed: Sequence[CompletedTrial], curves: Sequence[Mapping[int, float]], unfinished: Sequence[UnfinishedTrial]
) -> list[CompletedTrial]:
    """The trials that may be refitted: the completed ones, and unfinished ones with the objective they will probably reach.

    An unfinished trial is expected to stay as far ahead of the completed ones, or behind them, as at its last epoch.

    Args:
        completed: At least one.
        curves: The objective of each of them by epoch.
        unfinished: Trials in progress, and initial configurations that the budget stopped.

    Returns:
        The unfinished trials, then the completed ones.
    """
    best = max(trial.objective for trial in completed)
    expected = []
    for trial in unfinished:
        epoch, objective = trial.last_report.epoch, trial.last_report.objective
        rival = max(curve.get(epoch, done.objective) for curve, done in zip(curves, completed, strict=True))
        seconds = max(done.device_seconds for done in completed)
        expected.append(
            CompletedTrial(trial.number, trial.recipe, min(best + objective - rival, 1.0), device_seconds=seconds)
        )
    return expected + list(completed)


def is_near_best_backbone(objective: float, best: float, constants: SchedulerConstants = SCHEDULER_CONSTANTS) -> bool:
    """Whether a recipe with another backbone is near enough to the best one to be worth a refit beside it.

    Args:
        objective: Of the recipe, 0-1.
        best: The best objective, 0-1.
        constants: How far behind it may be.

    Example:
        >>> is_near_best_backbone(0.71, 0.77), is_near_best_backbone(0.90, 0.96)
        (True, False)
    """
    tolerance = max(constants.other_backbone_score_tolerance, constants.other_backbone_error_tolerance * (1.0 - best))
    return objective >= best - tolerance


def choose_recipes(
    candidates: Sequence[CompletedTrial], constants: SchedulerConstants = SCHEDULER_CONSTANTS
) -> list[CompletedTrial]:
    """Chooses the trials whose recipes are worth a refit.

    Args:
        candidates: Of equally good ones the first wins.
        constants: How far behind the best they may be, and how many are chosen at most.

    Returns:
        The best trial, then the best of each other backbone, then others that are as good as the best but for noise.
    """
    if not candidates:
        return []
    # A stable sort: of equals the first.
    ranked = sorted(candidates, key=lambda trial: -trial.objective)
    best = ranked[0].objective
    chosen: dict[str, CompletedTrial] = {}
    backbones = set()
    for trial in ranked:
        backbone = trial.recipe.backbone.label
        if backbone not in backbones and is_near_best_backbone(trial.objective, best, constants):
            backbones.add(backbone)
            chosen[trial.recipe.id] = trial
    for trial in ranked:
        if len(chosen) >= constants.max_refit_recipes or trial.objective < best - constants.score_tolerance:
            break
        chosen.setdefault(trial.recipe.id, trial)
    return list(chosen.values())[: constants.max_refit_recipes]


def plan_refits(
    candidates: Sequence[CompletedTrial],
    *,
    count: int,
    num_folds: int,
    seed: int,
    workers: int = 1,
    constants: SchedulerConstants = SCHEDULER_CONSTANTS,
) -> tuple[PlannedRefit, ...]:
    """Plans about ``count`` refits, never fewer than ``workers``, so that no worker is left without one.

    With room for a set of folds, the best recipes are trained once on each fold, so that every image gets a prediction from
    a network that was not trained on it. With less room, all refits leave out fold 0, as the trials did, so that the trials
    can be members, too; they differ by recipe and seed. Such refits also fill the workers that sets of folds leave free.

    Args:
        candidates: At least one trial.
        count: How many refits the budget has room for.
        num_folds: Folds of the splits.
        seed: Seed of refits on other folds; refits on fold 0 have seeds above it, since the trials have it.
        workers: Worker slots.
        constants: As for ``choose_recipes``.
    """
    chosen = choose_recipes(candidates, constants)
    planned: list[PlannedRefit] = []
    total = max(count, workers)
    if count >= num_folds > 1:
        for trial in chosen[: count // num_folds]:
            planned += [_planned_refit(trial, fold, seed) for fold in range(num_folds)]
        total = workers
    for index in range(total - len(planned)):
        planned.append(_planned_refit(chosen[index % len(chosen)], 0, seed + 1 + index))
    return tuple(planned)


def _planned_refit(trial: CompletedTrial, fold: int, seed: int) -> PlannedRefit:
    return PlannedRefit(f"{trial.number:05d}-fold{fold}-seed{seed}", trial.number, trial.recipe, fold, seed)


def with_extended_epochs(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with so many epochs that time, not their number, ends it.

    Stages keep their proportions, and so does the patience of a plateau schedule, which is counted in epochs. Early stopping
    is switched off.

    Args:
        recipe: The recipe.
        factor: Epochs over those of the recipe; a stage gets at most 1,000.

    Example:
        >>> from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
        >>> recipe = tiny_recipe(tiny_space())
        >>> recipe.total_epochs, with_extended_epochs(recipe, 2.5).total_epochs
        (6, 15)
    """
    return recipe.model_copy(update={"stages": tuple(_extended_stage(stage, factor) for stage in recipe.stages)})


def _extended_stage(stage: Stage, factor: float) -> Stage:
    schedule = stage.schedule
    epochs = min(math.ceil(stage.epochs * factor), _MAX_EPOCHS)
    if schedule.patience_epochs is not None:
        patience = max(round(schedule.patience_epochs * epochs / stage.epochs), 1)
        schedule = schedule.model_copy(update={"patience_epochs": patience})
    return stage.model_copy(update={"epochs": epochs, "schedule": schedule, "early_stopping": None})


class RefitQueue:
    """The refits that are still to be done; hands them out with the time that each may take.

    Args:
        costs: Predicts seconds.
        settings: Workers, folds and seed.
        constants: How long refits should be, and how many there are at most.
    """

    def __init__(
        self, costs: CostModel, settings: SchedulerSettings, constants: SchedulerConstants = SCHEDULER_CONSTANTS
    ) -> None:
        self._costs, self._settings, self._constants = costs, settings, constants
        self._queue: deque[PlannedRefit] | None = None

    @property
    def is_planned(self) -> bool:
        """Whether the refits are known."""
        return self._queue is not None

    def plan(
        self, count: int, candidates: Sequence[CompletedTrial], unfinished: Sequence[UnfinishedTrial]
    ) -> tuple[PlannedRefit, ...]:
        """Plans the refits.

        Args:
            count: About how many.
            candidates: The trials that may be refitted, at least one.
            unfinished: Those of them that train still; their refits come last, since they start from their weights.
        """
        planned = plan_refits(
            candidates,
            count=count,
            num_folds=self._settings.num_folds,
            seed=self._settings.seed,
            workers=self._settings.workers,
            constants=self._constants,
        )
        training = {trial.number for trial in unfinished}
        planned = tuple(sorted(planned, key=lambda refit: refit.trial in training))
        self.restore(planned)
        return planned

    def restore(self, planned: Sequence[PlannedRefit]) -> None:
        """Takes over refits that were planned before.

        Args:
            planned: Those that have not ended, in their order.
        """
        self._queue = deque(planned)

    def take(self, seconds_left: float, *, cold: bool) -> TimedRefit | None:
        """The next refit, so long that the last refit of every slot ends when the refit budget does.

        Args:
            seconds_left: Wall seconds until the refit budget is spent.
            cold: Whether the worker's process has to start.

        Returns:
            None when there is none, or too little time for it.
        """
        assert self._queue is not None, "plan or restore comes first"
        if not self._queue:
            return None
        refit = self._queue[0]
        overhead = self._costs.overhead_seconds(refit.recipe, cold=cold)
        epoch_seconds = _or_default(self._costs.epoch_seconds(refit.recipe, 0))
        waves = math.ceil(len(self._queue) / self._settings.workers)
        # A few refits of an epoch or more are better than all of them with less.
        while waves > 1 and seconds_left / waves - overhead < epoch_seconds:
            waves -= 1
        seconds = seconds_left / waves - overhead
        if seconds < self._constants.min_refit_epoch_fraction * epoch_seconds:
            return None
        self._queue.popleft()
        recipe_seconds = _or_default(self._costs.remaining_seconds(refit.recipe, 0))
        factor = max(self._constants.min_refit_epoch_factor, 2 * seconds / recipe_seconds)
        return TimedRefit(refit, with_extended_epochs(refit.recipe, factor), seconds)


def _or_default(seconds: float | None) -> float:
    """Seconds that something may be divided by."""
    return _DEFAULT_EPOCH_SECONDS if seconds is None or seconds <= 0 else seconds
