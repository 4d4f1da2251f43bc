"""What a search does after its trainings, with the rest of its budget: it chooses the ensemble, exports it and clears up."""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import Caps, PrunedEvaluation, assemble, out_of_fold_ensemble, read_ensemble
from bloodauto.ensemble.evaluation import estimate_target, objective_agreement, score_sites
from bloodauto.ensemble.pruned_trials import StoppedTrainings, evaluate_pruned
from bloodauto.errors import RunError
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.latency import recipe_latency_ms
from bloodauto.export.ensemble_export import Exported, ExportSettings, export_run
from bloodauto.export.result_pictures import draw_result_pictures
from bloodauto.models.device import claim_device_if_unused
from bloodauto.printable import shell_word
from bloodauto.run.artifacts import Ensemble, SiteInfo
from bloodauto.run.directory import RunDirectory
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.budget.ledger import BudgetAccount
from bloodauto.tuning.budget.time_limits import OutOfBudget, hard_time_limit
from bloodauto.tuning.study import StudyRecord
from bloodauto.workflows.datasets import RunData
from bloodauto.workflows.planning import SearchPlan

_log = logging.getLogger(__name__)

#: An interrupted step takes a moment to stop.
_SHUTDOWN_SECONDS = 1.0
#: Fraction of the time kept for the export that writing the model takes.
_WRITING_FRACTION = 0.4
_EXPORT_FORMATS = ("keras", "codabench")
#: What a user reads for a part of the export that was skipped.
_SKIPPED_PARTS = {"codabench": "the competition's file", "test": "the held-out test"}


def finalize(plan: SearchPlan, study: StudyRecord, account: BudgetAccount, *, phase: Callable[[str], None]) -> None:
    """Chooses and exports the ensemble.

    At the end of the budget the current step is interrupted; ``export-best`` can do it later.

    Args:
        plan: What the search was to do.
        study: Its trials.
        account: Pays for it.
        phase: Receives what is being done, for people.

    Raises:
        RunError: No training was completed.
    """

    def seconds_left() -> float:
        return account.seconds_left

    study.mark_trainings_done()
    skipped: Sequence[str] = ("the ensemble",)
    try:
        with hard_time_limit(seconds_left() - _SHUTDOWN_SECONDS):
            with account.phase("ensemble"):
                phase("choosing the ensemble")
                ensemble = choose_ensemble(plan, study, seconds_left=seconds_left)
                skipped = ("the export",)
            with account.phase("export"):
                phase("exporting")
                exported = _export(plan, ensemble, seconds_left)
                skipped = [_SKIPPED_PARTS[part] for part in exported.skipped]
                _delete_unneeded_weights(plan.run)
                # Last, for a report can do without them, and a later export draws them.
                if seconds_left() - _SHUTDOWN_SECONDS > exported.pictures_seconds:
                    draw_pending_pictures(plan.run, exported, plan.data.dataset, plan.data.splits)
    except OutOfBudget:
        pass
    if skipped:
        phase(
            f"the budget did not suffice for {' and '.join(skipped)}; later: "
            f"bloodauto export-best --run {shell_word(plan.run.root)} --output {shell_word(plan.run.export.root)}"
        )


def draw_pending_pictures(run: RunDirectory, exported: Exported, dataset: CellDataset, splits: Splits) -> None:
    """Draws the report's pictures of an ensemble that was exported, where none were drawn."""
    if exported.pictured is None:
        return
    try:
        run.result_pictures.write(draw_result_pictures(exported.pictured, dataset, splits))
    except Exception as error:
        # The export is complete, and a report can do without pictures.
        _log.warning("the report's pictures could not be drawn: %s: %s", type(error).__name__, error)


def _export(plan: SearchPlan, ensemble: Ensemble, seconds_left: Callable[[], float]) -> Exported:
    """Exports the ensemble in the time that is left."""
    return export_run(
        plan.run,
        plan.run.export.root,
        plan.data.dataset,
        plan.data.splits,
        ExportSettings(ensemble, _EXPORT_FORMATS, seed=plan.settings.seed),
        seconds_left=lambda: seconds_left() - _SHUTDOWN_SECONDS,
    )


def choose_ensemble(plan: SearchPlan, study: StudyRecord, *, seconds_left: Callable[[], float]) -> Ensemble:
    """Chooses the ensemble from the completed trainings and the best pruned ones, and writes it.

    Args:
        plan: What the search was to do.
        study: Its trials.
        seconds_left: Wall seconds that are left; pruned trials are evaluated in what the export will not need.

    Returns:
        The ensemble.

    Raises:
        RunError: No training was completed, and none that was cut could be evaluated.
    """
    settings, data = plan.settings, plan.data
    completed = _eligible_trials(plan, study)
    if not completed and not any(plan.run.trial(number).has_trained for number in _stopped_trials(study)):
        _refuse_failures(plan.run, study)
    metric = settings.objectives.primary
    claim_device_if_unused(cores=max(math.floor(settings.cpus_per_trial), 1), gpu_fraction=0.0)
    site_info = SiteInfo(
        folds_are_sites=data.splits.folds_are_sites,
        class_fractions=_class_priors(data) if len(data.target) else None,
    )
    ensemble = assemble(
        plan.run,
        completed,
        num_folds=data.splits.num_folds,
        metric=metric,
        caps=Caps(settings.max_members, settings.max_latency_ms),
        latency_ms=functools.partial(
            recipe_latency_ms,
            num_classes=len(data.dataset.class_names),
            image_shape_px=data.dataset.images.shape[1:3],
            clock=SYSTEM_CLOCK,
        ),
        site_info=site_info,
        evaluate_pruned=lambda: _evaluate_stopped(plan, study, completed, seconds_left),
    )
    agreement = objective_agreement(plan.run, [trial.number for trial in study.completed])
    ensemble = ensemble.replace(objective_agreement=agreement)
    plan.run.ensemble.write(ensemble)
    _write_site_estimates(plan, ensemble)
    return ensemble


