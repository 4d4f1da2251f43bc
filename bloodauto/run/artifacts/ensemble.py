"""The chosen ensemble and what is known of it, as kept in a run directory."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from bloodauto.run.artifacts.base import Artifact, Count, Fraction, Record, RelativePath
from bloodauto.run.artifacts.evaluation import Abstention, Calibration, ValidationFigures
from bloodauto.run.training_directory import TrainingDirectory

#: A score, 0-1, larger is better: what a search can optimise and an ensemble can be selected by.
Objective = Literal["shift", "accuracy", "balanced_accuracy", "macro_f1"]
NetworkKind = Literal["trial", "pruned trial", "refit", "distilled"]


class TrainedNetwork(Record):
    """A network whose weights and predictions lie in a training directory.

    Attributes:
        name: unique in the run.
        kind: ``trial``, ``pruned trial`` (with the weights it had when it was pruned), ``refit`` or ``distilled``.
        trial: number of the trial whose recipe it has; None where it has the recipe of none.
        fold: the fold that was left out of its training.
        folder: its training directory; stored relative to the run directory.
    """

    name: str
    kind: NetworkKind
    trial: Count | None
    fold: Count
    folder: RelativePath

    @property
    def files(self) -> TrainingDirectory:
        """The files of its training."""
        return TrainingDirectory(self.folder)


class ValidationScores(Record):
    """Scores on out-of-fold validation images; all but ``loss`` are 0-1.

    Attributes:
        accuracy: on clean images.
        balanced_accuracy: on clean images.
        macro_f1: on clean images.
        loss: mean negative log-likelihood on clean images, nats.
        shift: score of the shift suite.
        shifted_accuracy: on all shifted images; None where there are none.
        ece: expected calibration error on clean images.
        ece_shifted: on shifted images; None where there are none.
        target_estimate: estimated accuracy on unlabelled target images; None without such images.
    """

    accuracy: Fraction
    balanced_accuracy: Fraction
    macro_f1: Fraction
    loss: float
    shift: Fraction
    shifted_accuracy: Fraction | None
    ece: Fraction
    ece_shifted: Fraction | None
    target_estimate: Fraction | None = None

    def known(self) -> dict[str, float]:
        """Scores by name, without those that are None."""
        return self.model_dump(exclude_none=True)


class EnsembleMember(Record):
    """A member of the ensemble: one network, or one for each fold averaged evenly.

    Attributes:
        name: unique in the ensemble.
        kind: of its networks.
        trial: number of the trial whose recipe it has; None where it has the recipe of none.
        weight: of its class probabilities in the average; those of all members sum to 1.
        parameters: of all its networks.
        recipe_id: hash of its recipe.
        scores: of it alone, before calibration, on the images the ensemble was selected on.
        networks: at least one.
        latency_ms: milliseconds for one image; None where no cap asked for a measurement.
    """

    name: str
    kind: NetworkKind
    trial: Count | None
    weight: Fraction
    parameters: Count
    recipe_id: str
    scores: ValidationScores
    networks: Annotated[tuple[TrainedNetwork, ...], Field(min_length=1)]
    latency_ms: Annotated[float, Field(ge=0)] | None = None


class CandidateCounts(Record):
    """How many trainings an ensemble was selected from.

    Attributes:
        trials: completed trials that were good enough.
        refits: completed refits.
        pruned: pruned trials. 0 where sets of folds were selected from, as are the next two.
        promising: of these, those as good as the best at their rung, or nearly.
        evaluated: of these, those that there was time to evaluate.
    """

    trials: Count
    refits: Count
    pruned: Count
    promising: Count
    evaluated: Count


class SelectionBias(Record):
    """The score that the best of many trials can be expected to reach again (winner's-curse correction).

    Attributes:
        trials: how many trials the best was taken from.
        best: its measured objective, 0-1.
        shrunk: the expected objective of another seed of it, 0-1.
        noise: standard deviation of the objective between seeds.
        noise_degrees_of_freedom: of the estimate of the noise.
        refits: mean objective of the best trial's refits, which train longer; None where it has none.
    """

    trials: Count
    best: Fraction
    shrunk: float
    noise: Annotated[float, Field(ge=0)]
    noise_degrees_of_freedom: Annotated[int, Field(ge=1)]
    refits: Fraction | None


class ObjectiveAgreement(Record):
    """How far the objective and the accuracy on clean validation images put the complete trials in the same order.

    Attributes:
        trials: how many complete trials there are, at least 5.
        spearman: rank correlation, -1 to 1.
    """

    trials: Annotated[int, Field(ge=5)]
    spearman: Annotated[float, Field(ge=-1, le=1)]


class SiteInfo(Record):
    """What is known of acquisition sites beside the labels.

    Attributes:
        folds_are_sites: each fold is one site, so that clean validation images come from a site that was left out.
        class_fractions: expected frequency of each class among the unlabelled target images; None without such images.
    """

    folds_are_sites: bool = False
    class_fractions: tuple[Fraction, ...] | None = None


class SelectionStep(Record):
    """One step of the greedy selection.

    Attributes:
        step: 1-based.
        added: the candidate that was added.
        score: the ensemble's metric after it.
    """

    step: Annotated[int, Field(ge=1)]
    added: str
    score: float


class BestSingle(Record):
    """The best candidate alone.

    Attributes:
        name: of the candidate.
        scores: before calibration.
    """

    name: str
    scores: ValidationScores


class Ensemble(Artifact):
    """``ensemble.json``: members, weights and calibration. Scores are optimistic: the ensemble was selected on these images.

    Attributes:
        metric: what it was selected by.
        members: at least one.
        calibration: of the weighted average.
        abstention: fitted to the calibrated average.
        scores: of the calibrated average.
        best_single: the best candidate alone.
        trace: the steps of the selection; empty where somebody else chose.
        images: clean images it was selected on.
        shifted_images: shifted images it was selected on.
        selection_bias: None where no recipe was trained twice.
        objective_agreement: None with fewer than five complete trials, or where all have one objective or one accuracy.
        site_info: what is known of sites.
        candidate_counts: None where somebody else chose.
        validation: what the report draws of the calibrated average; None where it was not computed.
    """

    FILE = "ensemble.json"

    metric: Objective
    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=1)]
    calibration: Calibration
    abstention: Abstention
    scores: ValidationScores
    best_single: BestSingle
    trace: tuple[SelectionStep, ...]
    images: Annotated[int, Field(ge=1)]
    shifted_images: Count
    selection_bias: SelectionBias | None = None
    objective_agreement: ObjectiveAgreement | None = None
    site_info: SiteInfo = SiteInfo()
    candidate_counts: CandidateCounts | None = None
    validation: ValidationFigures | None = None

    @property
    def ensemble_id(self) -> str:
        """Identifies what predicts differently: a hash of members, weights and calibration, twelve hexadecimal digits."""
        identity = [[member.name, member.weight] for member in self.members], self.calibration.model_dump(mode="json")
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def networks(self) -> tuple[TrainedNetwork, ...]:
        """The networks of all members."""
        return tuple(network for member in self.members for network in member.networks)


class SiteScore(Record):
    """Scores on the images of one site, by networks that were trained without that site.

    Attributes:
        site: its name in the data.
        images: how many.
        accuracy: 0-1.
        balanced_accuracy: 0-1.
    """

    site: str
    images: Count
    accuracy: Fraction
    balanced_accuracy: Fraction


class SiteScores(Artifact):
    """``site_scores.json``: the ensemble at each site that was left out of training."""

    FILE = "site_scores.json"

    sites: tuple[SiteScore, ...]


class TargetEstimate(Artifact):
    """``target_estimate.json``: what unlabelled images of the target domain say of the ensemble; fractions are 0-1.

    Attributes:
        images: how many there were.
        accuracy: estimated by confidence optimal transport; see ``shift.target_estimators``.
        confidence: mean of the ensemble's highest probability, before calibration.
        agreement: fraction of images on which two of its networks agree, averaged over pairs; None for one network.
    """

    FILE = "target_estimate.json"

    images: Annotated[int, Field(ge=1)]
    accuracy: Fraction
    confidence: Fraction
    agreement: Fraction | None


class ParetoTrial(Record):
    """A completed trial that no other dominates.

    Attributes:
        trial: its number.
        backbone: its label.
        recipe_id: hash of its recipe.
        values: by the objective's name.
    """

    trial: Count
    backbone: str
    recipe_id: str
    values: dict[str, float]


class ParetoFront(Artifact):
    """``pareto_front.json``: the trials that no other dominates, the best in the primary objective first.

    Attributes:
        objectives: names, the primary first.
        trials: the front.
    """

    FILE = "pareto_front.json"

    objectives: tuple[str, ...]
    trials: tuple[ParetoTrial, ...]


class StudentComparison(Record):
    """A distilled network and its teacher on images that were left out of the student's training, each calibrated.

    Attributes:
        scores: of the student.
        teacher_scores: of those of the teacher's networks that left out the same images.
        agreement: fraction of clean images for which both predict the same class, 0-1.
        agreement_shifted: likewise of shifted images.
        images: clean images.
        shifted_images: shifted images.
    """

    scores: ValidationScores
    teacher_scores: ValidationScores
    agreement: Fraction
    agreement_shifted: Fraction
    images: Annotated[int, Field(ge=1)]
    shifted_images: Count


class DistillationResult(Artifact):
    """``distilled.json``: a network that was trained on an ensemble's predictions.

    Attributes:
        network: the student in words.
        recipe_id: hash of its recipe.
        parameters: of the student.
        teacher_parameters: of all the teacher's networks.
        epochs: over the training images, with the recipe's augmentation.
        budget_device_seconds: devices reserved x seconds reserved that the distillation may take.
        spent_device_seconds: until the student was evaluated, the teacher's predictions included.
        comparison: of both.
        parity_difference: largest difference of a probability between the exported file and the trained network; None
            before the export, or without a Keras file.
    """

    FILE = "distilled.json"

    network: str
    recipe_id: str
    parameters: Count
    teacher_parameters: Count
    epochs: Count
    budget_device_seconds: Annotated[float, Field(ge=0)]
    spent_device_seconds: Annotated[float, Field(ge=0)]
    comparison: StudentComparison
    parity_difference: Annotated[float, Field(ge=0)] | None = None
