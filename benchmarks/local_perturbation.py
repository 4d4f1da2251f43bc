"""What are local perturbations of the incumbent worth? Simulated searches with and without them, side by side.

    python benchmarks/local_perturbation.py --searches 8

Each search runs on the shipped small space with one initial configuration, on an artificial landscape over all of the space's
domains: quality falls with the distance from an optimum that differs from the initial configuration by a random step in every
number and by another member in some of the choices; each domain has a weight of its own. Printed is the gain of the best trial
over the initial configuration, mean and standard error over searches.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import zlib
from pathlib import Path

import numpy as np
import optuna

from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import Choice, NotInSpace, SearchSpace, load_space, parameters_of
from bloodauto.config.space.grammar import Domain, Scalar
from bloodauto.run.artifacts import LedgerCharge, LedgerFile
from bloodauto.tuning.budget.ledger import BudgetAccount
from bloodauto.tuning.constants import SchedulerConstants
from bloodauto.tuning.executors.simulated import CurvePoint, SimulatedExecutor
from bloodauto.tuning.pruning import plan_pruning
from bloodauto.tuning.scheduler import Scheduler
from bloodauto.tuning.settings import SchedulerSettings
from bloodauto.tuning.study import StudyRecord, quiet_optuna

_EPOCHS = 4
#: What a recipe loses at the largest distance there is.
_DEPTH = 0.6


def _unit_position(domain: Domain, value: Scalar) -> float:
    assert not isinstance(domain, Choice)
    assert isinstance(value, int | float)
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


class Landscape:
    """Learning curves of every recipe of a space, with one optimum."""

    def __init__(self, space: SearchSpace, initial: Recipe, *, step: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._space, self._seed = space, seed
        self._domains = {domain.parameter: domain for domain in space.domains()}
        self._weights = {name: float(rng.exponential()) for name in self._domains}
        self._optimum: dict[str, Scalar] = {}
        parameters = parameters_of(space, initial)
        for name, value in parameters.items():
            domain = self._domains[name]
            if isinstance(domain, Choice):
                other = domain.labels[int(rng.integers(len(domain.labels)))]
                self._optimum[name] = value if rng.random() < 0.6 else other
            else:
                self._optimum[name] = float(np.clip(_unit_position(domain, value) + step * rng.standard_normal(), 0, 1))
        self._total = sum(self._weights[name] for name in parameters)

    def _distance(self, name: str, value: Scalar) -> float:
        domain = self._domains[name]
        if name not in self._optimum:
            return 0.2
        optimum = self._optimum[name]
        if isinstance(domain, Choice):
            return 0.5 * (value != optimum)
        assert isinstance(optimum, float)
        return min(4 * (_unit_position(domain, value) - optimum) ** 2, 1.0)

    def __call__(self, recipe: Recipe, seed: int, epoch: int) -> CurvePoint:
        try:
            parameters = parameters_of(self._space, recipe)
        except NotInSpace:
            # A refit trains longer than any recipe of the space; its curve does not matter here.
            return CurvePoint(0.5, 20.0, 2.0)
        distance = sum(self._weights[name] * self._distance(name, value) for name, value in parameters.items())
        missing = self._optimum.keys() - parameters.keys()
        distance += sum(0.2 * self._weights[name] for name in missing)
        noise = np.random.default_rng([self._seed, zlib.crc32(recipe.id.encode()), epoch]).normal(0, 0.005)
        quality = (0.95 - _DEPTH * distance / self._total) * (1 - 0.5 ** (epoch + 1)) + noise
        return CurvePoint(float(np.clip(quality, 0, 1)), 20.0, 2.0)


def _gain(
    space: SearchSpace, initial: Recipe, *, budget: float, step: float, local_perturbation_fraction: float, seed: int
) -> float:
    landscape = Landscape(space, initial, step=step, seed=seed)
    executor = SimulatedExecutor(landscape)
    settings = SchedulerSettings(
        seed=seed,
        workers=2,
        devices_per_worker=1.0,
        refit_fraction=0.35,
        finalization_device_seconds=30.0,
        num_folds=5,
    )
    with (
        quiet_optuna(),
        tempfile.TemporaryDirectory() as folder,
        BudgetAccount.open(
            LedgerFile(Path(folder) / LedgerCharge.FILE),
            budget_device_seconds=budget,
            devices_per_slot=settings.devices_per_worker,
            clock=executor.clock,
        ) as account,
    ):
        scheduler = Scheduler.create(
            StudyRecord(optuna.create_study(direction="maximize"), space, settings.objectives),
            space,
            account.ledger,
            pruning=plan_pruning("successive_halving", max_epochs=_EPOCHS),
            settings=settings,
            initial=(("initial", initial),),
            constants=SchedulerConstants(local_perturbation_fraction=local_perturbation_fraction),
        )
        executor.execute(scheduler, account.reserve_workers(settings.workers))
        scheduler.close()
    incumbent = scheduler.incumbent()
    assert incumbent is not None
    return incumbent.objective - landscape(initial, seed, _EPOCHS).objective


def main() -> None:
    """Prints one line per budget and distance of the optimum."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--searches", type=int, default=8, help="at least 2, for a standard error; default: 8")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.0, 0.33, 0.5, 0.75])
    arguments = parser.parse_args()
    if arguments.searches < 2:
        parser.error(f"--searches: expected at least 2, for a standard error, got {arguments.searches}")
    space = load_space(shipped_folder("search_spaces") / "small.yaml")
    initial = load_recipe(shipped_folder("trials") / "small_mobilenet_025.yaml")
    print("budget   optimum   gain over the initial configuration by the fraction of local perturbations")
    for budget in (1800.0, 9000.0):
        for step in (0.15, 0.3):
            cells = []
            for fraction in arguments.fractions:
                gains = [
                    _gain(space, initial, budget=budget, step=step, local_perturbation_fraction=fraction, seed=seed)
                    for seed in range(arguments.searches)
                ]
                error = statistics.stdev(gains) / len(gains) ** 0.5
                cells.append(f"{fraction:.2f}: {statistics.mean(gains):.4f} +- {error:.4f}")
            print(f"{budget:>6.0f}   {step:.2f}      {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
