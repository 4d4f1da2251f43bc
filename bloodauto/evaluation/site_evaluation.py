"""Measures a model on labelled images of a site: scores, recalls, calibration and abstention, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodauto.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    per_class_recall,
    reliability_bins,
    wilson_interval,
)
from bloodauto.evaluation.selective import selective_accuracy
from bloodauto.run.artifacts import ClassRecall, Measured, SiteEvaluation, StatedAccuracy, UnknownClass
from bloodauto.types import Labels, Mask, Probabilities, Scores, Strings

_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 100


@dataclass(frozen=True)
class SitePredictions:
    """What a model predicts for labelled images of a site.

    Attributes:
        probabilities: calibrated, (n, classes).
        labels: int64 (n,), indices into the model's classes; -1 where the model has no such class.
        site_classes: str (n,), the site's own class names.
        groups: str (n,), patient or slide; empty where unknown.
        confidence: float (n,), larger for images that the model is less likely to mark; None where it has no rule.
        threshold: images with a lower confidence are marked.
    """

    probabilities: Probabilities
    labels: Labels
    site_classes: Strings
    groups: Strings
    confidence: Scores | None = None
    threshold: float = 0.0

    @property
    def flagged(self) -> Mask | None:
        """Which images the model marks for a person."""
        return None if self.confidence is None else self.confidence < self.threshold


@dataclass(frozen=True)
class EvaluatedModel:
    """What the page says about where the figures come from.

    Attributes:
        model: the evaluated file.
        classes: of the model.
        source: of the images.
        class_mapping: the site's class names -> the model's.
        stated: what the model card stated; None where the export does not say.
    """

    model: str
    classes: tuple[str, ...]
    source: str
    class_mapping: Mapping[str, str | None]
    stated: StatedAccuracy | None


def evaluate_site(predictions: SitePredictions, about: EvaluatedModel, *, seed: int = 0) -> SiteEvaluation:
    """Computes everything that ``bloodauto evaluate`` states.

    Accuracy and recalls have Wilson intervals, balanced accuracy and macro F1 percentile intervals of a bootstrap over the
    images of each class. Where any image names a patient or slide, these are resampled as wholes (a cluster bootstrap; images
    without one are resampled alone), and an interval of accuracy or recall is the hull of that and of the one for independent
    images: a few groups agree by chance, which is no evidence.

    Args:
        predictions: at least one image of a class that the model has.
        about: names for the page.
        seed: of the resampling.
    """
    known = np.flatnonzero(predictions.labels >= 0)
    assert len(known), "expected at least one image of a class that the model has"
    labels, probabilities = predictions.labels[known], predictions.probabilities[known]
    predicted, num_classes = probabilities.argmax(axis=1), len(about.classes)
    confusion = confusion_matrix(labels, predicted, num_classes)
    groups = predictions.groups[known]
    resampled = resampled_confusions(labels, predicted, groups, num_classes, seed=seed)
    clustered = bool((groups != "").any())
    flagged = predictions.flagged
    selective = None
    if predictions.confidence is not None:
        selective = selective_accuracy(predictions.confidence[known], predicted == labels, predictions.threshold)
    return SiteEvaluation(
        model=about.model,
        source=about.source,
        images=len(known),
        groups=len(np.unique(_units(groups))) if clustered else None,
        accuracy=_fraction(np.trace(confusion), len(known), _accuracies(resampled) if clustered else None),
        balanced_accuracy=_score(float(balanced_accuracy(confusion)), balanced_accuracy(resampled)),
        macro_f1=_score(macro_f1(confusion), np.array([macro_f1(matrix) for matrix in resampled])),
        loss=negative_log_likelihood(labels, probabilities),
        ece=expected_calibration_error(labels, probabilities),
        classes=about.classes,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        recalls=_recalls(confusion, resampled if clustered else None, about.classes),
        reliability=reliability_bins(labels, probabilities),
        selective=selective,
        flagged=None if flagged is None else float(flagged.mean()),
        class_mapping=dict(about.class_mapping),
        unknown_classes=_unknown_classes(predictions, about.classes),
        stated=about.stated,
    )


def resampled_confusions(
    labels: Labels, predicted: Labels, groups: Strings, num_classes: int, *, seed: int
) -> NDArray[np.int64]:
    """Confusion matrices of images that are drawn with replacement: within their class, or those of one group together.

    Args:
        labels: (n,), n at least 1.
        predicted: (n,).
        groups: (n,); empty for an image that is drawn alone.
        num_classes: number of classes.
        seed: of the draws.

    Returns:
        int64 (resamples, classes, classes); no matrix is empty.
    """
    rng = np.random.default_rng([seed, 70])
    if not (groups != "").any():
        # Within their class: a class of two images would be missing from every seventh draw.
        confusion = confusion_matrix(labels, predicted, num_classes).astype(np.int64)
        rows = [rng.multinomial(row.sum(), row / max(row.sum(), 1), size=_RESAMPLES) for row in confusion]
        return np.stack(rows, axis=1)
    cells = labels * num_classes + predicted
    _, unit = np.unique(_units(groups), return_inverse=True)
    num_units = int(unit.max()) + 1
    by_unit = np.zeros((num_units, num_classes**2), dtype=np.int64)
    np.add.at(by_unit, (unit, cells), 1)
    parts = [
        rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=_RESAMPLES_AT_ONCE) @ by_unit
        for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    return np.concatenate(parts).reshape(-1, num_classes, num_classes)


def _units(groups: Strings) -> Strings:
    """The group of each image; an image without one is its own."""
    numbered = np.array([f"\0{index}" for index in range(len(groups))])
    return np.where(groups == "", numbered, groups)


def _accuracies(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.trace(confusions, axis1=1, axis2=2) / confusions.sum(axis=(1, 2)))


def _score(value: float, resampled: Scores) -> Measured:
    low, high = np.nanquantile(resampled, (0.025, 0.975)).tolist()
    return Measured(value=value, low=min(low, value), high=max(high, value))


def _fraction(correct: int, total: int, resampled: Scores | None) -> Measured:
    low, high = wilson_interval(int(correct), int(total))
    if resampled is not None:
        cluster_low, cluster_high = np.nanquantile(resampled, (0.025, 0.975)).tolist()
        low, high = min(low, cluster_low), max(high, cluster_high)
    return Measured(value=float(correct) / float(total), low=low, high=high)


def _recalls(
    confusion: NDArray[np.number], resampled: NDArray[np.int64] | None, classes: Sequence[str]
) -> tuple[ClassRecall, ...]:
    total = confusion.sum(axis=1)
    by_resample = None
    if resampled is not None:
        by_resample = per_class_recall(np.diagonal(resampled, axis1=1, axis2=2), resampled.sum(axis=2))
    return tuple(
        ClassRecall(
            name=name,
            images=int(total[number]),
            recall=None
            if total[number] == 0
            else _fraction(
                int(confusion[number, number]),
                int(total[number]),
                None if by_resample is None else by_resample[:, number],
            ),
        )
        for number, name in enumerate(classes)
    )


def _unknown_classes(predictions: SitePredictions, classes: Sequence[str]) -> tuple[UnknownClass, ...]:
    predicted, flagged = predictions.probabilities.argmax(axis=1), predictions.flagged
    unknown = []
    for name in np.unique(predictions.site_classes[predictions.labels < 0]).tolist():
        rows = np.flatnonzero((predictions.site_classes == name) & (predictions.labels < 0))
        counts = Counter(classes[label] for label in predicted[rows].tolist())
        unknown.append(
            UnknownClass(
                name=name,
                images=len(rows),
                flagged=None if flagged is None else float(flagged[rows].mean()),
                predicted=dict(counts.most_common()),
            )
        )
    return tuple(unknown)


def overall_accuracy(labels: Labels, probabilities: Probabilities) -> Measured:
    """Accuracy of n images, n at least 1, with its Wilson interval."""
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, probabilities.shape[1])
    low, high = wilson_interval(int(np.trace(confusion)), len(labels))
    return Measured(value=accuracy(confusion), low=low, high=high)
