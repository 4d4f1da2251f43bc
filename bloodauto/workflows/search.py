"""A whole search: plan, trials and refits, ensemble, export, inside one budget."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bloodauto.config.budget import parse_budget
from bloodauto.config.settings import (
    SearchSettings,
    absolute_paths,
    check_settings_unchanged,
    read_settings,
    resolve_settings,
    write_settings,
)
from bloodauto.config.shipped import find_space
from bloodauto.config.space import covering_recipes
from bloodauto.errors import BudgetError, RunError
from bloodauto.printable import printable, shell_word
from bloodauto.run.artifacts import ExternalEstimate, ParetoTrial
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_text
from bloodauto.run.lock import run_lock
from bloodauto.run.study_reader import has_password, mask_passwords
from bloodauto.tuning.budget.ledger import BudgetAccount, Ledger
from bloodauto.tuning.budget.minimum import LeastBudget
from bloodauto.tuning.executors import WorkersLost
from bloodauto.tuning.executors.ray.executor import RayExecutor
from bloodauto.tuning.scheduler import Scheduler
from bloodauto.tuning.study import StudyRecord, check_storage
from bloodauto.workflows.datasets import save_run_data
from bloodauto.workflows.finalize import finalize
from bloodauto.workflows.machine_speed import MachineSpeed
from bloodauto.workflows.plan_record import PlanRecord
from bloodauto.workflows.planning import SearchPlan, plan_search, run_space_path, save_space
from bloodauto.workflows.process_state import restored_process_state
from bloodauto.workflows.run_log import run_log
from bloodauto.workflows.session import check_gpus, make_executor, run_trainings

_OUTCOMES = ("complete", "pruned", "failed", "out_of_budget", "running")
#: How often Ray is started in one session, should its processes end.
_MAX_RAY_STARTS = 3
_log = logging.getLogger(__name__)


class Progress(Protocol):
    """Receives the progress of a search.

    Example:
        >>> class PrintedSteps(SilentProgress):
        ...     def phase(self, name):
        ...         print(name)
        >>> PrintedSteps().phase("exporting")
        exporting
    """

    def planned(self, plan: SearchPlan, study: StudyRecord, ledger: Ledger) -> None:
        """Everything is checked; the budget starts to run."""

    def budget_planned(self, lines: Sequence[str]) -> None:
        """The plan of the budget has changed; ``lines`` are its table."""

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:
        """Called several times a second while trainings run."""

    def phase(self, name: str) -> None:
        """The trainings are over; the named step begins."""


class SilentProgress:
    """A progress that shows nothing; for Python callers."""

    def planned(self, plan: SearchPlan, study: StudyRecord, ledger: Ledger) -> None:
        """Shows nothing."""

    def budget_planned(self, lines: Sequence[str]) -> None:
        """Shows nothing."""

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:
        """Shows nothing."""

    def phase(self, name: str) -> None:
        """Shows nothing."""


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        run_dir: Directory of the run.
        finished: False when the search was interrupted; it can be resumed.
        budget_device_seconds: The budget: devices reserved x seconds reserved.
        spent_device_seconds: How much of it was spent.
        trials: Number of trials by outcome: complete, pruned, failed, out_of_budget, running.
        best: Scores by name of the best single training on validation images; empty when there is none.
        ensemble: Scores by name of the ensemble on validation images; empty when interrupted.
        export: Folder of the exported files; None when nothing was exported.
        pareto_front: With several objectives, the trials that no other dominates.
        external_estimate: Expected accuracy at an external site with its prediction interval; None without a held-out test.

    Example:
        >>> import bloodauto
        >>> result = bloodauto.resume_search("runs/first")
        >>> sorted(result.to_json())
        ['best', 'budget_device_seconds', 'ensemble', 'export', 'finished', 'front', 'run', 'spent_device_seconds', 'trials']
        >>> result.ensemble["shift"] >= result.best["shift"]
        True
    """

    run_dir: Path
    finished: bool
    budget_device_seconds: float
    spent_device_seconds: float
    trials: Mapping[str, int]
    best: Mapping[str, float]
    ensemble: Mapping[str, float]
    export: Path | None
    pareto_front: tuple[ParetoTrial, ...] = ()
    external_estimate: ExternalEstimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values under the keys of the last line of ``bloodauto search --json``."""
        return {
            "run": str(self.run_dir),
            "finished": self.finished,
            "budget_device_seconds": self.budget_device_seconds,
            "spent_device_seconds": round(self.spent_device_seconds, 3),
            "trials": dict(self.trials),
            "best": dict(self.best),
            "ensemble": dict(self.ensemble),
            "export": None if self.export is None else str(self.export),
            "front": [trial.model_dump() for trial in self.pareto_front],
        }


def search(  # one keyword for each setting
    data: str | Path,
    *,
    budget: str,
    run_dir: str | Path,
    space: str | Path | None = None,
    objective: str = "shift",
    workers: int | None = None,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float | None = None,
    seed: int = 0,
    pruner: str = "successive_halving",
    warm_start: str | Path = "shipped",
    prior: Sequence[str | Path] | None = None,
    weights_dir: str | Path | None = None,
    target_images: str | Path | None = None,
    image_size_px: int | None = None,
    cleaning: bool = True,
    refit_fraction: float = 0.5,
    max_trials: int | None = None,
    max_members: int = 4,
    max_latency_ms: float | None = None,
    storage: str | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Searches recipes, trains the best ones longer, selects an ensemble and exports it, inside a budget.

    ``SearchSettings`` says for each keyword what it limits and what it does not.

    Args:
        data: Folder of class folders, ``.csv`` manifest, ``.npz`` file, or ``synthetic`` for drawn cells.
        budget: What the search may spend: ``40gpu-h``, ``30cpu-min``, or ``2h`` of wall-clock time.
        run_dir: A new directory for everything that the search writes.
        space: Name of a shipped search space, or a ``.yaml`` file; None: ``gpu`` with GPUs, otherwise ``small``.
        objective: What the search maximizes; several objectives with commas, such as ``shift,latency``.
        workers: Trainings at a time; None: as many as cores, memory and GPUs allow.
        cpus_per_trial: CPU cores that each training reserves.
        gpus_per_trial: GPUs that each training reserves, or a fraction of one; None: 1 with GPUs, otherwise 0.
        seed: Seed of splits, shifted images, suggestions and trainings.
        pruner: ``successive_halving``, ``hyperband``, ``median`` or ``none``.
        warm_start: Recipes that are tried first: ``shipped``, a folder, a file, or ``none``.
        prior: Directories of earlier runs whose trials this search starts from; None: none.
        weights_dir: Folder of pre-trained weights that is searched first.
        target_images: Unlabelled images of the site where the model will be used.
        image_size_px: Side in px to which images are resized; None keeps their size.
        cleaning: Whether images that the data check finds broken, duplicated or mislabelled are excluded.
        refit_fraction: Largest fraction of the budget, between 0 and 1, that is reserved for refits.
        max_trials: Largest number of trials; None: as many as the budget affords.
        max_members: Largest number of ensemble members.
        max_latency_ms: Longest time in milliseconds that the ensemble may take for one image; None: no limit.
        storage: URL of an Optuna storage; None: an SQLite file in the run directory.
        address: Address of a Ray cluster; None: this machine.
        progress: Receives the progress; None shows nothing.

    Returns:
        Counts, scores and the exported files.

    Raises:
        BudgetError: The budget ended before anything could be exported.
        UserError: Something the user must mend. Nothing was spent, unless every training failed.

    Example:
        >>> import bloodauto
        >>> result = bloodauto.search(
        ...     "cells.npz", budget="100cpu-s", run_dir="runs/new", space="space.yaml", workers=2, refit_fraction=0.3
        ... )
        >>> result.finished
        True
        >>> result.spent_device_seconds <= result.budget_device_seconds
        True
    """
    requested = {
        "data": str(data),
        "budget": budget,
        "space": None if space is None else str(space),
        "objective": objective,
        "workers": workers,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "seed": seed,
        "pruner": pruner,
        "warm_start": str(warm_start),
        "prior": None if prior is None else tuple(str(run) for run in prior),
        "weights_dir": None if weights_dir is None else str(weights_dir),
        "target_images": None if target_images is None else str(target_images),
        "image_size_px": image_size_px,
        "cleaning": cleaning,
        "refit_fraction": refit_fraction,
        "max_trials": max_trials,
        "max_members": max_members,
        "max_latency_ms": max_latency_ms,
        "storage": storage,
    }
    settings = resolve_settings(absolute_paths({name: value for name, value in requested.items() if value is not None}))
    return start_search(settings, run_dir, address=address, progress=progress)


