"""Reconciles a study with the files of its trainings: what has finished on disk is told so before anything is decided."""

from __future__ import annotations

from bloodauto.config.objectives import Objectives
from bloodauto.errors import RunError
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.executors.ends import end_on_disk
from bloodauto.tuning.messages import trial_phase
from bloodauto.tuning.study import StudyRecord, TrialEnd


def reconcile(
    study: StudyRecord, run: RunDirectory, objectives: Objectives, ledger: Ledger, *, devices_per_worker: float
) -> None:
    """Records what an earlier session could not: the epochs and the ends of trainings whose files tell them.

    A session that is killed, or loses its Ray, between the end of a training and the driver's knowledge of it leaves a finished
    result whose trial is open.

    Args:
        study: Its open trials are those that an earlier session left.
        run: Has the files of the trainings.
        objectives: Of the search.
        ledger: Has what each trial was charged. A session that was killed charged its trainings to no trial: then the time of
            their epochs counts.
        devices_per_worker: Devices that each worker slot reserves.
    """
    for number in study.open_numbers:
        training = run.trial(number)
        end = end_on_disk(training, objectives)
        study.add_missing_epochs(number, _epochs_on_disk(training))
        if end is None:
            continue
        study.end_open_trial(
            number,
            TrialEnd(
                "complete",
                objective=end.objective,
                secondary=end.secondary,
                device_seconds=max(
                    ledger.charged_for(trial_phase(number)), devices_per_worker * _seconds_of_epochs(training)
                ),
            ),
        )
    for refit in study.pending_refits() or ():
        if end_on_disk(run.refit(refit.name), objectives) is not None:
            study.record_refit_end(refit.name, "completed")


def _epochs_on_disk(training: TrainingDirectory) -> dict[int, float]:
    """The primary objective by epoch; empty where the history is missing or damaged."""
    return {report.epoch: report.objective for report in _reports(training)}


def _seconds_of_epochs(training: TrainingDirectory) -> float:
    return sum(report.seconds for report in _reports(training))


def _reports(training: TrainingDirectory) -> tuple[EpochReport, ...]:
    try:
        history = training.history.read_if_exists()
    except RunError:
        return ()
    return () if history is None else history.epochs
