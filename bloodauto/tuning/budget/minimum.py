"""The least budget with which a search can train and export anything: less is refused before a second is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bloodauto.config.budget import Budget
from bloodauto.config.recipe import Recipe
from bloodauto.errors import BudgetError

#: Wall seconds that no machine was seen to need less for: starting a worker and tracing the first graph,
LEAST_START_SECONDS = 4.0
#: evaluating a network on the validation images,
LEAST_EVALUATION_SECONDS = 1.0
#: choosing an ensemble of one and writing it.
LEAST_FINALIZATION_SECONDS = 8.0
#: A training is worth an export after this part of an epoch, where its speed on this machine is known.
LEAST_EPOCH_FRACTION = 0.25
#: What is asked for instead has so much room: the least that can do is seldom enough on a busy machine.
_SUGGESTED_OVER_LEAST = 2.0
_ROUND_TO_SECONDS = 10


@dataclass(frozen=True)
class LeastBudget:
    """What a search needs at least.

    Attributes:
        workers: Trainings at a time, each of which has to start.
        devices_per_worker: Devices that each reserves.
        epoch_seconds: Of the quickest network whose speed on this machine is known, wall seconds of an epoch; 0 when none is.

    Example:
        >>> LeastBudget(workers=2, devices_per_worker=1.0).device_seconds
        18.0
    """

    workers: int
    devices_per_worker: float
    epoch_seconds: float = 0.0

    @classmethod
    def of_search(
        cls, workers: int, devices_per_worker: float, known_epochs: Sequence[tuple[Recipe, float]]
    ) -> LeastBudget:
        """By what is known of the machine.

        Args:
            workers: Trainings at a time.
            devices_per_worker: Devices that each reserves.
            known_epochs: Recipes of the space with the seconds of an epoch on this machine, by earlier searches.
        """
        return cls(workers, devices_per_worker, min((seconds for _, seconds in known_epochs), default=0.0))

    @property
    def device_seconds(self) -> float:
        """Device-seconds: every worker starts, one network sees a part of an epoch, is evaluated and written."""
        training = LEAST_START_SECONDS + LEAST_EPOCH_FRACTION * self.epoch_seconds + LEAST_EVALUATION_SECONDS
        return self.devices_per_worker * (self.workers * training + LEAST_FINALIZATION_SECONDS)

    def check(self, budget: Budget) -> None:
        """Refuses a budget with which nothing could be exported.

        Args:
            budget: What the search may spend.

        Raises:
            BudgetError: It is smaller than the least; says what would do.
        """
        pool = self.workers * self.devices_per_worker
        if budget.device_seconds(pool) >= self.device_seconds:
            return
        per_unit = pool if budget.kind == "wall" else 1.0
        unit = "s" if budget.kind == "wall" else f"{budget.kind}-s"
        suggested = (
            -int(-_SUGGESTED_OVER_LEAST * self.device_seconds / per_unit // _ROUND_TO_SECONDS) * _ROUND_TO_SECONDS
        )
        fewer = " or fewer --workers" if self.workers > 1 else ""
        raise BudgetError(
            f"--budget {budget.text}: expected at least {self.device_seconds / per_unit:.0f}{unit}: {self.workers} "
            f"worker{'s' if self.workers > 1 else ''} must start, train, evaluate and export a network. "
            f"Give {suggested}{unit} or more{fewer}."
        )
