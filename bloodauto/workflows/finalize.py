"""What comes after a search's trainings, on what is left of its budget: the ensemble, its export, and clearing up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.tuning.objectives import write_pareto_front

if TYPE_CHECKING:
    import optuna

    from bloodauto.ensemble.assemble import PrunedEvaluation
    from bloodauto.ensemble.record import Ensemble
    from bloodauto.tuning.budget.ledger import Ledger
    from bloodauto.workflows.prepare import PreparedData
    from bloodauto.workflows.session import SearchPlan

#: What is given up at the end of the budget takes a moment to stop.
_SHUTDOWN_SECONDS = 1.0
#: Of what is kept for the export, what writing the model takes.
_WRITING_FRACTION = 0.4
#: An attribute of the study.
_TRAININGS_DONE = "trainings_done"


def finalize(
    plan: SearchPlan, study: optuna.Study, ledger: Ledger, *, export: bool, phase: Callable[[str], None]
) -> None:
    """Ensemble and export, charged to the driver's slot, which is open.

    When the budget is spent whatever is being done is given up; ``export-best`` makes up for it.

    Raises:
        RunError: no training was completed.
    """
    from bloodauto.tuning.budget.hard_limit import OutOfBudget, hard_time_limit
    from bloodauto.tuning.executors.shutdown import DRIVER

    def seconds_left() -> float:
        return ledger.remaining_device_seconds / plan.settings.devices_per_worker

    study.set_user_attr(_TRAININGS_DONE, True)
    ledger.set_phase(DRIVER, "ensemble")
    skipped: Sequence[str] = ("the ensemble",)
    try:
        with hard_time_limit(seconds_left() - _SHUTDOWN_SECONDS):
            phase("choosing the ensemble")
            chosen = choose_ensemble(plan, study, seconds_left=seconds_left)
            skipped = ("the export",)
            ledger.heartbeat()
            if export:
                ledger.set_phase(DRIVER, "export")
                phase("exporting")
                skipped = _export(plan, chosen, seconds_left)
            _delete_unneeded_weights(plan.run)
    except OutOfBudget:
        pass
    if export and skipped:
        phase(
            f"the budget did not suffice for {' and '.join(skipped)}; later: "
            f"bloodauto export-best --run {plan.run.root} --output {plan.run.export.root}"
        )


def trainings_are_done(study: optuna.Study) -> bool:
    """Whether a search has nothing more to train, so that an ensemble may be chosen."""
    return _TRAININGS_DONE in study.user_attrs


def _export(plan: SearchPlan, chosen: Ensemble, seconds_left: Callable[[], float]) -> Sequence[str]:
    """Returns what there was no time for."""
    from bloodauto.export.ensemble_export import export_run

    data = plan.data
    exported = export_run(
        plan.run,
        plan.run.export.root,
        data.dataset,
        data.splits,
        ("keras", "codabench"),
        seed=plan.settings.seed,
        ensemble=chosen,
        seconds_left=lambda: seconds_left() - _SHUTDOWN_SECONDS,
    )
    names = {"codabench": "the competition's file", "test": "the held-out test"}
    return [names[one] for one in exported.skipped]


def choose_ensemble(plan: SearchPlan, study: optuna.Study, *, seconds_left: Callable[[], float]) -> Ensemble:
    """Chooses the ensemble among the trainings that are over, and writes it.

    Raises:
        RunError: no training was completed.
    """
    import math

    from bloodauto.ensemble.assemble import Caps, assemble
    from bloodauto.ensemble.record import write_ensemble
    from bloodauto.ensemble.scoring import SiteInfo
    from bloodauto.models.device import claim_device_if_unused

    settings, data = plan.settings, plan.data
    completed = _eligible_trials(plan, study)
    if not completed and (failures := _failures(study)):
        raise RunError(
            f"{plan.run.root}: no training was completed, so there is nothing to export; {failures}. Mend that, then "
            f"go on with what is left of the budget: bloodauto search --resume --run {plan.run.root}"
        )
    metric = settings.objectives.primary
    claim_device_if_unused(cores=max(math.floor(settings.cpus_per_trial), 1), gpu_fraction=0.0)
    from bloodauto.evaluation.member_latency import latency_of

    site_info = SiteInfo(
        folds_are_sites=data.splits.folds_are_sites,
        class_fractions=_class_priors(data) if len(data.target) else None,
    )
    chosen = assemble(
        plan.run,
        completed,
        num_folds=data.splits.num_folds,
        metric=metric,
        caps=Caps(settings.max_members, settings.max_latency_ms),
        latency=latency_of(data.dataset),
        site_info=site_info,
        evaluate_pruned=lambda: _evaluate_pruned(plan, study, completed, seconds_left),
    )
    write_ensemble(plan.run, chosen)
    _write_site_estimates(plan, chosen)
    return chosen


def _class_priors(data: PreparedData) -> tuple[float, ...]:
    """How often each class is expected where the target images come from: as among the images that are learnt from."""
    counts = data.dataset.class_counts(data.cleaning.keep)
    return tuple((counts / counts.sum()).tolist())


def _evaluate_pruned(
    plan: SearchPlan, study: optuna.Study, completed: Sequence[tuple[int, float]], seconds_left: Callable[[], float]
) -> PrunedEvaluation:
    """Judges the best of the trials that were stopped, in what the export will probably leave of the budget.

    Refits that were ended before they were judged come first, and may take what is kept for the held-out test: much was spent on
    them, and the test can be opened later.
    """
    from bloodauto.config.space import recipe_from_parameters
    from bloodauto.ensemble.assemble import PrunedEvaluation
    from bloodauto.ensemble.pruned_trials import evaluate_pruned
    from bloodauto.evaluation.fold_data import prepare_fold
    from bloodauto.tuning.budget.recorded_costs import cost_model_from_study

    settings, data = plan.settings, plan.data
    if len(settings.objectives.names) > 1:
        # What was stopped is on no front, of which alone the ensemble is made.
        return PrunedEvaluation()
    trials = study.get_trials(deepcopy=False)
    pruned = [one.number for one in trials if one.user_attrs.get("outcome") in ("pruned", "out_of_budget")]
    folders = sorted((plan.run.root / "refits").glob("*-fold0-*"))
    refits = [folder.name for folder in folders if not (folder / "result.json").is_file()]
    best = max(completed, key=lambda trial: trial[1])[0]
    likely = {best, *(int(folder.name.split("-")[0]) for folder in folders)}
    costs = cost_model_from_study(study, plan.space)
    for_export = costs.finalization_slot_seconds(
        [recipe_from_parameters(plan.space, trials[number].params) for number in sorted(likely)], 0
    )
    kept = _WRITING_FRACTION * for_export if refits else for_export
    metric = settings.objectives.primary
    return evaluate_pruned(
        plan.run,
        pruned,
        [number for number, _ in completed],
        refits,
        lambda: prepare_fold(data.dataset, data.splits, plan.suite, target=data.target),
        objective=metric,
        seconds_left=lambda: seconds_left() - kept,
        start_seconds=costs.start_seconds(cold=True),
    )


def _write_site_estimates(plan: SearchPlan, chosen: Ensemble) -> None:
    """What is known of the ensemble in the laboratories that the data name, and in the one it is meant for."""
    from bloodauto.ensemble.assemble import out_of_fold_probabilities
    from bloodauto.ensemble.site_scores import score_sites, write_site_scores
    from bloodauto.ensemble.target_estimate import estimate_target, write_target

    data = plan.data
    if data.splits.folds_are_sites:
        labels, probabilities = out_of_fold_probabilities(chosen)
        folds = sorted({one.fold for member in chosen.members for one in member.networks})
        write_site_scores(plan.run, score_sites(data.dataset, data.splits, folds, labels, probabilities))
    if len(data.target):
        write_target(plan.run, estimate_target(chosen, np.asarray(_class_priors(data))))


def complete_trials(study: optuna.Study) -> list[Any]:
    """The completed trials."""
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


def _eligible_trials(plan: SearchPlan, study: optuna.Study) -> list[tuple[int, float]]:
    """Number and primary objective of the trials an ensemble may be made of: with several objectives, the front's."""
    complete, objectives = complete_trials(study), plan.settings.objectives
    if len(objectives.names) > 1:
        write_pareto_front(plan.run.root, objectives, complete, plan.space)
        complete = objectives.pareto_front(complete, lambda trial: trial.values)
    return [(trial.number, float(trial.values[0])) for trial in complete]


def _delete_unneeded_weights(run: RunDirectory) -> None:
    """Deletes the states of trainings that are over, and weights that are no member's: they fill disks."""
    from bloodauto.ensemble.record import read_ensemble

    members = {one.folder.resolve() for member in read_ensemble(run).members for one in member.networks}
    for parent in (run.root / "trials", run.root / "refits"):
        for folder in parent.iterdir() if parent.is_dir() else []:
            (folder / "checkpoint.npz").unlink(missing_ok=True)
            if folder.resolve() not in members:
                (folder / "best.npz").unlink(missing_ok=True)
