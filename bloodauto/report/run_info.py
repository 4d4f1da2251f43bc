"""A run as frozen values: the artifacts that its directory holds, and its trials. Nothing here reads or draws.

Anything may be absent: in a run that has just begun, that was killed, or in which no trial completed. ``None`` or an empty
tuple stands for "not there", and ``RunInfo.notes`` says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bloodauto.config.settings import SearchSettings
from bloodauto.run.artifacts import (
    CleaningReport,
    DataPictures,
    DistillationResult,
    Ensemble,
    EpochReport,
    Fingerprint,
    HeldOutTest,
    LedgerCharge,
    OodEvaluation,
    ParetoTrial,
    ResultPictures,
    SiteScore,
    SplitsFile,
    TargetEstimate,
    TrainingResult,
    ValidationFigures,
)
from bloodauto.run.study_attributes import TrialAttributes

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

TrialState = Literal["complete", "pruned", "failed", "out_of_budget", "running", "waiting"]

#: In the order in which they are listed and drawn.
TRIAL_STATES: tuple[TrialState, ...] = ("complete", "pruned", "failed", "out_of_budget", "running", "waiting")

STATE_LABELS: dict[TrialState, str] = {
    "complete": "complete",
    "pruned": "pruned",
    "failed": "failed",
    "out_of_budget": "out of budget",
    "running": "running",
    "waiting": "waiting",
}

_NO_ATTRIBUTES = TrialAttributes()
#: The device of a budget whose settings are unknown.
UNKNOWN_DEVICE = "device"


@dataclass(frozen=True)
class Note:
    """Something that is missing or broken.

    Attributes:
        source: the file, relative to the run directory.
        text: what is wrong with it and what that means.
    """

    source: str
    text: str


@dataclass(frozen=True)
class Parameter:
    """One sampled value of a trial.

    Attributes:
        name: dotted path in the recipe.
        value: the value.
        distribution: Optuna's; it cannot be changed.
    """

    name: str
    value: str | int | float | bool | None
    distribution: BaseDistribution


@dataclass(frozen=True)
class TrialInfo:
    """One trial, from the study and from its own directory.

    Attributes:
        number: of the trial.
        state: how it ended, or that it has not.
        objective: 0-1: the final objective of a complete trial, the last one of a pruned or running trial, else None.
        curve: (epoch, objective) by epoch, finite values only.
        parameters: by name.
        attributes: what the search keeps with the trial.
        result: what the training came to; None where the trial has none.
        history: its epochs.
    """

    number: int
    state: TrialState
    objective: float | None
    curve: tuple[tuple[int, float], ...] = ()
    parameters: tuple[Parameter, ...] = ()
    attributes: TrialAttributes = _NO_ATTRIBUTES
    result: TrainingResult | None = None
    history: tuple[EpochReport, ...] = ()

    @property
    def device_seconds(self) -> float | None:
        """Devices reserved x seconds reserved; None while the trial is open."""
        return self.attributes.device_seconds

    @property
    def never_started(self) -> bool:
        """Whether it was suggested but did not fit into the budget."""
        return self.state == "out_of_budget" and not self.curve and not self.device_seconds

    @property
    def clean_accuracy(self) -> float | None:
        """Accuracy on clean validation images, 0-1: of the result, else of the last epoch."""
        if self.result is not None:
            return self.result.metrics.accuracy
        return self.history[-1].accuracy if self.history else None

    @property
    def shift_score(self) -> float | None:
        """Score of the shift suite, 0-1: of the result, else of the last epoch."""
        if self.result is not None:
            return self.result.shift
        return self.history[-1].shift if self.history else None


@dataclass(frozen=True)
class RunInfo:
    """A whole run.

    Attributes:
        root: the run directory.
        settings: what it was asked for.
        fingerprint: its images.
        cleaning: what cleaning found in them.
        splits: folds and held-out test set.
        trials: by number.
        ledger: all charges.
        ensemble: the chosen ensemble.
        held_out_test: the ensemble on the held-out test set.
        ood: what the exported OOD detector does.
        site_scores: the ensemble at each site that was left out of training.
        target_estimate: what unlabelled target images say of the ensemble.
        distilled: the network that was distilled from the ensemble.
        pareto_front: with several objectives, the trials that no other dominates.
        next_steps: commands that the run itself advises.
        data_pictures: of its images.
        result_pictures: of what the ensemble predicts.
        recipe: of the member with the largest weight, else of the incumbent; YAML.
        notes: what is missing or broken.
    """

    root: Path
    settings: SearchSettings | None = None
    fingerprint: Fingerprint | None = None
    cleaning: CleaningReport | None = None
    splits: SplitsFile | None = None
    trials: tuple[TrialInfo, ...] = ()
    ledger: tuple[LedgerCharge, ...] = ()
    ensemble: Ensemble | None = None
    held_out_test: HeldOutTest | None = None
    ood: OodEvaluation | None = None
    site_scores: tuple[SiteScore, ...] = ()
    target_estimate: TargetEstimate | None = None
    distilled: DistillationResult | None = None
    pareto_front: tuple[ParetoTrial, ...] = ()
    next_steps: str = ""
    data_pictures: DataPictures | None = None
    result_pictures: ResultPictures | None = None
    recipe: str = ""
    notes: tuple[Note, ...] = ()

    @property
    def incumbent(self) -> TrialInfo | None:
        """The complete trial with the highest objective; of equals the earlier one."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.objective is not None]
        return max(complete, key=lambda trial: (trial.objective, -trial.number), default=None)

    @property
    def device(self) -> str:
        """``cpu`` or ``gpu``, or ``device`` where the settings are unknown."""
        return UNKNOWN_DEVICE if self.settings is None else self.settings.device

    @property
    def budget_device_seconds(self) -> float | None:
        """The budget; None where the settings are unknown."""
        return None if self.settings is None else self.settings.budget_device_seconds

    @property
    def spent_device_seconds(self) -> float | None:
        """Total of the ledger; without a ledger, of the trials; None where neither is known."""
        if self.ledger:
            return self.ledger[-1].spent_device_seconds
        known = [trial.device_seconds for trial in self.trials if trial.device_seconds is not None]
        return sum(known) if known else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the label numbers; empty where unknown."""
        if self.held_out_test is not None:
            return self.held_out_test.classes
        return () if self.fingerprint is None else tuple(self.fingerprint.classes)

    @property
    def validation(self) -> tuple[ValidationFigures, str] | None:
        """What is known of predictions for validation images and whose they are: the ensemble's, else the incumbent's."""
        if self.ensemble is not None and self.ensemble.validation is not None:
            return self.ensemble.validation, "the ensemble, calibrated"
        trial = self.incumbent
        if trial is not None and trial.result is not None and trial.result.validation is not None:
            return trial.result.validation, f"trial {trial.number}, before calibration"
        return None

    def count(self, state: TrialState) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)
