"""What is known of a model at one site: what its export stated, and what was measured there."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from bloodauto.run.artifacts.base import Artifact, Count, Fraction, Record
from bloodauto.run.artifacts.evaluation import ConfusionMatrix, ExternalEstimate, ReliabilityBin, SelectiveAccuracy


class Measured(Record):
    """A measured fraction with its 95 % interval.

    Attributes:
        value: 0-1.
        low: lower bound, 0-1.
        high: upper bound, 0-1.
    """

    value: Fraction
    low: Fraction
    high: Fraction

    def text(self) -> str:
        """For people, in percent.

        Example:
            >>> Measured(value=0.9, low=0.85, high=0.94).text()
            '90.0 % (85.0-94.0)'
        """
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}-{100 * self.high:.1f})"


class StatedAccuracy(Artifact):
    """``stated_accuracy.json``: the figures of a model card that a later evaluation is compared with.

    Attributes:
        in_domain: accuracy on the held-out test set.
        images: of that test set.
        external: what was expected of an external site; None where it was not estimated.
    """

    FILE = "stated_accuracy.json"
    MEND = "Export again, or delete the file to evaluate without a comparison."

    in_domain: Measured
    images: Annotated[int, Field(ge=1)]
    external: ExternalEstimate | None


class ClassRecall(Record):
    """How many images of one class are recognised.

    Attributes:
        name: the model's name of the class.
        images: with this label.
        recall: None where there are none.
    """

    name: str
    images: Count
    recall: Measured | None


class UnknownClass(Record):
    """Images of a class that the model does not have. Every prediction for them is wrong.

    Attributes:
        name: the site's name of the class.
        images: how many.
        flagged: fraction that the model marks for a person, 0-1; None where it has no rule.
        predicted: images by the class that was predicted.
    """

    name: str
    images: Annotated[int, Field(ge=1)]
    flagged: Fraction | None
    predicted: dict[str, Count]


class SiteEvaluation(Artifact):
    """``evaluation.json``: a model on labelled images of a site.

    All figures but ``unknown_classes`` are of images whose class the model has.

    Attributes:
        model: the evaluated file.
        source: of the images.
        images: how many whose class the model has.
        groups: patients or slides that were resampled for the intervals; None: images count as independent.
        accuracy: fraction of correct predictions.
        balanced_accuracy: mean recall of the classes that have images.
        macro_f1: mean F1 of the classes that occur among labels or predictions.
        loss: mean negative log-likelihood, nats.
        ece: expected calibration error, 0-1.
        classes: of the model.
        confusion: images by true and predicted class.
        recalls: of each class.
        reliability: confidence against accuracy.
        selective: what the model's abstention rule does; None where it has none.
        flagged: fraction of all images that the rule marks as unlike the training images or uncertain, 0-1; None without.
        class_mapping: the site's class names -> the model's; None where the model has no such class.
        unknown_classes: those of the site that the model does not have.
        stated: what the model card stated; None where the export does not say.
    """

    FILE = "evaluation.json"

    model: str
    source: str
    images: Annotated[int, Field(ge=1)]
    groups: int | None
    accuracy: Measured
    balanced_accuracy: Measured
    macro_f1: Measured
    loss: float
    ece: Fraction
    classes: tuple[str, ...]
    confusion: ConfusionMatrix
    recalls: tuple[ClassRecall, ...]
    reliability: tuple[ReliabilityBin, ...]
    selective: SelectiveAccuracy | None
    flagged: Fraction | None
    class_mapping: dict[str, str | None]
    unknown_classes: tuple[UnknownClass, ...]
    stated: StatedAccuracy | None

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if not len(self.classes) == len(self.confusion) == len(self.recalls):
            raise ValueError(f"a row and a recall for each of {len(self.classes)} classes")
        return self

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Classes of the model without images."""
        return tuple(entry.name for entry in self.recalls if entry.images == 0)

    def comparison_text(self) -> str:
        """The measured accuracy beside what the card stated."""
        if self.stated is None:
            return "The export does not say which accuracy to expect."
        text = f"The model card states {self.stated.in_domain.text()} at its own site"
        external = self.stated.external
        if external is None:
            return f"{text}, and nothing about external sites."
        low, high = external.low, external.high
        if self.accuracy.high < low:
            position = "below the stated interval"
        elif self.accuracy.low > high:
            position = "above the stated interval"
        else:
            position = "inside the stated interval"
        return (
            f"{text} and {100 * external.mean:.0f} % ({100 * low:.0f}-{100 * high:.0f}) at an external site. "
            f"Measured here: {self.accuracy.text()}, {position}."
        )


class Difference(Record):
    """A difference of two accuracies with its 95 % interval; positive is a gain.

    Attributes:
        value: -1 to 1.
        low: lower bound.
        high: upper bound.
    """

    value: Annotated[float, Field(ge=-1, le=1)]
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]

    def text(self) -> str:
        """For people, in points.

        Example:
            >>> Difference(value=0.1, low=-0.02, high=0.2).text()
            '+10.0 points (-2.0 to +20.0)'
        """
        return f"{100 * self.value:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


class Adaptation(Artifact):
    """``adaptation.json``: how an export was adapted to a site, and what that gained and cost.

    Attributes:
        adapted_model: the file that was adapted.
        method: the chosen candidate in a few words.
        is_unchanged: whether nothing was better than changing nothing.
        magnification: how many times larger every image is made inside the model.
        candidates: how many were compared.
        cells: labelled cells of the site by class.
        accuracy: expected of the adaptation: each of these cells is predicted by a candidate that was chosen and fitted without
            the cells of its fold.
        unchanged_accuracy: of the model as it was, on the same cells.
        gain: of the adapted model on them.
        source: of the source site's images.
        source_images: how many of them measure what the source site loses.
        source_accuracy: of the adapted model there.
        source_unchanged_accuracy: of the model as it was.
        source_change: negative where the source site loses.
    """

    FILE = "adaptation.json"
    MEND = "Adapt the model again."

    adapted_model: str
    method: str
    is_unchanged: bool
    magnification: Annotated[float, Field(gt=0)]
    candidates: Count
    cells: dict[str, Count]
    accuracy: Measured
    unchanged_accuracy: Measured
    gain: Difference
    source: str
    source_images: Count
    source_accuracy: Measured
    source_unchanged_accuracy: Measured
    source_change: Difference

    #: The loss at the source site that is worth a warning, as a fraction.
    SOURCE_TOLERANCE: ClassVar[float] = 0.01

    @property
    def loses_at_source(self) -> bool:
        """Whether the source site loses more than a point."""
        return self.source_change.value < -self.SOURCE_TOLERANCE

    def summary(self) -> str:
        """What was done, gained and lost, in a few sentences."""
        n = sum(self.cells.values())
        if self.is_unchanged:
            text = (
                f"None of {self.candidates} candidates was better on {n} labelled cells than the model as it is, beyond "
                f"chance. It is exported unchanged; its accuracy on them is {self.accuracy.text()}."
            )
        else:
            text = (
                f"Adapted with {n} labelled cells: {self.method}. On these cells, in cross-validation: "
                f"{self.unchanged_accuracy.text()} before, {self.accuracy.text()} after, {self.gain.text()}. Each "
                "cell was predicted by a candidate that was chosen and fitted without its fold."
            )
        change = f"The source site's {self.source_images} held-out images: {self.source_change.text()}"
        warning = ", more than a point: keep the model as it was for the source site" if self.loses_at_source else ""
        return f"{text} {change}{warning}."
