"""What comes after a search's trainings, on what is left of its budget: the ensemble, its export, and clearing up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.tuning.objectives import write_front

if TYPE_CHECKING:
    import optuna

    from bloodauto.ensemble.assemble import Judged
    from bloodauto.ensemble.record import Ensemble
    from bloodauto.tuning.budget.ledger import Ledger
    from bloodauto.workflows.prepare import PreparedData
    from bloodauto.workflows.session import Plan

#: What is given up at the end of the budget takes a moment to stop.
_LAST_SECONDS = 1.0
#: Of what is kept for the export, what writing the model takes.
_WRITING_SHARE = 0.4
#: An attribute of the study.
_TRAININGS_OVER = "trainings_over"


def conclude(plan: Plan, study: optuna.Study, ledger: Ledger, *, export: bool, phase: Callable[[str], None]) -> None:
    """Ensemble and export, charged to the driver's lane, which is open.

    When the budget is spent whatever is being done is given up; ``export-best`` makes up for it.

    Raises:
        RunError: no training ran its course.
    """
    from bloodauto.tuning.budget.hard_limit import OutOfBudget, ends_within
    from bloodauto.tuning.executors.shutdown import DRIVER

    def seconds_left() -> float:
        return ledger.left_device_seconds / plan.settings.devices_per_worker

    study.set_user_attr(_TRAININGS_OVER, True)
    ledger.enter(DRIVER, "ensemble")
    left_out: Sequence[str] = ("the ensemble",)
    try:
        with ends_within(seconds_left() - _LAST_SECONDS):
            phase("choosing the ensemble")
            chosen = choose_ensemble(plan, study, seconds_left=seconds_left)
            left_out = ("the export",)
            ledger.beat()
            if export:
                ledger.enter(DRIVER, "export")
                phase("exporting")
                left_out = _export(plan, chosen, seconds_left)
            _keep_needed(plan.run)
    except OutOfBudget:
        pass
    if export and left_out:
        phase(
            f"the budget did not suffice for {' and '.join(left_out)}; later: "
            f"bloodauto export-best --run {plan.run.root} --output {plan.run.export}"
        )


def is_over(study: optuna.Study) -> bool:
    """Whether a search has nothing more to train, so that an ensemble may be chosen."""
    return _TRAININGS_OVER in study.user_attrs


def _export(plan: Plan, chosen: Ensemble, seconds_left: Callable[[], float]) -> Sequence[str]:
    """Returns what there was no time for."""
    from bloodauto.export.ensemble_export import export_run

    data = plan.data
    exported = export_run(
        plan.run,
        plan.run.export,
        data.cells,
        data.splits,
        ("keras", "codabench"),
        seed=plan.settings.seed,
        ensemble=chosen,
        seconds_left=lambda: seconds_left() - _LAST_SECONDS,
    )
    names = {"codabench": "the competition's file", "test": "the sealed test"}
    return [names[one] for one in exported.left_out]


def choose_ensemble(plan: Plan, study: optuna.Study, *, seconds_left: Callable[[], float]) -> Ensemble:
    """Chooses the ensemble among the trainings that are over, and writes it.

    Raises:
        RunError: no training ran its course.
    """
    import math

    from bloodauto.ensemble.assemble import Caps, assemble
    from bloodauto.ensemble.record import write_ensemble
    from bloodauto.ensemble.scoring import Places
    from bloodauto.models.device import claim_what_is_free

    settings, data = plan.settings, plan.data
    completed = _leading(plan, study)
    if not completed and (failures := _failures(study)):
        raise RunError(
            f"{plan.run.root}: no training ran its course, so there is nothing to export; {failures}. Mend that, then "
            f"go on with what is left of the budget: bloodauto search --resume --run {plan.run.root}"
        )
    metric: Any = settings.objectives.first
    claim_what_is_free(cores=max(math.floor(settings.cpus_per_trial), 1), gpu_share=0.0)
    from bloodauto.evaluation.member_latency import latency_of

    places = Places(
        folds_are_labs=data.splits.folds_are_labs,
        class_shares=_class_shares(data) if len(data.target) else None,
    )
    chosen = assemble(
        plan.run,
        completed,
        num_folds=data.splits.num_folds,
        metric=metric,
        caps=Caps(settings.max_members, settings.max_latency_ms),
        latency=latency_of(data.cells),
        places=places,
        judge_stopped=lambda: _judge_stopped(plan, study, completed, seconds_left),
    )
    write_ensemble(plan.run, chosen)
    _write_places(plan, chosen)
    return chosen


def _class_shares(data: PreparedData) -> tuple[float, ...]:
    """How often each class is expected where the target images come from: as among the images that are learnt from."""
    counts = data.cells.class_counts(data.cleaning.keep)
    return tuple((counts / counts.sum()).tolist())


def _judge_stopped(
    plan: Plan, study: optuna.Study, completed: Sequence[tuple[int, float]], seconds_left: Callable[[], float]
) -> Judged:
    """Judges the best of the trials that were stopped, in what the export will probably leave of the budget.

    Refits that were ended before they were judged come first, and may take what is kept for the sealed test: much was spent on
    them, and the test can be opened later.
    """
    from bloodauto.config.space import realise
    from bloodauto.ensemble.assemble import Judged
    from bloodauto.ensemble.pruned_trials import judge_stopped
    from bloodauto.evaluation.fold_data import prepare
    from bloodauto.tuning.budget.recorded_costs import costs_of

    settings, data = plan.settings, plan.data
    if len(settings.objectives.names) > 1:
        # What was stopped is on no front, of which alone the ensemble is made.
        return Judged()
    trials = study.get_trials(deepcopy=False)
    stopped = [one.number for one in trials if one.user_attrs.get("outcome") in ("pruned", "out_of_budget")]
    folders = sorted((plan.run.root / "refits").glob("*-fold0-*"))
    refits = [folder.name for folder in folders if not (folder / "result.json").is_file()]
    best = max(completed, key=lambda trial: trial[1])[0]
    likely = {best, *(int(folder.name.split("-")[0]) for folder in folders)}
    costs = costs_of(study, plan.space)
    for_export = costs.final_lane_seconds([realise(plan.space, trials[number].params) for number in sorted(likely)], 0)
    kept = _WRITING_SHARE * for_export if refits else for_export
    metric: Any = settings.objectives.first
    return judge_stopped(
        plan.run,
        stopped,
        [number for number, _ in completed],
        refits,
        lambda: prepare(data.cells, data.splits, plan.suite, target=data.target),
        objective=metric,
        seconds_left=lambda: seconds_left() - kept,
        start_seconds=costs.start_seconds(cold=True),
    )


def _write_places(plan: Plan, chosen: Ensemble) -> None:
    """What is known of the ensemble in the laboratories that the data name, and in the one it is meant for."""
    from bloodauto.ensemble.assemble import out_of_fold_answers
    from bloodauto.ensemble.site_scores import score_labs, write_labs
    from bloodauto.ensemble.target_estimate import estimate_target, write_target

    data = plan.data
    if data.splits.folds_are_labs:
        labels, probabilities = out_of_fold_answers(chosen)
        folds = sorted({one.fold for member in chosen.members for one in member.networks})
        write_labs(plan.run, score_labs(data.cells, data.splits, folds, labels, probabilities))
    if len(data.target):
        write_target(plan.run, estimate_target(chosen, np.asarray(_class_shares(data))))


def complete_trials(study: optuna.Study) -> list[Any]:
    """The trials that ran their course."""
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
    complete, objectives = complete_trials(study), plan.settings.objectives
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