def _class_priors(data: RunData) -> tuple[float, ...]:
    """The class fractions that are assumed for the target images: those of the training images."""
    counts = data.dataset.class_counts(data.cleaning.keep)
    return tuple((counts / counts.sum()).tolist())


def _refuse_failures(run: RunDirectory, study: StudyRecord) -> None:
    """Raises what failed, where anything did: it is why there is nothing to export."""
    failures = _failures(study)
    if failures:
        raise RunError(
            f"{run.root}: no training was completed, so there is nothing to export; {failures}. Mend that, then "
            f"go on with what is left of the budget: bloodauto search --resume --run {shell_word(run.root)}"
        )


def _evaluate_stopped(
    plan: SearchPlan, study: StudyRecord, completed: Sequence[tuple[int, float]], seconds_left: Callable[[], float]
) -> PrunedEvaluation:
    """As ``_evaluate_pruned``; where nothing was completed and nothing could be evaluated, the failures are the reason."""
    evaluation = _evaluate_pruned(plan, study, completed, seconds_left)
    if not completed and not evaluation.trial_numbers and not evaluation.refits:
        _refuse_failures(plan.run, study)
    return evaluation


def _evaluate_pruned(
    plan: SearchPlan, study: StudyRecord, completed: Sequence[tuple[int, float]], seconds_left: Callable[[], float]
) -> PrunedEvaluation:
    """Evaluates the best trials that were not completed in what the export will probably leave of the budget.

    Interrupted refits come first, and may take the time that is kept for the held-out test: much was spent on them, and the
    test can be run later.
    """
    if study.is_multi_objective and completed:
        # The ensemble is made of the Pareto front alone, and no pruned trial is on it.
        return PrunedEvaluation()
    data, pruned = plan.data, _stopped_trials(study)
    trainings = [training for training in plan.run.refits() if "-fold0-" in training.root.name]
    refits = [training.root.name for training in trainings if not training.result.exists]
    best = max(completed, key=lambda trial: trial[1])[:1] if completed else tuple(pruned[:1])
    likely_members = sorted({*best, *(int(training.root.name.split("-")[0]) for training in trainings)})
    costs = CostModel.from_timings(study.timings())
    export_seconds = costs.finalization_slot_seconds([study.recipe(number) for number in likely_members], 0)
    reserved_seconds = _WRITING_FRACTION * export_seconds if refits else export_seconds
    return evaluate_pruned(
        plan.run,
        StoppedTrainings(tuple(pruned), tuple(number for number, _ in completed), tuple(refits)),
        lambda: prepare_fold(data.dataset, data.splits, plan.suite, target=data.target),
        objective=plan.settings.objectives.primary,
        seconds_left=lambda: seconds_left() - reserved_seconds,
        start_seconds=costs.start_seconds(cold=True),
        clock=SYSTEM_CLOCK,
    )


def _stopped_trials(study: StudyRecord) -> list[int]:
    """Numbers of the trials that ended before their end: pruned, cut by the budget, or interrupted."""
    return [number for number, trial in study.attributes().items() if trial.outcome not in (None, "complete")]


def _write_site_estimates(plan: SearchPlan, ensemble: Ensemble) -> None:
    """Writes the ensemble's scores at the sites that the data name, and its estimate for the target site."""
    data = plan.data
    if data.splits.folds_are_sites:
        predictions = out_of_fold_ensemble(ensemble)
        folds = sorted({network.fold for network in ensemble.networks})
        plan.run.site_scores.write(score_sites(data.splits, folds, predictions))
    if len(data.target):
        plan.run.target_estimate.write(estimate_target(ensemble, np.asarray(_class_priors(data))))


def _failures(study: StudyRecord) -> str:
    """How many trials failed for each reason, with a message of each; empty when none did."""
    failed = [trial for trial in study.attributes().values() if trial.outcome == "failed"]
    messages = {trial.reason: trial.message for trial in failed}
    counts = Counter(trial.reason for trial in failed)
    return "; ".join(f"{count} failed ({reason}: {messages[reason]})" for reason, count in counts.items())


def _eligible_trials(plan: SearchPlan, study: StudyRecord) -> list[tuple[int, float]]:
    """Number and primary objective of the trials that may join the ensemble: with several objectives, the Pareto front."""
    eligible = study.completed
    if study.is_multi_objective:
        plan.run.pareto_front.write(study.pareto_front_artifact())
        eligible = study.pareto_front()
    return sorted((trial.number, trial.objective) for trial in eligible)


def _delete_unneeded_weights(run: RunDirectory) -> None:
    """Deletes checkpoints of all trainings and the weights of those that are not in the ensemble: they fill disks."""
    members = {network.folder.resolve() for network in read_ensemble(run).networks}
    for training in (*run.trials(), *run.refits()):
        training.checkpoint.delete()
        if training.root.resolve() not in members:
            training.weights.delete()
