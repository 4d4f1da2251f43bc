"""The whole way from a search's settings to its export; what the command line and Python callers both use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bloodauto.config.settings import (
    SearchSettings,
    absolute_paths,
    check_ensemble_limits,
    check_settings_unchanged,
    read_settings,
    resolve_settings,
    write_settings,
)
from bloodauto.errors import RunError, UserError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_text
from bloodauto.tuning.objectives import read_pareto_front

if TYPE_CHECKING:
    import optuna

    from bloodauto.export.ensemble_export import Exported
    from bloodauto.tuning.budget.ledger import Ledger
    from bloodauto.tuning.scheduler import Scheduler
    from bloodauto.workflows.session import SearchPlan


class Progress(Protocol):
    """Is told how a search goes. The default says nothing."""

    def planned(self, plan: SearchPlan, ledger: Ledger) -> None:
        """Everything is checked; the budget starts to run."""

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None:
        """Several times a second."""

    def phase(self, name: str) -> None:
        """The trainings are over; what comes after them has begun."""


class SilentProgress:
    """A progress that says nothing."""

    def planned(self, plan: SearchPlan, ledger: Ledger) -> None: ...

    def running(self, scheduler: Scheduler, ledger: Ledger) -> None: ...

    def phase(self, name: str) -> None: ...


@dataclass(frozen=True)
class SearchSummary:
    """What a search came to.

    Attributes:
        run: its directory.
        finished: False when it was interrupted; it can be resumed.
        budget_device_seconds, spent_device_seconds: devices reserved x seconds reserved.
        trials: how many by outcome: complete, pruned, failed, out_of_budget, running.
        best: scores by name of the best single training, empty when there is none.
        ensemble: scores by name of the ensemble; empty when interrupted.
        export: the exported files' folder, or None.
        front: with several objectives, the trials no other beats in all of them: trial, backbone, recipe id, values.
    """

    run: Path
    finished: bool
    budget_device_seconds: float
    spent_device_seconds: float
    trials: Mapping[str, int]
    best: Mapping[str, float]
    ensemble: Mapping[str, float]
    export: Path | None
    front: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "finished": self.finished,
            "budget_device_seconds": self.budget_device_seconds,
            "spent_device_seconds": round(self.spent_device_seconds, 3),
            "trials": dict(self.trials),
            "best": dict(self.best),
            "ensemble": dict(self.ensemble),
            "export": None if self.export is None else str(self.export),
            "front": [dict(row) for row in self.front],
        }


def search(
    *,
    run: str | Path,
    resume: bool = False,
    address: str | None = None,
    export: bool = True,
    progress: Progress | None = None,
    **given: Any,
) -> SearchSummary:
    """Searches, refits, assembles an ensemble and exports it, inside a budget.

    Args:
        run: the directory of the run; new, unless ``resume``.
        resume: go on with a run that was interrupted or killed; settings may then be left out, and must not differ.
        address: of a Ray cluster; None: this machine.
        export: whether to write ``export/`` at the end.
        progress: is told how it goes.
        **given: fields of ``SearchSettings``; only ``budget`` must be given.

    Raises:
        UserError: something the user must mend; nothing was spent, unless the run itself failed.
    """
    from bloodauto.workflows.finalize import finalize
    from bloodauto.workflows.prepare import find_space, run_space_path, save_data, save_space
    from bloodauto.workflows.session import locked, make_plan, open_ledger, open_study, run_trainings

    progress = SilentProgress() if progress is None else progress
    directory = RunDirectory(Path(run))
    given = absolute_paths({name: value for name, value in given.items() if value is not None})
    if resume:
        settings = read_settings(directory)
        check_settings_unchanged(settings, given)
    else:
        settings = resolve_settings(given)
        _check_new(directory)
        space = find_space(settings.space)
        # Everything is checked before anything is written.
        plan = make_plan(directory, settings, space)
    with locked(directory):
        if resume:
            plan = make_plan(directory, settings, run_space_path(directory))
            study = open_study(directory, settings)
        else:
            _check_new(directory)
            study = open_study(directory, settings)
            save_space(directory, space)
            # From here on the run can be resumed.
            write_settings(directory, settings)
        save_data(directory, plan.data)
        ledger = open_ledger(directory, settings)
        progress.planned(plan, ledger)
        write_text(directory.next_steps, _next_steps(directory, finished=False))
        told = progress

        def show(scheduler: Scheduler) -> None:
            told.running(scheduler, ledger)

        finished = directory.ensemble.path.is_file() and (directory.export.root / "labels.json").is_file()
        if not finished:
            with run_trainings(plan, study, ledger, address=address, show=show) as finished:
                if finished:
                    finalize(plan, study, ledger, export=export, phase=progress.phase)
        summary = summarise(directory, settings, study, ledger.spent_device_seconds, finished=finished)
        write_text(directory.next_steps, _next_steps(directory, finished=finished))
        return summary


def _check_new(run: RunDirectory) -> None:
    if run.settings.is_file():
        raise RunError(
            f"{run.root}: a run is there already. Go on with it (bloodauto search --resume --run {run.root}), "
            "or take another --run."
        )


def summarise(
    directory: RunDirectory, settings: SearchSettings, study: optuna.Study, spent: float, *, finished: bool
) -> SearchSummary:
    """Counts and scores of a run as it stands."""
    from bloodauto.ensemble.record import read_ensemble
    from bloodauto.workflows.finalize import complete_trials

    counts = Counter(str(trial.user_attrs.get("outcome", "running")) for trial in study.get_trials(deepcopy=False))
    ensemble = read_ensemble(directory) if directory.ensemble.path.is_file() else None
    best: Mapping[str, float] = {}
    if ensemble is not None:
        best = ensemble.best_single[1]
    elif complete_trials(study):
        best = {"objective": max(float(trial.values[0]) for trial in complete_trials(study))}
    exported = directory.export.root if (directory.export.root / "labels.json").is_file() else None
    return SearchSummary(
        run=directory.root,
        finished=finished,
        budget_device_seconds=settings.budget_device_seconds,
        spent_device_seconds=spent,
        trials={name: counts.get(name, 0) for name in ("complete", "pruned", "failed", "out_of_budget", "running")},
        best=best,
        ensemble={} if ensemble is None else ensemble.scores,
        export=exported,
        front=read_pareto_front(directory.root),
    )


def _next_steps(run: RunDirectory, *, finished: bool) -> str:
    if not finished:
        return f"bloodauto search --resume --run {run.root}\nbloodauto dashboard --run {run.root}\n"
    return (
        f"bloodauto report --run {run.root}\n"
        f"bloodauto dashboard --run {run.root}\n"
        f"bloodauto export-best --run {run.root} --output best\n"
        f"bloodauto predict {run.export.root / 'model.keras'} IMAGES --output predictions.csv\n"
    )


def export_best(
    *,
    run: str | Path,
    output: str | Path,
    formats: Sequence[str] = ("keras", "codabench"),
    tta: bool = False,
    max_members: int | None = None,
    max_latency_ms: float | None = None,
    target_images: str | Path | None = None,
    distill: str | Path | None = None,
    budget: str | None = None,
) -> Exported:
    """Writes the ensemble of a run to a folder: the formats asked for, ``labels.json`` and a model card.

    Args:
        views: average over test-time transforms inside the model: those that the members' recipes name, else the standard ones.
        max_members, max_latency_ms: tighter caps than the search had; the best of its members under them are exported.
        target_images: unlabelled images of where the model will be used, to which it is adapted.
        distill: instead of the ensemble a network that learns from its answers: a recipe's file, a shipped one's name, or
            ``smallest``, of the run's own; see ``distillation.find_student``.
        budget: what the student may cost, as of a search; None: what the search left of its own.

    Raises:
        UserError: no such run or format, images that have changed, a search that has not come that far.
    """
    from bloodauto.data.split import read_splits
    from bloodauto.ensemble.assemble import Caps
    from bloodauto.ensemble.record import read_ensemble
    from bloodauto.models.device import claim_device_if_unused
    from bloodauto.workflows.prepare import read_dataset, read_target_images

    directory = RunDirectory(Path(run))
    settings = read_settings(directory)
    check_ensemble_limits(max_members, max_latency_ms)
    ensemble_only = {
        "--tta": tta,
        "--max-members": max_members is not None,
        "--max-latency-ms": max_latency_ms is not None,
        "--target-images": target_images is not None,
    }
    _check_student(distill, budget, [option for option, given in ensemble_only.items() if given])
    # Before anything was charged there is nothing to choose among, and nothing is to be written.
    if not directory.ensemble.path.is_file() and directory.ledger.is_file():
        _choose_missing_ensemble(directory, settings)
    own = read_ensemble(directory)
    caps = None
    if max_members is not None or max_latency_ms is not None:
        caps = Caps(len(own.members) if max_members is None else max_members, max_latency_ms)
    share = 0.0 if distill is None else settings.gpus_per_trial
    claim_device_if_unused(cores=max(int(settings.cpus_per_trial), 1), gpu_fraction=share)
    from bloodauto.export.ensemble_export import check_exportable, export_run
    from bloodauto.export.write import check_formats

    check_formats(formats)
    check_exportable(directory)
    dataset = read_dataset(settings.data, settings.image_size_px)
    splits = read_splits(directory.splits.path, dataset)
    if distill is not None:
        from bloodauto.workflows.distill import distil
        from bloodauto.workflows.session import locked

        with locked(directory):
            exported, distilled = distil(
                directory,
                settings,
                own,
                Path(output),
                formats,
                student=str(distill),
                budget=budget,
                dataset=dataset,
                splits=splits,
            )
        return replace(exported, distilled=distilled)
    target = None
    if target_images is not None:
        target = read_target_images(str(target_images), dataset, seed=settings.seed)
    return export_run(
        directory, Path(output), dataset, splits, formats, seed=settings.seed, tta=tta, caps=caps, target=target
    )


def _check_student(distill: str | Path | None, budget: str | None, ensemble_only: Sequence[str]) -> None:
    if distill is None and budget is not None:
        raise UserError("--budget: expected --distill with it; an export by itself trains nothing.")
    if distill is not None and ensemble_only:
        raise UserError(f"{ensemble_only[0]}: expected no --distill with it; a student is one network that looks once.")


def _choose_missing_ensemble(directory: RunDirectory, settings: SearchSettings) -> None:
    """Chooses the ensemble of a search whose budget ended before that; of one that may go on, nothing is chosen."""
    import math

    from bloodauto.workflows.finalize import choose_ensemble, trainings_are_done
    from bloodauto.workflows.prepare import run_space_path
    from bloodauto.workflows.session import locked, make_plan, open_study

    with locked(directory):
        study = open_study(directory, settings)
        if trainings_are_done(study):
            plan = make_plan(directory, settings, run_space_path(directory))
            choose_ensemble(plan, study, seconds_left=lambda: math.inf)


def predict(*, model: str | Path, images: str | Path, output: str | Path) -> Path:
    """Answers for a folder, file or array of images, as a CSV: name, label, one probability per class, and whether it is sure.

    Raises:
        UserError: no such model, or no images.
    """
    from bloodauto.models.tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()
    from bloodauto.data.load import load_images
    from bloodauto.export.predict import open_model, predict_images, which_are_confident, write_predictions_csv

    opened = open_model(Path(model))
    if opened.height_px != opened.width_px:
        raise UserError(f"{model}: expected a model of square images, got {opened.height_px} x {opened.width_px} px.")
    pixels, names = load_images(Path(images), opened.height_px)
    answers = predict_images(opened, pixels)
    sure = which_are_confident(opened, pixels, answers)
    write_predictions_csv(Path(output), names.tolist(), opened.class_names, answers, sure)
    return Path(output)
