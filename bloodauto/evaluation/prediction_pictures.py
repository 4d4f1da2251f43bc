"""Pictures of what a model predicts: behind each cell of the confusion matrix, its mistakes, its doubts, with saliency maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bloodauto.data.pictures import jpeg_of
from bloodauto.evaluation.saliency import overlay
from bloodauto.run.artifacts import ConfusionPictures, Picture, PredictedPicture, PredictionPictures
from bloodauto.types import Floats, Images, Labels, Mask, Probabilities, Rows, Strings

#: Images of a cell of the confusion matrix at most, and of all cells together.
_IMAGES_PER_CELL, _IMAGES_OF_CELLS = 8, 256
_MISTAKES, _UNCERTAIN, _ABSTAINED = 24, 12, 12

#: Images, uint8 (n, height, width, 3), and the class to explain, (n,) -> saliency maps (n, height, width), 0 to 1.
Explain = Callable[[Images, Labels], Floats]


@dataclass(frozen=True)
class PredictedImages:
    """Labelled images and what a model predicts for them.

    Attributes:
        images: uint8 (n, height, width, 3), RGB, 0-255.
        names: str (n,).
        labels: int (n,), indices into ``class_names``; -1 for an image of no such class, which is left out.
        probabilities: (n, classes).
        abstained: bool (n,), which of them the model marks for a person.
        class_names: one for each class.
        source: which images they are, for people.
    """

    images: Images
    names: Strings
    labels: Labels
    probabilities: Probabilities
    abstained: Mask
    class_names: tuple[str, ...]
    source: str

    @property
    def predicted(self) -> Labels:
        """The class with the highest probability, (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> Floats:
        """The highest probability, (n,)."""
        return np.asarray(self.probabilities.max(axis=1))


def prediction_pictures(predicted: PredictedImages, explain: Explain | None) -> PredictionPictures:
    """Chooses and draws the images that a reader wants to see.

    Args:
        predicted: the images and predictions.
        explain: computes saliency maps; None: pictures without maps.

    Returns:
        At most 24 mistakes, the most confident of each pair of classes first; the 12 least certain correct predictions; 12
        marked images, the most confident first; and at most 8 images of each cell of the confusion matrix, 256 in all.
    """
    known = predicted.labels >= 0
    correct = known & (predicted.predicted == predicted.labels)
    uncertain = _ordered(correct, predicted.confidence)[:_UNCERTAIN]
    abstained = _ordered(known & predicted.abstained, -predicted.confidence)[:_ABSTAINED]
    chosen = [largest_mistakes(predicted.labels, predicted.probabilities, _MISTAKES), uncertain, abstained]
    mistakes, doubts, marked = _with_saliency(predicted, chosen, explain)
    return PredictionPictures(
        source=predicted.source,
        confusion=_confusion_pictures(predicted),
        confident_mistakes=mistakes,
        uncertain_correct=doubts,
        abstained=marked,
    )


def largest_mistakes(labels: Labels, probabilities: Probabilities, count: int) -> Rows:
    """Rows of the wrongly predicted images, the most confident mistake of each pair of classes first.

    Args:
        labels: int (n,); images with a negative one are left out.
        probabilities: (n, classes).
        count: how many at most.

    Returns:
        int (at most ``count``,), rows of ``labels``.

    Example:
        >>> largest_mistakes(np.array([0, 0, 1]), np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]), 5)
        array([0, 1])
    """
    predicted = probabilities.argmax(axis=1)
    wrong = _ordered((labels >= 0) & (predicted != labels), -probabilities.max(axis=1))
    seen: dict[tuple[int, int], int] = {}
    turn = []
    for row in wrong.tolist():
        pair = (int(labels[row]), int(predicted[row]))
        seen[pair] = seen.get(pair, 0) + 1
        turn.append(seen[pair])
    return np.asarray(wrong[np.argsort(turn, kind="stable")][:count])


def _ordered(chosen: Mask, by: Floats) -> Rows:
    rows = np.flatnonzero(chosen)
    return np.asarray(rows[np.argsort(by[rows], kind="stable")])


def _confusion_pictures(predicted: PredictedImages) -> tuple[ConfusionPictures, ...]:
    cells: dict[tuple[int, int], list[int]] = {}
    for row in _ordered(predicted.labels >= 0, -predicted.confidence).tolist():
        cells.setdefault((int(predicted.labels[row]), int(predicted.predicted[row])), []).append(row)
    # Where there are many cells, errors come first.
    order = sorted(cells, key=lambda cell: (cell[0] == cell[1], -len(cells[cell]), cell))[:_IMAGES_OF_CELLS]
    per_cell = max(1, min(_IMAGES_PER_CELL, _IMAGES_OF_CELLS // max(len(order), 1)))
    return tuple(
        ConfusionPictures(
            true_index=true,
            predicted_index=label,
            pictures=tuple(_picture(predicted, row) for row in cells[true, label][:per_cell]),
        )
        for true, label in sorted(order)
    )


def _picture(predicted: PredictedImages, row: int) -> Picture:
    return Picture(name=str(predicted.names[row]), jpeg=jpeg_of(predicted.images[row]))


def _with_saliency(
    predicted: PredictedImages, groups: list[Rows], explain: Explain | None
) -> list[tuple[PredictedPicture, ...]]:
    """The pictures of several groups of rows; all maps are computed at once."""
    rows = np.concatenate(groups)
    maps: list[str | None] = [None] * len(rows)
    if explain is not None and len(rows):
        images = predicted.images[rows]
        maps = [jpeg_of(image) for image in overlay(images, explain(images, predicted.predicted[rows]))]
    drawn = [_predicted_picture(predicted, row, saliency) for row, saliency in zip(rows.tolist(), maps, strict=True)]
    ends = np.cumsum([len(group) for group in groups]).tolist()
    return [tuple(drawn[end - len(group) : end]) for group, end in zip(groups, ends, strict=True)]


def _predicted_picture(predicted: PredictedImages, row: int, saliency: str | None) -> PredictedPicture:
    return PredictedPicture(
        picture=_picture(predicted, row),
        true_class=predicted.class_names[int(predicted.labels[row])],
        predicted_class=predicted.class_names[int(predicted.predicted[row])],
        probability=float(predicted.confidence[row]),
        saliency=saliency,
    )
