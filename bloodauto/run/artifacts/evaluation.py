"""Measured performance as it is kept on disk: metrics, calibration curves, selective prediction, held-out test, OOD."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from bloodauto.run.artifacts.arrays import ArrayArtifact, ArrayOf, ArrayRecord
from bloodauto.run.artifacts.base import Artifact, Count, Fraction, Record

ConfidenceScore = Literal["max_probability", "margin", "entropy"]


def _check_square(rows: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    lengths = {len(row) for row in rows}
    if lengths != {len(rows)}:
        raise ValueError(f"a square matrix, not {len(rows)} rows of {sorted(lengths)} columns")
    return rows


#: Images by true class (row) and predicted class (column).
ConfusionMatrix = Annotated[tuple[tuple[Count, ...], ...], AfterValidator(_check_square)]


class Metrics(Record):
    """How good class probabilities are on clean images.

    Attributes:
        loss: mean negative log-likelihood, nats.
        accuracy: 0-1.
        balanced_accuracy: mean recall of the classes that occur among the labels, 0-1.
        macro_f1: mean F1 of the classes that occur among labels or predictions, 0-1.
    """

    loss: float
    accuracy: Fraction
    balanced_accuracy: Fraction
    macro_f1: Fraction


class ReliabilityBin(Record):
    """The images whose highest probability fell between two bounds.

    Attributes:
        low: lower bound of the confidence, 0-1, exclusive.
        high: upper bound, 0-1, inclusive.
        images: how many there are.
        confidence: mean of their highest probability, 0-1.
        accuracy: fraction of them that was predicted correctly, 0-1.
    """

    low: Fraction
    high: Fraction
    images: Annotated[int, Field(ge=1)]
    confidence: Fraction
    accuracy: Fraction


class ValidationFigures(Record):
    """What the report draws of predictions for clean validation images.

    Attributes:
        confusion: images by true class (row) and predicted class (column).
        reliability: confidence against accuracy, in ascending confidence; empty bins are absent.
        ece: expected calibration error over these bins, 0-1.
    """

    confusion: ConfusionMatrix
    reliability: tuple[ReliabilityBin, ...]
    ece: Fraction


class RiskCoverage(Record):
    """Error rate against the fraction of images that get a prediction (Geifman and El-Yaniv, arXiv:1705.08500).

    Attributes:
        coverage: fractions of images that get a prediction, rising, the last is 1.
        risk: error rate among these, one for each.
        aurc: area under the curve: mean risk over all numbers of predicted images; smaller is better.
    """

    coverage: tuple[Fraction, ...]
    risk: tuple[Fraction, ...]
    aurc: Fraction


class SelectiveAccuracy(Record):
    """What an abstention threshold does to some images.

    Attributes:
        images: how many there are.
        coverage: fraction that gets a prediction, 0-1.
        accuracy: among these, 0-1; None where none gets one.
        curve: over all thresholds.
    """

    images: Annotated[int, Field(ge=1)]
    coverage: Fraction
    accuracy: Fraction | None
    curve: RiskCoverage


class AbstentionRule(Record):
    """An image whose confidence score is below the threshold gets no prediction.

    Attributes:
        confidence_score: how confidence is computed from class probabilities; see ``evaluation.selective``.
        threshold: in the score's own unit.
    """

    confidence_score: ConfidenceScore
    threshold: float


class Abstention(Record):
    """An abstention rule and what it does to the images it was fitted on.

    Attributes:
        rule: confidence score and threshold.
        clean: on clean validation images.
        shifted: on shifted validation images; None where there are none.
    """

    rule: AbstentionRule
    clean: SelectiveAccuracy
    shifted: SelectiveAccuracy | None


class PerClassScaling(Record):
    """Vector scaling (Guo et al. 2017, arXiv:1706.04599): ``scales * log(p) + biases`` before softmax.

    Attributes:
        scales: one for each class.
        biases: one for each class.
    """

    scales: tuple[float, ...]
    biases: tuple[float, ...]


class Calibration(Record):
    """Parameters of a calibration: first the temperature, then scales and biases of each class where there are any.

    Attributes:
        temperature: above 0.
        per_class: None where the temperature alone generalises as well.
        cross_validated_nats: negative log-likelihood of the temperature alone and with scales and biases, each on kinds of
            images that were left out of the fit; None where there is only one kind of images.
    """

    temperature: Annotated[float, Field(gt=0)]
    per_class: PerClassScaling | None
    cross_validated_nats: tuple[float, float] | None


class ExternalEstimate(Record):
    """The accuracy to expect at an external site.

    Attributes:
        SCOPE: what the estimate covers and what it does not, for people.
        mean: mean accuracy of external sites, 0-1.
        low: lower bound of the prediction interval for the next site, 0-1.
        high: upper bound, 0-1.
        nominal_coverage: fraction of sites that the interval is meant to contain, 0-1.
        measured_coverage: fraction of simulated sites that intervals contained when they were made without a factor that was
            at work there, each factor counting once; None where no factor could be left out.
        simulated_sites: how many it was estimated from.
        shift_factors: how many factors were left out in turn.
    """

    mean: Fraction
    low: Fraction
    high: Fraction
    nominal_coverage: Fraction
    measured_coverage: Fraction | None
    simulated_sites: Count
    shift_factors: Count

    SCOPE: ClassVar[str] = (
        "The external estimate is the accuracy at a site that is not in the data, estimated from simulated "
        "sites in which stain, "
        "light, optics, camera, magnification and artefacts differ, three to nine such factors at once, each "
        "mild or severe. Not "
        "covered: other patients, other labelling conventions, damaged slides, and cell types that were not trained on."
    )

    def coverage_text(self) -> str:
        """How many sites the interval is meant to contain, and how many it was measured to contain."""
        nominal = (
            f"The prediction interval is meant to contain the accuracy of {self.nominal_coverage:.0%} of external sites; it is "
            f"estimated from {self.simulated_sites} simulated ones."
        )
        if self.measured_coverage is None:
            return nominal
        return (
            f"{nominal} With each of {self.shift_factors} shift factors left out of the estimate in turn, it contained "
            f"{self.measured_coverage:.0%} of the simulated sites where that factor was at work."
        )


class SimulatedSiteResult(Record):
    """How a model did at one simulated site.

    Attributes:
        families: corruption families that were drawn.
        groups: their groups.
        severity: mean of their severities, 1-5.
        correct: correct predictions.
        images: how many images there were.
    """

    families: tuple[str, ...]
    groups: tuple[str, ...]
    severity: float
    correct: Count
    images: Annotated[int, Field(ge=1)]

    @property
    def accuracy(self) -> float:
        """Fraction of the images that was predicted correctly, 0-1."""
        return self.correct / self.images


class HeldOutTest(Artifact):
    """``test.json``: the exported ensemble on the held-out test set, predicted once.

    Attributes:
        ensemble: id of the ensemble that was evaluated; see ``Ensemble.ensemble_id``.
        images: images of the held-out test set.
        accuracy: 0-1.
        accuracy_low: lower bound of its 95 % Wilson interval.
        accuracy_high: upper bound of its 95 % Wilson interval.
        balanced_accuracy: 0-1.
        macro_f1: 0-1.
        loss: mean negative log-likelihood, nats.
        ece: expected calibration error, 0-1.
        ece_shifted: the same on shifted test images.
        confusion: images by true and predicted class.
        classes: class names in the order of the label numbers.
        shift: accuracy on shifted test images by corruption group, 0-1.
        shifted_accuracy: on all shifted test images, 0-1.
        shifted_images: how many there are.
        external: external performance estimate; None where too few sites were simulated.
        simulated_sites: results at each.
    """

    FILE = "test.json"

    ensemble: str
    images: Annotated[int, Field(ge=1)]
    accuracy: Fraction
    accuracy_low: Fraction
    accuracy_high: Fraction
    balanced_accuracy: Fraction
    macro_f1: Fraction
    loss: float
    ece: Fraction
    ece_shifted: Fraction
    confusion: ConfusionMatrix
    classes: tuple[str, ...]
    shift: dict[str, Fraction]
    shifted_accuracy: Fraction
    shifted_images: Count
    external: ExternalEstimate | None
    simulated_sites: tuple[SimulatedSiteResult, ...]

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if len(self.classes) != len(self.confusion):
            raise ValueError(
                f"{len(self.confusion)} classes, as the confusion matrix has rows, not {len(self.classes)}"
            )
        return self

    def accuracy_text(self) -> str:
        """The accuracy at the training site and, if it was estimated, at an external one, each with its interval."""
        in_domain = (
            f"In-domain {100 * self.accuracy:.1f} % ({100 * self.accuracy_low:.1f}-{100 * self.accuracy_high:.1f})"
        )
        if self.external is None:
            return in_domain
        mean, low, high = (100 * value for value in (self.external.mean, self.external.low, self.external.high))
        return f"{in_domain}; external site {mean:.0f} % ({low:.0f}-{high:.0f})"


class SyntheticOodResult(Record):
    """How well one kind of synthetic out-of-distribution images is detected.

    Attributes:
        kind: in a few words.
        images: how many.
        flagged: fraction that is flagged, 0-1.
        auroc: area under the ROC curve against in-domain images, 0-1.
    """

    kind: str
    images: Annotated[int, Field(ge=1)]
    flagged: Fraction
    auroc: Fraction


class OodEvaluation(Artifact):
    """``ood.json``: what the exported OOD detector does.

    Attributes:
        in_domain: to images of the training site that were left out of training.
        external: to some of these as simulated sites show them.
        synthetic_ood: to synthetic images that show no cell.
    """

    FILE = "ood.json"

    in_domain: SelectiveAccuracy
    external: SelectiveAccuracy
    synthetic_ood: tuple[SyntheticOodResult, ...]


class FeatureSpace(ArrayRecord):
    """Where a network's last features (d,) place each class.

    Attributes:
        means: float32 (classes, d), of each class's training images.
        directions: float32 (d, k), orthonormal: those in which images of one class vary most.
        variances: float32 (k,), above 0, along these directions.
        other_variance: above 0, along every other direction.
        typical_distance: median distance of images that were left out of training, above 0.
    """

    means: Annotated[NDArray[np.float32], ArrayOf(np.float32, "classes d")]
    directions: Annotated[NDArray[np.float32], ArrayOf(np.float32, "d k")]
    variances: Annotated[NDArray[np.float32], ArrayOf(np.float32, "k")]
    other_variance: Annotated[float, Field(gt=0)]
    typical_distance: Annotated[float, Field(gt=0)] = 1.0


class OodDetector(ArrayArtifact):
    """``ood.npz``: flags images that are unlike the training images or whose class is uncertain.

    Attributes:
        spaces: of the exported model's members, in their order.
        distance_unit: what the mean distance is divided by, above 0.
        entropy_unit: what the entropy (nats) is divided by, above 0.
        threshold: images with a larger OOD score are flagged.
    """

    FILE = "ood.npz"
    MEND = "Export again, or delete the file to have images flagged by their class probabilities alone."

    spaces: tuple[FeatureSpace, ...]
    distance_unit: Annotated[float, Field(gt=0)]
    entropy_unit: Annotated[float, Field(gt=0)]
    threshold: float


class ValidationPredictions(ArrayArtifact):
    """``predictions.npz``: a network's class probabilities for the validation images of its fold.

    Attributes:
        index: int (n,), the images' positions in the dataset.
        labels: int64 (n,).
        clean: float32 (n, classes).
        shifted_labels: int64 (m,), of shifted validation images; m may be 0.
        shifted_groups: str (m,), corruption group of each.
        shifted_families: str (m,), corruption family of each.
        shifted_severities: int (m,), 1-5.
        shifted_weights: float (m,), weight of each in the shift objective.
        shifted: float32 (m, classes).
        target: float32 (k, classes), for unlabelled images of the target domain; k may be 0.
    """

    FILE = "predictions.npz"

    index: Annotated[NDArray[np.integer[Any]], ArrayOf(np.integer, "n")]
    labels: Annotated[NDArray[np.integer[Any]], ArrayOf(np.integer, "n")]
    clean: Annotated[NDArray[np.float32], ArrayOf(np.float32, "n classes")]
    shifted_labels: Annotated[NDArray[np.integer[Any]], ArrayOf(np.integer, "m")]
    shifted_groups: Annotated[NDArray[np.str_], ArrayOf(np.str_, "m")]
    shifted_families: Annotated[NDArray[np.str_], ArrayOf(np.str_, "m")]
    shifted_severities: Annotated[NDArray[np.integer[Any]], ArrayOf(np.integer, "m")]
    shifted_weights: Annotated[NDArray[np.floating[Any]], ArrayOf(np.floating, "m")]
    shifted: Annotated[NDArray[np.float32], ArrayOf(np.float32, "m classes")]
    target: Annotated[NDArray[np.float32], ArrayOf(np.float32, "k classes")]


class TtaPredictions(ArrayArtifact):
    """``predictions_tta.npz``: a network's class probabilities averaged over TTA transforms.

    Attributes:
        clean: float32 (n, classes), in the order of ``ValidationPredictions``.
        shifted: float32 (m, classes), likewise.
    """

    FILE = "predictions_tta.npz"

    clean: Annotated[NDArray[np.float32], ArrayOf(np.float32, "n classes")]
    shifted: Annotated[NDArray[np.float32], ArrayOf(np.float32, "m classes")]
