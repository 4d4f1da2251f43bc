"""A whole search on simulated time, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import optuna

from bloodauto.config.recipe import Recipe
from bloodauto.config.settings import PrunerName
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import SearchSpace, load_space, recipe_from_parameters
from bloodauto.run.artifacts import LedgerCharge, LedgerFile
from bloodauto.run.study_attributes import TrialAttributes
from bloodauto.testing.learning_curves import GeneratedCurves
from bloodauto.tuning.budget.ledger import BudgetAccount, Ledger
from bloodauto.tuning.constants import (
    BUDGET_CONSTANTS,
    SCHEDULER_CONSTANTS,
    BudgetConstants,
    SchedulerConstants,
)
from bloodauto.tuning.executors.simulated import (
    Curve,
    SecondaryObjectives,
    SimulatedExecutor,
    SimulatedMachine,
    SimulatedSession,
    no_secondary_objectives,
)
from bloodauto.tuning.pruning import plan_pruning
from bloodauto.tuning.scheduler import Scheduler
from bloodauto.tuning.settings import SchedulerSettings
from bloodauto.tuning.study import StudyRecord, quiet_optuna

SETTINGS = SchedulerSettings(
    seed=7, workers=2, devices_per_worker=1.0, refit_fraction=0.35, finalization_device_seconds=30.0, num_folds=5
)
#: Epochs of every recipe of the tiny space.
MAX_EPOCHS = 6


def tiny_space() -> SearchSpace:
    """The shipped space of two small networks."""
    return load_space(shipped_folder("search_spaces") / "tiny.yaml")


def tiny_recipe(space: SearchSpace, width: int = 16, learning_rate: float = 2e-3) -> Recipe:
    """A recipe of the tiny space.

    Args:
        space: The tiny space.
        width: Width of the network, 16 or 32.
        learning_rate: From 1e-3 to 1e-2.
    """
    return recipe_from_parameters(
        space,
        {
            "backbone_width": width,
            "dropout": 0.1,
            "loss": "cross_entropy",
            "label_smoothing": 0.05,
            "randaugment_num_ops": 2,
            "randaugment_magnitude": 0.3,
            "optimizer": "adamw",
            "learning_rate_adamw": learning_rate,
        },
    )


def generated_curves(
    seconds: Mapping[str, float] | None = None, *, seed: int = 1, noise: float = 0.0
) -> GeneratedCurves:
    """Learning curves for the tiny space.

    Args:
        seconds: Seconds of an epoch by the label of the backbone; None: 4 and 10.
        seed: Seed of the curves.
        noise: Seconds vary by up to this fraction.
    """
    default = {"own_cnn_4x16": 4.0, "own_cnn_4x32": 10.0}
    return GeneratedCurves(seed, default if seconds is None else seconds, noise=noise)


@dataclass
class SimulatedSearch:
    """Study, ledger and simulated machine of one search; ``session`` runs or resumes it.

    Attributes:
        folder: Directory of the ledger.
        budget_device_seconds: The budget.
        settings: What the scheduler is told.
        curve: What each epoch of each training is like.
        machine: What the workers are like.
        initial: Name and recipe of the initial configurations, each in the tiny space.
        pruner: Which pruner.
        storage: An Optuna storage URL; None: memory.
        secondary: The secondary objectives that a recipe ends with.
        constants: How decisions are made.
        budget_constants: How the budget is divided.

    Example:
        >>> import pathlib, tempfile
        >>> search = SimulatedSearch(pathlib.Path(tempfile.mkdtemp()), budget_device_seconds=300.0)
        >>> search.session().interrupted
        False
        >>> search.ledger.spent_device_seconds <= 300.0
        True
    """

    folder: Path
    budget_device_seconds: float = 1200.0
    settings: SchedulerSettings = SETTINGS
    curve: Curve = field(default_factory=generated_curves)
    machine: SimulatedMachine = field(default_factory=SimulatedMachine)
    initial: tuple[tuple[str, Recipe], ...] = ()
    pruner: PrunerName = "successive_halving"
    storage: str | None = None
    secondary: SecondaryObjectives = no_secondary_objectives
    constants: SchedulerConstants = SCHEDULER_CONSTANTS
    budget_constants: BudgetConstants = BUDGET_CONSTANTS

    def __post_init__(self) -> None:
        self.space = tiny_space()
        self.executor = SimulatedExecutor(self.curve, self.machine, secondary=self.secondary)
        self.clock = self.executor.clock
        self.study = self.open_study()

    def open_study(self) -> optuna.Study:
        """Creates the study, or opens the one in the storage."""
        directions = self.settings.objectives.directions
        with quiet_optuna():
            return optuna.create_study(
                study_name="simulated", directions=directions, storage=self.storage, load_if_exists=True
            )

    def with_settings(self, **changes: Any) -> Self:
        """The search with other settings.

        Args:
            **changes: Fields of ``SchedulerSettings``.
        """
        self.settings = replace(self.settings, **changes)
        return self

    def open_account(self) -> BudgetAccount:
        """Opens the ledger, as a new session does."""
        return BudgetAccount(
            LedgerFile(self.folder / LedgerCharge.FILE),
            budget_device_seconds=self.budget_device_seconds,
            devices_per_slot=self.settings.devices_per_worker,
            clock=self.clock,
        )

    def make_scheduler(self, ledger: Ledger) -> Scheduler:
        """A scheduler for the study in its present state.

        Args:
            ledger: Charged for what the slots do.
        """
        return Scheduler.create(
            StudyRecord(self.study, self.space, self.settings.objectives),
            self.space,
            ledger,
            pruning=plan_pruning(self.pruner, max_epochs=MAX_EPOCHS, constants=self.constants),
            settings=self.settings,
            initial=self.initial,
            constants=self.constants,
            budget_constants=self.budget_constants,
        )

    def session(self, *, stop_at: float | None = None, kill: bool = False) -> SimulatedSession:
        """Runs or resumes the search.

        Args:
            stop_at: The simulated time of an interruption; None: there is none.
            kill: Whether the interruption leaves the ledger as it is.
        """
        with quiet_optuna():
            account = self.open_account()
            self.ledger = account.ledger
            self.scheduler = self.make_scheduler(account.ledger)
            slots = account.reserve_workers(self.settings.workers)
            session = self.executor.run(self.scheduler, slots, stop_at=stop_at, kill=kill)
            if not session.interrupted:
                self.scheduler.close()
            if not (session.interrupted and kill):
                account.close()
        return session

    def attributes(self) -> list[TrialAttributes]:
        """What is recorded of every trial."""
        return [TrialAttributes.read(trial) for trial in self.study.get_trials(deepcopy=False)]

    def outcomes(self) -> list[str | None]:
        """The outcome of every trial; None while it is open."""
        return [attributes.outcome for attributes in self.attributes()]


def small_budget_search(
    folder: Path, *, seed: int, budget_device_seconds: float = 1800.0, machine: SimulatedMachine | None = None
) -> SimulatedSearch:
    """A search like one of half an hour's device time on two cores: epochs of 12 and 40 s, starts of 1 s on a warm worker.

    Args:
        folder: Directory of the ledger.
        seed: Of the search and of its learning curves.
        budget_device_seconds: The budget.
        machine: Faults, slow periods and first epochs; starts and ends are those above. None: a quiet machine.
    """
    space, machine = tiny_space(), SimulatedMachine() if machine is None else machine
    return SimulatedSearch(
        folder,
        budget_device_seconds=budget_device_seconds,
        settings=replace(
            SETTINGS, seed=seed, refit_fraction=0.5, finalization_device_seconds=150.0, training_images=9_000
        ),
        curve=generated_curves({"own_cnn_4x16": 12.0, "own_cnn_4x32": 40.0}, seed=seed, noise=0.15),
        machine=replace(machine, cold_start_seconds=12.0, warm_start_seconds=1.0, finish_seconds=3.0),
        initial=(
            ("quick", tiny_recipe(space, 16, 2e-3)),
            ("another", tiny_recipe(space, 16, 5e-3)),
            ("large", tiny_recipe(space, 32, 2e-3)),
        ),
    )
