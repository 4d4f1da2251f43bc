"""What a run directory says, as frozen values. Nothing here reads or draws.

Anything may be absent: a run that died, one that has just begun, one in which no trial finished. ``None`` or an empty
tuple stands for "not there", and ``RunInfo.notes`` says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bloodauto.report.info_sites import ParetoTrial, SiteScores, StudentInfo, TargetInfo

Outcome = Literal["complete", "pruned", "failed", "out_of_budget", "running", "waiting"]

#: In the order in which they are listed and drawn.
OUTCOMES: tuple[Outcome, ...] = ("complete", "pruned", "failed", "out_of_budget", "running", "waiting")

OUTCOME_LABELS: dict[str, str] = {
    "complete": "complete",
    "pruned": "pruned",
    "failed": "failed",
    "out_of_budget": "out of budget",
    "running": "open",
    "waiting": "waiting",
}

#: Metric name and value, in the order of the file.
Scores = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Note:
    """Something missing or unreadable: which file, and what it means."""

    source: str
    text: str


@dataclass(frozen=True)
class ParamValue:
    """One sampled value; ``name`` is the dotted path in the recipe, ``distribution`` Optuna's, which is immutable."""

    name: str
    value: Any
    distribution: Any


@dataclass(frozen=True)
class EpochInfo:
    """One epoch of a trial's history; accuracies and objective in [0, 1]."""

    epoch: int
    stage: str
    train_accuracy: float | None
    accuracy: float | None
    shift: float | None
    objective: float | None


@dataclass(frozen=True)
class TrialInfo:
    """One trial, from the study and from its own folder.

    Attributes:
        value: the final objective in [0, 1] for complete trials, the last one seen for pruned ones, else ``None``.
        intermediate: (epoch, objective), by epoch, finite values only.
        origin: ``initial: <recipe>`` or ``sampled``.
        reason: the typed reason of the outcome (``nan``, ``rung_2``...), empty where there is none.
        message: of a failed trial, what it said.
        device_seconds: devices reserved x seconds reserved.
        weights: how many weights the network has.
        backbone: its label, also where the space has but one; empty where nothing was noted.
    """

    number: int
    outcome: Outcome
    value: float | None
    intermediate: tuple[tuple[int, float], ...] = ()
    params: tuple[ParamValue, ...] = ()
    origin: str = ""
    reason: str = ""
    message: str = ""
    recipe_id: str = ""
    device_seconds: float | None = None
    parameters: int | None = None
    backbone: str = ""
    metrics: Scores = ()
    history: tuple[EpochInfo, ...] = ()

    @property
    def never_started(self) -> bool:
        """Suggested, but more than the budget could carry."""
        return self.outcome == "out_of_budget" and not self.intermediate and not self.device_seconds

    def metric(self, name: str) -> float | None:
        return dict(self.metrics).get(name)


@dataclass(frozen=True)
class LedgerEntry:
    """One charge: what it was for, its device-seconds and the total after it."""

    phase: str
    device_seconds: float
    spent_device_seconds: float


@dataclass(frozen=True)
class Fingerprint:
    """What the data are: where from, how many images, per class and per lab."""

    source: str
    images: int
    height_px: int | None
    width_px: int | None
    classes: tuple[tuple[str, int], ...]
    sites: tuple[tuple[str, int], ...]
    excluded: int | None
    digest: str


@dataclass(frozen=True)
class CleaningRow:
    """An image that was not simply kept."""

    name: str
    label: str
    finding: str
    action: str
    reason: str


@dataclass(frozen=True)
class CleaningInfo:
    """``counts``: how many images had each (finding, action), the most frequent first; ``rows``: those images."""

    images: int
    counts: tuple[tuple[str, str, int], ...]
    rows: tuple[CleaningRow, ...]


@dataclass(frozen=True)
class MemberInfo:
    """One member of the ensemble; the weights of all members sum to 1."""

    name: str
    weight: float
    kind: str
    trial: int | None
    recipe_id: str
    parameters: int | None
    scores: Scores


@dataclass(frozen=True)
class SelectionStep:
    """One step of the greedy selection: who was added and the ensemble's score after it."""

    step: int
    added: str
    score: float


@dataclass(frozen=True)
class SelectiveResult:
    """What the threshold does to some images: the share answered, how often these answers are right, and the curve of (share
    answered, share wrong among the answers)."""

    images: int | None
    coverage: float
    accuracy: float | None
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class AbstentionInfo:
    """When an image is marked as not sure: its ``sureness`` is below ``threshold``."""

    confidence_score: str
    threshold: float
    clean: SelectiveResult
    shifted: SelectiveResult | None


