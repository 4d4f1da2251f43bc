"""Small pictures of images, which the report shows: of the data, and of what the ensemble predicts."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import AfterValidator

from bloodauto.run.artifacts.base import Artifact, Count, Fraction, Record

_JPEG_START = b"\xff\xd8\xff"


def _check_jpeg(text: str) -> str:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a JPEG file in base64") from error
    if not content.startswith(_JPEG_START):
        raise ValueError("a JPEG file in base64, not another file")
    return text


#: A JPEG file in base64.
Jpeg = Annotated[str, AfterValidator(_check_jpeg)]


class Picture(Record):
    """A small picture of an image.

    Attributes:
        name: of the image.
        jpeg: the picture.
    """

    name: str
    jpeg: Jpeg


class CleanedPicture(Record):
    """An image in which cleaning found something.

    Attributes:
        picture: of the image.
        label: the class's name.
        finding: as in ``CleaningRow``.
        action: as in ``CleaningRow``.
        reason: one sentence.
    """

    picture: Picture
    label: str
    finding: str
    action: str
    reason: str


class DataPictures(Artifact):
    """``data_pictures.json``: some images of each class, and those in which cleaning found something.

    Attributes:
        classes: pictures of kept images of each class, in the order of the label numbers; a class may have none.
        cleaned: by finding.
    """

    FILE = "data_pictures.json"

    classes: dict[str, tuple[Picture, ...]]
    cleaned: tuple[CleanedPicture, ...]


class PredictedPicture(Record):
    """An image and what is predicted for it.

    Attributes:
        picture: of the image.
        true_class: its label.
        predicted_class: the class with the highest probability.
        probability: of that class, 0-1.
        saliency: the image with the saliency map of the predicted class on it; None where no map was computed.
    """

    picture: Picture
    true_class: str
    predicted_class: str
    probability: Fraction
    saliency: Jpeg | None


class ConfusionPictures(Record):
    """Some images of one cell of the confusion matrix.

    Attributes:
        true_index: label number of the class.
        predicted_index: label number of the predicted class.
        pictures: the most confident first.
    """

    true_index: Count
    predicted_index: Count
    pictures: tuple[Picture, ...]


class PredictionPictures(Record):
    """Pictures of what a model predicts for labelled images.

    Attributes:
        source: which images, for people.
        confusion: some images of each cell of the confusion matrix that has any.
        confident_mistakes: wrongly predicted images, the most confident first.
        uncertain_correct: correctly predicted images, the least confident first.
        abstained: images that the model marks for a person, the most confident first.
    """

    source: str
    confusion: tuple[ConfusionPictures, ...]
    confident_mistakes: tuple[PredictedPicture, ...]
    uncertain_correct: tuple[PredictedPicture, ...]
    abstained: tuple[PredictedPicture, ...]


class ShiftLevel(Record):
    """Accuracy under one corruption family at one severity.

    Attributes:
        severity: 1-5.
        correct: correct predictions.
        images: how many there are.
    """

    severity: Count
    correct: Count
    images: Count


class ShiftFamily(Record):
    """One corruption family of the shift suite.

    Attributes:
        family: its name.
        group: its group.
        levels: by severity.
        example: an image under the family at the highest of these severities.
    """

    family: str
    group: str
    levels: tuple[ShiftLevel, ...]
    example: Jpeg


class ResultPictures(Artifact):
    """``result_pictures.json``: what the report shows of the exported ensemble.

    Attributes:
        ensemble: id of the ensemble; see ``Ensemble.ensemble_id``.
        predictions: of held-out test images, or of validation images where nothing is held out.
        shift_original: the image that all examples of corruption families were made from.
        shift: accuracy of the ensemble on shifted validation images, and an example, of each family.
        augmentation: of the last stage of the member with the largest weight; each row is an image and augmented versions.
        augmentation_source: the member's name.
    """

    FILE = "result_pictures.json"
    MEND = "Delete the file and run bloodauto export-best, which writes it again."

    ensemble: str
    predictions: PredictionPictures
    shift_original: Jpeg
    shift: tuple[ShiftFamily, ...]
    augmentation: Jpeg
    augmentation_source: str
