"""A whole search on simulated time, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna

from bloodauto.config.recipe import Recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import SearchSpace, load_space, recipe_from_parameters
from bloodauto.run.artifacts import LedgerCharge, LedgerFile
from bloodauto.testing.learning_curves import GeneratedCurves
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.executors.simulated import Curve, SimulatedMachine, SimulatedSession, Simulator
from bloodauto.tuning.pruning import plan_pruning
from bloodauto.tuning.scheduler import Scheduler, SchedulerSettings

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

SETTINGS = SchedulerSettings(
    seed=7, workers=2, devices_per_worker=1.0, refit_fraction=0.35, finalization_device_seconds=30.0, num_folds=5
)
MAX_EPOCHS = 6


def tiny_space() -> SearchSpace:
    return load_space(shipped_folder("search_spaces") / "tiny.yaml")


def tiny_recipe(space: SearchSpace, width: int = 16, learning_rate: float = 2e-3) -> Recipe:
    return recipe_from_parameters(
        space,
        {
            "backbone.width": width,
            "head.dropout": 0.1,
            "loss": "cross_entropy",
            "loss[cross_entropy].label_smoothing": 0.05,
            "augmentation.rand_augment.num_ops": 2,
            "augmentation.rand_augment.magnitude": 0.3,
            "stages.0.optimizer": "adamw",
            "stages.0.optimizer[adamw].learning_rate": learning_rate,
        },
    )


def curves(seconds: Mapping[str, float] | None = None, *, seed: int = 1, noise: float = 0.0) -> GeneratedCurves:
    return GeneratedCurves(seed, seconds or {"own_cnn_4x16": 4.0, "own_cnn_4x32": 10.0}, noise=noise)


@dataclass
class Search:
    """Study, ledger and simulated machine of one search; ``session`` runs or resumes it."""

    folder: Path
    budget_device_seconds: float = 1200.0
    settings: SchedulerSettings = SETTINGS
    curve: Curve = field(default_factory=curves)
    machine: SimulatedMachine = field(default_factory=SimulatedMachine)
    initial: tuple[tuple[str, Recipe], ...] = ()
    pruner: str = "successive_halving"
    storage: str | None = None
    secondary: Callable[[Recipe], tuple[float, ...]] = lambda recipe: ()

    def __post_init__(self) -> None:
        self.space = tiny_space()
        self.simulator = Simulator(self.curve, self.machine, self.secondary)
        directions = self.settings.objectives.directions
        self.study = optuna.create_study(directions=directions, storage=self.storage, load_if_exists=True)

    def with_settings(self, **changes: object) -> Search:
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        return self

    def scheduler(self) -> Scheduler:
        self.ledger = Ledger(
            LedgerFile(self.folder / LedgerCharge.FILE),
            budget_device_seconds=self.budget_device_seconds,
            now=self.simulator.now,
            wall_clock=self.simulator.now,
        )
        return Scheduler(
            study=self.study,
            space=self.space,
            ledger=self.ledger,
            pruning=plan_pruning(self.pruner, max_epochs=MAX_EPOCHS),  # type: ignore[arg-type]
            settings=self.settings,
            initial=self.initial,
            now=self.simulator.now,
        )

    def session(self, *, stop_at: float | None = None, kill: bool = False) -> SimulatedSession:
        self.last_scheduler = self.scheduler()
        return self.simulator.run(
            self.last_scheduler,
            self.ledger,
            workers=self.settings.workers,
            devices_per_worker=self.settings.devices_per_worker,
            stop_at=stop_at,
            kill=kill,
        )

    def outcomes(self) -> list[str]:
        return [trial.user_attrs["outcome"] for trial in self.study.get_trials(deepcopy=False)]
