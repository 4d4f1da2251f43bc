"""Pruning: the epochs (rungs) at which trials are compared, which of them stop there, and which are exempt."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna

from bloodauto.config.objectives import COSTS, Cost, Objectives
from bloodauto.config.recipe import Recipe
from bloodauto.config.settings import PrunerName
from bloodauto.models.backbones import num_parameters
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.constants import SCHEDULER_CONSTANTS, SchedulerConstants
from bloodauto.tuning.refits import is_near_best_backbone
from bloodauto.tuning.study import StudyRecord

#: The first rung is at this fraction of the longest trial.
_FIRST_RUNG_FRACTION = 1 / 8


@dataclass(frozen=True)
class Pruning:
    """A pruner and the epochs at which it decides.

    Attributes:
        name: Which pruner.
        max_epochs: Epochs of the longest trial.
        rungs: Epochs at which a trial may stop. For Hyperband those of its most aggressive bracket; for the median pruner
            every epoch but the last; empty without pruning.
        reduction_factor: At each rung about one trial in so many continues.
        constants: ``median_startup_trials`` is used.

    Example:
        >>> plan_pruning("successive_halving", max_epochs=24).rungs
        (3, 9)
    """

    name: PrunerName
    max_epochs: int
    rungs: tuple[int, ...]
    reduction_factor: int
    constants: SchedulerConstants = field(default=SCHEDULER_CONSTANTS, repr=False)

    def build(self) -> optuna.pruners.BasePruner:
        """The Optuna pruner; its resources are explicit, never derived from the first trial that completes."""
        min_resource = self.rungs[0] if self.rungs else self.max_epochs
        if self.name == "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=min_resource, reduction_factor=self.reduction_factor
            )
        if self.name == "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=min_resource, max_resource=self.max_epochs, reduction_factor=self.reduction_factor
            )
        if self.name == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=self.constants.median_startup_trials, n_warmup_steps=0)
        return optuna.pruners.NopPruner()

    def should_prune(self, epoch: int, value: float, competitors: Sequence[float]) -> bool:
        """Whether a trial stops, in a study of several objectives, for which Optuna has no pruners.

        The rules are Optuna's. Successive halving: a trial continues if it is among the best 1 / ``reduction_factor`` of all
        that have reached the rung, itself included, or the best of fewer. Median: a trial stops if it is below the median of
        ``median_startup_trials`` or more. Hyperband is not available for several objectives.

        Args:
            epoch: The trial's last epoch.
            value: Its primary objective there.
            competitors: The primary objective of other trials at the same epoch.
        """
        if epoch not in self.rungs:
            return False
        if self.name == "median":
            enough = len(competitors) >= self.constants.median_startup_trials
            return enough and value < statistics.median(competitors)
        best_first = sorted([value, *competitors], reverse=True)
        return value < best_first[max(len(best_first) // self.reduction_factor - 1, 0)]

    def table(self) -> str:
        """One line that says at which epochs trials are compared and how many continue."""
        if self.name == "none" or not self.rungs:
            return "no pruning: every trial completes"
        epochs = ", ".join(str(rung) for rung in self.rungs)
        if self.name == "median":
            return f"median pruner: after each of the epochs {epochs}, trials below the median stop"
        kind = "Hyperband" if self.name == "hyperband" else "successive halving"
        return f"{kind}: after epoch {epochs} of {self.max_epochs}, about 1 trial in {self.reduction_factor} continues"


def plan_pruning(
    name: PrunerName,
    *,
    max_epochs: int,
    reduction_factor: int = 3,
    constants: SchedulerConstants = SCHEDULER_CONSTANTS,
) -> Pruning:
    """Places the rungs: the first at an eighth of the longest trial, each next one ``reduction_factor`` times later.

    Args:
        name: Which pruner; trials of one epoch are never pruned.
        max_epochs: Epochs of the longest trial.
        reduction_factor: See ``Pruning``.
        constants: See ``Pruning``.
    """
    if name == "none" or max_epochs < 2:
        return Pruning("none", max_epochs, (), reduction_factor, constants)
    if name == "median":
        return Pruning(name, max_epochs, tuple(range(1, max_epochs)), reduction_factor, constants)
    rungs = [max(1, round(_FIRST_RUNG_FRACTION * max_epochs))]
    while rungs[-1] * reduction_factor < max_epochs:
        rungs.append(rungs[-1] * reduction_factor)
    return Pruning(name, max_epochs, tuple(rungs), reduction_factor, constants)


class TrialPruner:
    """Decides at the rungs which trials of a study stop.

    Args:
        study: The trials and their curves.
        pruning: The pruner and its rungs.
        costs: Predicts the latency of a recipe where that is an objective.
        objectives: What is optimised.
        constants: How far behind an initial configuration may be and still be exempt.
    """

    def __init__(
        self,
        study: StudyRecord,
        pruning: Pruning,
        costs: CostModel,
        objectives: Objectives,
        constants: SchedulerConstants = SCHEDULER_CONSTANTS,
    ) -> None:
        self._study, self._pruning, self._objectives, self._constants = study, pruning, objectives, constants
        self._predicted_costs: dict[Cost, Callable[[Recipe], float]] = {
            "parameters": lambda recipe: num_parameters(recipe.backbone),
            "latency": costs.evaluation_seconds,
        }
        study.set_pruner(pruning.build())

    def should_prune(self, number: int) -> bool:
        """Whether a trial stops at the epoch that it reported last.

        With several objectives a trial competes only with those that cost no more: a light network need not be as good as a
        heavy one to be on the Pareto front.

        Args:
            number: The trial's number.
        """
        if not self._study.is_multi_objective:
            return self._study.pruner_says_stop(number) and not self._is_exempt(number)
        curves, recipe = self._study.curves(), self._study.recipe(number)
        epoch = max(curves[number])
        competitors = [
            curve[epoch]
            for other, curve in curves.items()
            if other != number and epoch in curve and self._costs_no_more(self._study.recipe(other), recipe)
        ]
        return self._pruning.should_prune(epoch, curves[number][epoch], competitors)

    def _is_exempt(self, number: int) -> bool:
        """Whether an initial configuration continues although the pruner says stop.

        It does if it is the best of its backbone and not far behind the best of all: refits want several backbones, and after
        a few epochs the order of near ones is noise.
        """
        if not self._study.is_initial(number):
            return False
        curves = self._study.curves()
        epoch = max(curves[number])
        value = curves[number][epoch]
        competitors = _values_at(curves, epoch, without=number)
        backbone = self._study.backbone(number)
        if any(self._study.backbone(other) == backbone and rival > value for other, rival in competitors.items()):
            return False
        best = max(competitors.values(), default=value)
        return is_near_best_backbone(value, best, self._constants)

    def _costs_no_more(self, recipe: Recipe, other: Recipe) -> bool:
        costs = [name for name in self._objectives.secondary if name in COSTS]
        return all(self._predicted_costs[name](recipe) <= self._predicted_costs[name](other) for name in costs)


def _values_at(curves: Mapping[int, Mapping[int, float]], epoch: int, *, without: int) -> dict[int, float]:
    """The objective of every other trial at an epoch, by number."""
    return {number: curve[epoch] for number, curve in curves.items() if number != without and epoch in curve}
