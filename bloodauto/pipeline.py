"""The whole way from a search's settings to its export; what the command line and Python callers both use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bloodauto.errors import RunError, UserError
from bloodauto.files import RunDirectory, write_text
from bloodauto.searching.objectives import read_front, write_front
from bloodauto.searching.settings import (
    SearchSettings,
    absolute_paths,
    check_caps,
    check_same,
    new_settings,
    read_settings,
    write_settings,
)

if TYPE_CHECKING:
    import optuna

    from bloodauto.ensemble.record import Ensemble
    from bloodauto.export.best import Exported
    from bloodauto.searching.ledger import Ledger
    from bloodauto.searching.policy import Policy
    from bloodauto.searching.session import Plan


class Progress(Protocol):
    """Is told how a search goes. The default says nothing."""

    def planned(self, plan: Plan, ledger: Ledger) -> None:
        """Everything is checked; the budget starts to run."""

    def running(self, policy: Policy, ledger: Ledger) -> None:
        """Several times a second."""

    def phase(self, name: str) -> None:
        """The trainings are over; what comes after them has begun."""


class Silent:
    """A progress that says nothing."""

    def planned(self, plan: Plan, ledger: Ledger) -> None: ...

    def running(self, policy: Policy, ledger: Ledger) -> None: ...

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
    from bloodauto.searching.prepare import find_space, keep_data, keep_space, own_space
    from bloodauto.searching.session import locked, make_plan, open_ledger, open_study, run_trainings

    progress = Silent() if progress is None else progress
    directory = RunDirectory(Path(run))
    given = absolute_paths({name: value for name, value in given.items() if value is not None})
    if resume:
        settings = read_settings(directory)
        check_same(settings, given)
    else:
        settings = new_settings(given)
        _check_new(directory)
        space = find_space(settings.space)
        # Everything is checked before anything is written.
        plan = make_plan(directory, settings, space)
    with locked(directory):
        if resume:
            plan = make_plan(directory, settings, own_space(directory))
            study = open_study(directory, settings)
        else:
            _check_new(directory)
            study = open_study(directory, settings)
            keep_space(directory, space)
            # From here on the run can be resumed.
            write_settings(directory, settings)
        keep_data(directory, plan.data)
        ledger = open_ledger(directory, settings)
        progress.planned(plan, ledger)
        write_text(directory.next_steps, _next_steps(directory, finished=False))
        told = progress

        def show(policy: Policy) -> None:
            told.running(policy, ledger)

        finished = directory.ensemble.is_file() and (directory.export / "labels.json").is_file()
        if not finished:
            finished = run_trainings(plan, study, ledger, address=address, show=show)
            if finished:
                _conclude(plan, study, ledger, export=export, phase=progress.phase)
        summary = summarise(directory, settings, study, ledger.spent_device_seconds, finished=finished)
        write_text(directory.next_steps, _next_steps(directory, finished=finished))
        return summary


def _check_new(run: RunDirectory) -> None:
    if run.settings.is_file():
        raise RunError(
            f"{run.root}: a run is there already. Go on with it (bloodauto search --resume --run {run.root}), "
            "or take another --run."
        )


def _conclude(plan: Plan, study: optuna.Study, ledger: Ledger, *, export: bool, phase: Callable[[str], None]) -> None:
    """Ensemble and export, charged as one worker's devices."""
    import math

    from bloodauto.ensemble.assemble import Caps, assemble
    from bloodauto.ensemble.record import write_ensemble
    from bloodauto.trial.device import claim_what_is_free

    settings = plan.settings
    ledger.reserve("driver", settings.devices_per_worker, "ensemble")
    try:
        phase("choosing the ensemble")
        completed = _leading(plan, study)
        if not completed and (failures := _failures(study)):
            raise RunError(
                f"{plan.run.root}: no training ran its course, so there is nothing to export; {failures}. Mend that, then "
                f"go on with what is left of the budget: bloodauto search --resume --run {plan.run.root}"
            )
        metric: Any = settings.objectives.first
        num_folds = plan.data.splits.num_folds
        claim_what_is_free(cores=max(math.floor(settings.cpus_per_trial), 1), gpu_share=0.0)
        from bloodauto.export.latency import latency_of

        chosen = assemble(
            plan.run,
            completed,
            num_folds=num_folds,
            metric=metric,
            caps=Caps(settings.max_members, settings.max_latency_ms),
            latency=latency_of(plan.data.cells),
        )
        write_ensemble(plan.run, chosen)
        _write_places(plan, chosen)
        ledger.beat()
        if export:
            ledger.enter("driver", "export")
            phase("exporting")
            from bloodauto.export.best import export_run

            formats = ("keras", "codabench")
            data = plan.data
            export_run(
                plan.run,
                plan.run.export,
                data.cells,
                data.splits,
                formats,
                seed=settings.seed,
                seconds_left=lambda: ledger.left_device_seconds / settings.devices_per_worker,
            )
        _keep_needed(plan.run)
    finally:
        ledger.release("driver")


