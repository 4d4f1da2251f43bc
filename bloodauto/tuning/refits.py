"""Which recipes are trained again for the ensemble, on which folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bloodauto.config.recipe import Recipe, Stage

#: Recipes this near to the best in the objective are worth a place beside it: closer than that, their order is noise.
_SCORE_TOLERANCE = 0.02
#: With another backbone it may be so far behind: networks that err differently gain more together than their scores tell.
OTHER_BACKBONE_SCORE_TOLERANCE = 0.05
_MAX_RECIPES = 4


@dataclass(frozen=True)
class CompletedTrial:
    """A completed trial; ``others``: the values of further objectives, where a search has several."""

    number: int
    recipe: Recipe
    objective: float
    secondary: tuple[float, ...] = ()


@dataclass(frozen=True)
class PlannedRefit:
    """One training for the ensemble.

    Attributes:
        name: ``trial-fold-seed``; the name of its folder.
        trial: the trial whose recipe it repeats.
        fold: which fold it leaves out to be judged on.
        seed: of this training.
    """

    name: str
    trial: int
    recipe: Recipe
    fold: int
    seed: int


def plan_refits(
    completed: Sequence[CompletedTrial], *, count: int, num_folds: int, seed: int, workers: int = 1
) -> tuple[PlannedRefit, ...]:
    """Chooses about ``count`` trainings, never fewer than ``workers``, so that no worker is left without one.

    With room for a set of folds, the best recipes are trained once on each fold, so that every image gets an answer from a
    network that has not seen it. With less, all leave out fold 0 as the trials did, so that the trials themselves can be
    members too, and differ by recipe and seed. Such ones also fill up what sets of folds leave of the workers.

    Args:
        finished: at least one trial; of equally good ones those named first win.
    """
    distinct = choose_recipes(completed)
    planned: list[PlannedRefit] = []
    total = max(count, workers)
    if count >= num_folds > 1:
        for trial in distinct[: count // num_folds]:
            planned += [_refit(trial, fold, seed) for fold in range(num_folds)]
        total = workers
    for index in range(total - len(planned)):
        planned.append(_refit(distinct[index % len(distinct)], 0, seed + 1 + index))
    return tuple(planned)


def choose_recipes(completed: Sequence[CompletedTrial]) -> list[CompletedTrial]:
    """Whose recipes are worth another training, best first.

    The best trial, then the best of other backbones, then others that are as good as the best but for noise.
    """
    if not completed:
        return []
    # A stable sort: of equals the one named first.
    ranked = sorted(completed, key=lambda trial: -trial.objective)
    best = ranked[0].objective
    chosen: dict[str, CompletedTrial] = {}
    backbones = set()
    for trial in ranked:
        backbone = trial.recipe.backbone.label
        if backbone not in backbones and trial.objective >= best - OTHER_BACKBONE_SCORE_TOLERANCE:
            backbones.add(backbone)
            chosen[trial.recipe.id] = trial
    for trial in ranked:
        if len(chosen) >= _MAX_RECIPES or trial.objective < best - _SCORE_TOLERANCE:
            break
        chosen.setdefault(trial.recipe.id, trial)
    return list(chosen.values())[:_MAX_RECIPES]


def with_extended_epochs(recipe: Recipe, factor: float) -> Recipe:
    """The same recipe with so many epochs that time, not their number, ends it; stages keep their proportions.

    So does the patience of a plateau, which is counted in epochs.
    """
    return recipe.model_copy(update={"stages": tuple(_extended_stage(stage, factor) for stage in recipe.stages)})


def _extended_stage(stage: Stage, factor: float) -> Stage:
    schedule = stage.schedule
    epochs = min(math.ceil(stage.epochs * factor), 1000)
    if schedule.patience_epochs is not None:
        patience = max(round(schedule.patience_epochs * epochs / stage.epochs), 1)
        schedule = schedule.model_copy(update={"patience_epochs": patience})
    return stage.model_copy(update={"epochs": epochs, "schedule": schedule, "early_stopping": None})


def _refit(trial: CompletedTrial, fold: int, seed: int) -> PlannedRefit:
    return PlannedRefit(f"{trial.number:05d}-fold{fold}-seed{seed}", trial.number, trial.recipe, fold, seed)
