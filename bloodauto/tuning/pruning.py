"""The pruners a search can choose from, with explicit rungs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from bloodauto.config.settings import PrunerName

_MEDIAN_STARTUP_TRIALS = 4


@dataclass(frozen=True)
class Pruning:
    """A pruner and the epochs at which it decides.

    Attributes:
        name: which pruner.
        rungs: epochs at which a trial may be stopped; for Hyperband those of its most aggressive bracket, for the median
            pruner all from the first, for none none.
        reduction_factor: at each rung about one in so many goes on.
    """

    name: PrunerName
    max_epochs: int
    rungs: tuple[int, ...]
    reduction_factor: int

    def build(self) -> optuna.pruners.BasePruner:
        """The Optuna pruner; its resources are always explicit, never derived from what happens to finish first."""
        if self.name == "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=self.rungs[0] if self.rungs else self.max_epochs, reduction_factor=self.reduction_factor
            )
        if self.name == "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=self.rungs[0] if self.rungs else self.max_epochs,
                max_resource=self.max_epochs,
                reduction_factor=self.reduction_factor,
            )
        if self.name == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=_MEDIAN_STARTUP_TRIALS, n_warmup_steps=0)
        return optuna.pruners.NopPruner()

    def should_prune(self, epoch: int, value: float, competitors: Sequence[float]) -> bool:
        """Whether a trial is to stop, for studies of several objectives, for which Optuna has no pruners.

        The same rules as Optuna's: at a rung of successive halving a trial goes on that is among the best
        1 / ``reduction_factor`` of all that came so far, itself included, or the best of fewer; under the median pruner one
        that is not below the median of four or more.

        Args:
            value: of the primary objective.
            rivals: the primary objective of other trials at the same epoch.
        """
        if epoch not in self.rungs:
            return False
        if self.name == "median":
            return len(competitors) >= _MEDIAN_STARTUP_TRIALS and value < statistics.median(competitors)
        best_first = sorted([value, *competitors], reverse=True)
        return value < best_first[max(len(best_first) // self.reduction_factor - 1, 0)]

    def table(self) -> str:
        """One line that says when trials are judged and how many go on."""
        if self.name == "none" or not self.rungs:
            return "no pruning: every trial completes"
        epochs = ", ".join(str(rung) for rung in self.rungs)
        if self.name == "median":
            return f"median pruner: after each of the epochs {epochs}, trials below the median stop"
        kind = "Hyperband" if self.name == "hyperband" else "successive halving"
        return f"{kind}: after epoch {epochs} of {self.max_epochs}, about 1 trial in {self.reduction_factor} goes on"


def plan_pruning(name: PrunerName, *, max_epochs: int, reduction_factor: int = 3) -> Pruning:
    """Rungs for trials of up to ``max_epochs``: the first at an eighth of it, then each ``reduction_factor`` times later."""
    first = max(1, round(max_epochs / 8))
    if name == "none" or max_epochs < 2:
        return Pruning("none", max_epochs, (), reduction_factor)
    if name == "median":
        return Pruning(name, max_epochs, tuple(range(1, max_epochs)), reduction_factor)
    rungs = [first]
    while rungs[-1] * reduction_factor < max_epochs:
        rungs.append(rungs[-1] * reduction_factor)
    return Pruning(name, max_epochs, tuple(rungs), reduction_factor)