def start_search(
    settings: SearchSettings,
    run_dir: str | Path,
    *,
    address: str | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Starts a search from complete settings; otherwise as ``search``.

    Args:
        settings: What decides about the search; paths in it are absolute.
        run_dir: A new directory.
        address: Address of a Ray cluster; None: this machine.
        progress: Receives the progress; None shows nothing.

    Returns:
        As ``search``.

    Raises:
        UserError: As ``search``.
    """
    run = RunDirectory(Path(run_dir))
    _check_new(run)
    space = find_space(settings.space)
    check_gpus(settings, address)
    if settings.storage is not None:
        if has_password(settings.storage):
            raise RunError(
                f"--storage {mask_passwords(settings.storage)}: expected a URL without a password, which the run's "
                "settings would hold in plain text. Put it into ~/.pgpass or the server's own file of that kind."
            )
        check_storage(settings.storage)
    with restored_process_state():
        # Everything is checked before anything is written.
        plan = plan_search(run, settings, space)
        _check_budget_suffices(plan, address)
        with run_lock(run):
            _check_new(run)
            study = StudyRecord.open(run, plan.space, settings.objectives, storage=settings.storage)
            save_space(run, space)
            # From here on the run can be resumed.
            write_settings(run, settings)
            return _execute(plan, study, address, SilentProgress() if progress is None else progress)


def resume_search(
    run_dir: str | Path,
    *,
    expected: Mapping[str, Any] | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Continues a search that was interrupted or killed: nothing finished is lost or repeated, the ledger is continued.

    Args:
        run_dir: Directory of the run.
        expected: Settings by name that must be those of the run; None checks nothing. ``data`` and ``weights_dir`` may name
            other folders: the run takes them on when the images there are the same.
        address: Address of a Ray cluster; None: this machine.
        progress: Receives the progress; None shows nothing.

    Returns:
        As ``search``. A search that is finished already is summarised.

    Raises:
        RunError: No run is there, its images have changed, or ``expected`` differs from its settings.
        UserError: As ``search``.

    Example:
        >>> import bloodauto
        >>> result = bloodauto.resume_search("runs/first")  # finished already
        >>> result.finished, result.trials["running"]
        (True, 0)
    """
    run = RunDirectory(Path(run_dir))
    settings = read_settings(run)
    requested = {} if expected is None else absolute_paths(expected)
    # The images may lie elsewhere by now: whether they are the same is told by their digest.
    moved: dict[str, Any] = {name: requested.pop(name) for name in ("data", "weights_dir") if name in requested}
    check_settings_unchanged(settings, requested)
    check_gpus(settings, address)
    with restored_process_state(), run_lock(run):
        resumed = settings.model_copy(update=moved)
        plan = plan_search(run, resumed, run_space_path(run))
        if resumed != settings:
            write_settings(run, resumed)
            settings = resumed
        study = StudyRecord.open(run, plan.space, settings.objectives, storage=settings.storage)
        return _execute(plan, study, address, SilentProgress() if progress is None else progress)


def _execute(plan: SearchPlan, study: StudyRecord, address: str | None, progress: Progress) -> SearchResult:
    """Trains, finalizes and summarises, from whatever state the run is in."""
    run, settings = plan.run, plan.settings
    with run_log(run):
        save_run_data(run, plan.data)
        plan_record = PlanRecord(run, progress.budget_planned)

        def on_tick(scheduler: Scheduler) -> None:
            plan_record.update(scheduler)
            progress.running(scheduler, account.ledger)

        executor = make_executor(plan, address=address, on_tick=on_tick)
        # Ray holds no device when the account is closed; its slow shutdown comes after that.
        with (
            executor,
            BudgetAccount.open(
                run.ledger,
                budget_device_seconds=settings.budget_device_seconds,
                devices_per_slot=settings.devices_per_worker,
            ) as account,
        ):
            progress.planned(plan, study, account.ledger)
            finished = run.ensemble.exists and run.export.labels.exists
            if not finished:
                write_text(run.next_steps, _next_steps(run, finished=False))
                spent = account.ledger.spent_device_seconds
                _log.info("search in %s: budget %s, %.0f device-seconds spent", run.root, settings.budget, spent)
                finished, study = _train(plan, study, account, executor, address)
                if finished:
                    finalize(plan, study, account, phase=progress.phase)
                    _check_exported(run)
                spent = account.ledger.spent_device_seconds
                _log.info("%s, %.0f device-seconds spent", "finished" if finished else "interrupted", spent)
        spent = account.ledger.spent_device_seconds
        result = _summarise(plan, study, spent, finished=finished)
        write_text(run.next_steps, _next_steps(run, finished=finished))
        return result


def _train(
    plan: SearchPlan, study: StudyRecord, account: BudgetAccount, executor: RayExecutor, address: str | None
) -> tuple[bool, StudyRecord]:
    """Trains until the budget for trainings is spent; where Ray is lost, it is started anew.

    Returns:
        Whether nobody interrupted; and the study as it is then.

    Raises:
        RunError: Ray is lost again and again.
    """
    for _ in range(_MAX_RAY_STARTS):
        try:
            return run_trainings(plan, study, account, executor, speed=_machine_speed(plan, address)), study
        except WorkersLost:
            # Nothing can run until Ray runs again, so nothing is charged.
            account.close()
            executor.shut_down()
            study = StudyRecord.open(plan.run, plan.space, plan.settings.objectives, storage=plan.settings.storage)
    raise RunError(
        f"{plan.run.root}: the processes of Ray ended {_MAX_RAY_STARTS} times; is the machine out of memory? Nothing is "
        f"lost; go on with: bloodauto search --resume --run {shell_word(plan.run.root)}"
    )


def _machine_speed(plan: SearchPlan, address: str | None) -> MachineSpeed | None:
    """What is known of this machine's speed; None for a cluster, whose workers have speeds of their own."""
    if address is not None:
        return None
    return MachineSpeed(len(plan.data.splits.train_index()), on_gpu=plan.settings.gpus_per_trial > 0)


def _check_budget_suffices(plan: SearchPlan, address: str | None) -> None:
    """Refuses a budget with which nothing could be exported."""
    settings, speed = plan.settings, _machine_speed(plan, address)
    known = () if speed is None else speed.epoch_seconds(covering_recipes(plan.space))
    least = LeastBudget.of_search(settings.workers, settings.devices_per_worker, known)
    least.check(parse_budget(settings.budget))


def _check_exported(run: RunDirectory) -> None:
    """A search is finished when its export is there."""
    if not run.export.labels.exists:
        raise BudgetError(
            f"{run.root}: the budget ended before the export; what was trained is kept. Write the export now: "
            f"bloodauto export-best --run {shell_word(run.root)} --output {shell_word(run.export.root)}"
        )


def _check_new(run: RunDirectory) -> None:
    if printable(run.root) != str(run.root):
        raise RunError(f"{run.root}: expected a name of printable UTF-8 text for a run. Take another --run.")
    if run.settings.is_file():
        raise RunError(
            f"{run.root}: a run is there already. Go on with it (bloodauto search --resume --run {shell_word(run.root)}), "
            "or take another --run."
        )


def _summarise(plan: SearchPlan, study: StudyRecord, spent_device_seconds: float, *, finished: bool) -> SearchResult:
    """Counts and scores of a run in its present state."""
    run = plan.run
    outcomes = (trial.outcome for trial in study.attributes().values())
    counts = Counter("running" if outcome is None else outcome for outcome in outcomes)
    pareto_front, held_out_test = run.pareto_front.read_if_exists(), run.held_out_test.read_if_exists()
    ensemble = run.ensemble.read_if_exists()
    best: Mapping[str, float] = {}
    if ensemble is not None:
        best = ensemble.best_single.scores.known()
    elif study.incumbent is not None:
        best = {"objective": study.incumbent.objective}
    return SearchResult(
        run_dir=run.root,
        finished=finished,
        budget_device_seconds=plan.settings.budget_device_seconds,
        spent_device_seconds=spent_device_seconds,
        trials={name: counts[name] for name in _OUTCOMES},
        best=best,
        ensemble={} if ensemble is None else ensemble.scores.known(),
        export=run.export.root if run.export.labels.exists else None,
        pareto_front=() if pareto_front is None else pareto_front.trials,
        external_estimate=None if held_out_test is None else held_out_test.external,
    )


def _next_steps(run: RunDirectory, *, finished: bool) -> str:
    folder = shell_word(run.root)
    if not finished:
        return f"bloodauto search --resume --run {folder}\nbloodauto dashboard --run {folder}\n"
    return (
        f"bloodauto report --run {folder}\n"
        f"bloodauto dashboard --run {folder}\n"
        f"bloodauto export-best --run {folder} --output best\n"
        f"bloodauto predict {shell_word(run.export.keras_model)} IMAGES --output predictions.csv\n"
    )