def _write_places(plan: Plan, chosen: Ensemble) -> None:
    """What is known of the ensemble in the laboratories that the data name, and in the one it is meant for."""
    from bloodauto.ensemble.assemble import out_of_fold_answers
    from bloodauto.ensemble.laboratories import score_labs, write_labs
    from bloodauto.ensemble.target import estimate_target, write_target

    data = plan.data
    if data.splits.folds_are_labs:
        labels, probabilities = out_of_fold_answers(chosen)
        folds = sorted({one.fold for member in chosen.members for one in member.networks})
        write_labs(plan.run, score_labs(data.cells, data.splits, folds, labels, probabilities))
    if len(data.target):
        write_target(plan.run, estimate_target(chosen, data.cells.class_counts(data.cleaning.keep)))


def _complete(study: optuna.Study) -> list[Any]:
    import optuna

    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if trial.values is not None
    ]


def _failures(study: optuna.Study) -> str:
    """How many trials failed for each reason, with a message of each; empty when none did."""
    failed = [
        trial.user_attrs for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("outcome") == "failed"
    ]
    messages = {trial["reason"]: trial.get("message", "") for trial in failed}
    counts = Counter(trial["reason"] for trial in failed)
    return "; ".join(f"{count} failed ({reason}: {messages[reason]})" for reason, count in counts.items())


def _leading(plan: Plan, study: optuna.Study) -> list[tuple[int, float]]:
    """Number and leading objective of the trials an ensemble may be made of: with several objectives, the front's."""
    complete, objectives = _complete(study), plan.settings.objectives
    if len(objectives.names) > 1:
        write_front(plan.run.root, objectives, complete, plan.space)
        complete = objectives.front(complete, lambda trial: trial.values)
    return [(trial.number, float(trial.values[0])) for trial in complete]


def _keep_needed(run: RunDirectory) -> None:
    """Deletes the states of trainings that are over, and weights that are no member's: they fill disks."""
    from bloodauto.ensemble.record import read_ensemble

    members = {one.folder.resolve() for member in read_ensemble(run).members for one in member.networks}
    for parent in (run.root / "trials", run.root / "refits"):
        for folder in parent.iterdir() if parent.is_dir() else []:
            (folder / "checkpoint.npz").unlink(missing_ok=True)
            if folder.resolve() not in members:
                (folder / "best.npz").unlink(missing_ok=True)