@dataclass(frozen=True)
class OodInfo:
    """What the rule of features and answers, which ``predict`` goes by, does to images held out, to these as simulated
    laboratories show them, and which share of pictures made of them it marks, by their kind.
    """

    in_domain: SelectiveResult
    external: SelectiveResult
    synthetic_ood: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class SelectionBiasInfo:
    """The best trial's objective as measured and without its luck, and the noise from seed to seed."""

    trials: int
    best: float
    shrunk: float
    noise: float
    noise_degrees_of_freedom: int
    refits: float | None


@dataclass(frozen=True)
class CandidateCounts:
    """What the members were chosen from: trials, longer trainings, and of ``stopped`` trials the ``promising`` ones that were
    ``judged`` in time.
    """

    trials: int
    refits: int
    pruned: int
    promising: int
    evaluated: int


@dataclass(frozen=True)
class EnsembleRecord:
    """The chosen ensemble, its scores on validation images, and those of the best single network.

    ``per_class``: whether scales and biases of each class follow the temperature.
    """

    metric: str
    members: tuple[MemberInfo, ...]
    temperature: float | None
    per_class: bool
    abstention: AbstentionInfo | None
    selection_bias: SelectionBiasInfo | None
    scores: Scores
    best_single: str
    best_single_scores: Scores
    trace: tuple[SelectionStep, ...]
    candidate_counts: CandidateCounts | None = None


@dataclass(frozen=True)
class ExternalEstimateInfo:
    """The interval for another laboratory; ``measured_coverage``: over causes left out, ``None`` where there were none."""

    mean: float
    low: float
    high: float
    nominal_coverage: float
    measured_coverage: float | None
    simulated_sites: int
    shift_factors: int


@dataclass(frozen=True)
class SimulatedSiteResult:
    """One simulated laboratory: what differed there, how harshly (1-5), and how the ensemble did."""

    families: tuple[str, ...]
    severity: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class TestResult:
    """The held-out test images, opened once. ``confusion``: true class by row, predicted by column."""

    __test__ = False  # the name begins with "Test": pytest must not collect it

    images: int | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    balanced_accuracy: float | None
    macro_f1: float | None
    ece: float | None
    ece_shifted: float | None
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    shift: Scores
    external: ExternalEstimateInfo | None = None
    simulated_sites: tuple[SimulatedSiteResult, ...] = ()


@dataclass(frozen=True, eq=False)
class ValidationPredictions:
    """Answers for images not trained on. labels: int64 (n,); probabilities: float (n, classes), rows sum to 1.

    ``source`` says whose: ``the ensemble, calibrated`` or ``trial 3, before calibration``.
    """

    source: str
    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class RunInfo:
    """A whole run. ``settings`` are (key, text) with passwords masked; ``device`` is ``device`` where it is not known."""

    root: Path
    settings: tuple[tuple[str, str], ...] = ()
    budget: str = ""
    budget_device_seconds: float | None = None
    device: str = "device"
    fingerprint: Fingerprint | None = None
    cleaning: CleaningInfo | None = None
    split_sizes: tuple[tuple[str, int], ...] = ()
    split_notes: tuple[str, ...] = ()
    trials: tuple[TrialInfo, ...] = ()
    ledger: tuple[LedgerEntry, ...] = ()
    ensemble: EnsembleRecord | None = None
    test: TestResult | None = None
    ood: OodInfo | None = None
    predictions: ValidationPredictions | None = None
    sites: tuple[SiteScores, ...] = ()
    target: TargetInfo | None = None
    student: StudentInfo | None = None
    pareto_front: tuple[ParetoTrial, ...] = ()
    next_steps: str = ""
    exported: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def best(self) -> TrialInfo | None:
        """The complete trial with the highest objective; the earlier one of equals."""
        complete = [trial for trial in self.trials if trial.outcome == "complete" and trial.value is not None]
        return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)

    @property
    def spent_device_seconds(self) -> float | None:
        """What the ledger has charged; without a ledger, the sum over the trials; ``None`` when neither is known."""
        if self.ledger:
            return self.ledger[-1].spent_device_seconds
        known = [trial.device_seconds for trial in self.trials if trial.device_seconds is not None]
        return sum(known) if known else None

    @property
    def class_names(self) -> tuple[str, ...]:
        if self.test is not None and self.test.classes:
            return self.test.classes
        return tuple(name for name, _ in self.fingerprint.classes) if self.fingerprint else ()

    def count(self, outcome: Outcome) -> int:
        return sum(trial.outcome == outcome for trial in self.trials)
