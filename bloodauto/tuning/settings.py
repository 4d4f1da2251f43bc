"""What a scheduler is told about one search."""

from __future__ import annotations

from dataclasses import dataclass, field

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe


@dataclass(frozen=True)
class PriorTrial:
    """A completed trial of an earlier run.

    Attributes:
        recipe: What it trained; the space of this search contains it.
        objective: Its primary objective.
    """

    recipe: Recipe
    objective: float


@dataclass(frozen=True)
class SchedulerSettings:
    """What a scheduler is told about one search; what is the same for all searches is in ``constants``.

    Attributes:
        seed: Seed of suggestions and trainings.
        workers: Trainings at a time.
        devices_per_worker: Devices that each worker slot reserves.
        refit_fraction: Fraction of the budget that is reserved for refits, 0-1; the search gets what they cannot use.
        finalization_device_seconds: At most reserved for the ensemble, its export and the held-out test.
        num_folds: Folds of the splits.
        training_images: Images of an epoch; None: unknown.
        max_trials: Most trials that are started; None: as many as the budget affords.
        objectives: What is optimised; pruning, refits and the ensemble follow the primary one.
        prior: Completed trials of earlier runs, which shape the first suggestions.
        epoch_seconds: A recipe with each network that was trained on this machine, and the seconds of an epoch's steps with
            everything unfrozen; they predict until epochs are observed.

    Example:
        >>> settings = SchedulerSettings(
        ...     seed=0, workers=2, devices_per_worker=0.5, refit_fraction=0.35, finalization_device_seconds=30.0, num_folds=5
        ... )
        >>> settings.pool_devices
        1.0
    """

    seed: int
    workers: int
    devices_per_worker: float
    refit_fraction: float
    finalization_device_seconds: float
    num_folds: int
    training_images: int | None = None
    max_trials: int | None = None
    objectives: Objectives = field(default_factory=Objectives)
    prior: tuple[PriorTrial, ...] = ()
    epoch_seconds: tuple[tuple[Recipe, float], ...] = ()

    @property
    def pool_devices(self) -> float:
        """Devices of all worker slots."""
        return self.workers * self.devices_per_worker