def summarise(
    directory: RunDirectory, settings: SearchSettings, study: optuna.Study, spent: float, *, finished: bool
) -> SearchSummary:
    """Counts and scores of a run as it stands."""
    from bloodauto.ensemble.record import read_ensemble

    counts = Counter(str(trial.user_attrs.get("outcome", "running")) for trial in study.get_trials(deepcopy=False))
    ensemble = read_ensemble(directory) if directory.ensemble.is_file() else None
    best: Mapping[str, float] = {}
    if ensemble is not None:
        best = ensemble.best_single[1]
    elif _complete(study):
        best = {"objective": max(float(trial.values[0]) for trial in _complete(study))}
    exported = directory.export if (directory.export / "labels.json").is_file() else None
    return SearchSummary(
        run=directory.root,
        finished=finished,
        budget_device_seconds=settings.budget_device_seconds,
        spent_device_seconds=spent,
        trials={name: counts.get(name, 0) for name in ("complete", "pruned", "failed", "out_of_budget", "running")},
        best=best,
        ensemble={} if ensemble is None else ensemble.scores,
        export=exported,
        front=read_front(directory.root),
    )


def _next_steps(run: RunDirectory, *, finished: bool) -> str:
    if not finished:
        return f"bloodauto search --resume --run {run.root}\nbloodauto dashboard --run {run.root}\n"
    return (
        f"bloodauto report --run {run.root}\n"
        f"bloodauto dashboard --run {run.root}\n"
        f"bloodauto export-best --run {run.root} --output best\n"
        f"bloodauto predict {run.export / 'model.keras'} IMAGES --output predictions.csv\n"
    )


def export_best(
    *,
    run: str | Path,
    output: str | Path,
    formats: Sequence[str] = ("keras", "codabench"),
    views: bool = False,
    max_members: int | None = None,
    max_latency_ms: float | None = None,
    target_images: str | Path | None = None,
) -> Exported:
    """Writes the ensemble of a run to a folder: the formats asked for, ``labels.json`` and a model card.

    Args:
        views: average over test-time views inside the model: those that the members' recipes name, else the standard ones.
        max_members, max_latency_ms: tighter caps than the search had; the best of its members under them are exported.
        target_images: unlabelled images of where the model will be used, to which it is adapted.

    Raises:
        UserError: no such run or format, images that have changed, a search that has not come that far.
    """
    from bloodauto.data.split import read_splits
    from bloodauto.ensemble.assemble import Caps
    from bloodauto.ensemble.record import read_ensemble
    from bloodauto.searching.prepare import read_cells, read_target
    from bloodauto.trial.device import claim_what_is_free

    directory = RunDirectory(Path(run))
    settings = read_settings(directory)
    check_caps(max_members, max_latency_ms)
    own = read_ensemble(directory)
    caps = None
    if max_members is not None or max_latency_ms is not None:
        caps = Caps(len(own.members) if max_members is None else max_members, max_latency_ms)
    claim_what_is_free(cores=max(int(settings.cpus_per_trial), 1), gpu_share=0.0)
    from bloodauto.export.best import check_exportable, export_run
    from bloodauto.export.write import check_formats

    check_formats(formats)
    check_exportable(directory)
    cells = read_cells(settings.data, settings.image_size_px)
    splits = read_splits(directory.splits, cells)
    target = None
    if target_images is not None:
        target = read_target(str(target_images), cells, seed=settings.seed)
    return export_run(
        directory, Path(output), cells, splits, formats, seed=settings.seed, views=views, caps=caps, target=target
    )


def predict(*, model: str | Path, images: str | Path, output: str | Path) -> Path:
    """Answers for a folder, file or array of images, as a CSV: name, label, one probability per class, and whether it is sure.

    Raises:
        UserError: no such model, or no images.
    """
    from bloodauto.trial.wake import wake_tensorflow

    wake_tensorflow()
    from bloodauto.data.load import load_images
    from bloodauto.export.predict import open_model, predict_images, write_predictions_csv

    opened = open_model(Path(model))
    if opened.height_px != opened.width_px:
        raise UserError(f"{model}: expected a model of square images, got {opened.height_px} x {opened.width_px} px.")
    pixels, names = load_images(Path(images), opened.height_px)
    answers = predict_images(opened, pixels)
    write_predictions_csv(Path(output), names.tolist(), opened.class_names, answers, opened.unsure)
    return Path(output)
