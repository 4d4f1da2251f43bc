"""A small network that learnt from an ensemble, beside that ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bloodauto.ensemble.predictions import OofPredictions, join_predictions, scores_of
from bloodauto.ensemble.record import Ensemble
from bloodauto.run.files import write_json

DISTILLED_FILE = "distilled.json"
_FOLD = 0


@dataclass(frozen=True)
class Comparison:
    """Student and teacher on the images that the student did not learn from, each calibrated.

    Attributes:
        scores, teacher_scores: as in ``Ensemble``; the teacher's are those of its networks that left out the same images.
        agreement, agreement_shifted: how often both give the same answer, 0-1, on these images and on shifted shifted_images.
        images, shifted_images: how many there are.
    """

    scores: dict[str, float]
    teacher_scores: dict[str, float]
    agreement: float
    agreement_shifted: float
    images: int
    shifted_images: int


@dataclass(frozen=True)
class DistillationResult:
    """What a distillation came to.

    Attributes:
        network: the student in words; recipe_id: of its training.
        parameters, teacher_parameters: of the student, and of all the teacher's networks.
        epochs: over the training images, seen with the recipe's augmentation.
        budget_device_seconds, spent_device_seconds: devices reserved x seconds reserved, the teacher's answers included; spent
            until the student was trained and judged.
        parity_difference: the largest difference of a probability between the written file and the search; None before it is
            written, or without a Keras file.
    """

    network: str
    recipe_id: str
    parameters: int
    teacher_parameters: int
    epochs: int
    budget_device_seconds: float
    spent_device_seconds: float
    comparison: Comparison
    parity_difference: float | None = None


def compare(student: Ensemble, teacher: Ensemble) -> Comparison:
    """Compares what both answered for the images of fold 0, which the student did not learn from.

    Raises:
        RunError: predictions that are missing or damaged.
    """
    own, of_teacher = _calibrated(student, teacher), _calibrated(teacher, teacher)
    assert np.array_equal(own[0].labels, of_teacher[0].labels), "student and teacher: expected the same images"

    def agreement(part: int) -> float:
        return float((own[1][part].argmax(axis=1) == of_teacher[1][part].argmax(axis=1)).mean())

    return Comparison(
        scores=scores_of(own[0], *own[1]),
        teacher_scores=scores_of(of_teacher[0], *of_teacher[1]),
        agreement=agreement(0),
        agreement_shifted=agreement(1),
        images=len(own[0].clean),
        shifted_images=len(own[0].shifted),
    )


def _calibrated(ensemble: Ensemble, site_info_of: Ensemble) -> tuple[OofPredictions, Sequence[np.ndarray]]:
    """The images of the fold, and the ensemble's answers for them, their shifted_images and the target images."""
    parts = [
        (member.weight, join_predictions([one for one in member.networks if one.fold == _FOLD], site_info_of.site_info))
        for member in ensemble.members
    ]
    averages = [
        np.asarray(sum(weight * getattr(one, name).astype(np.float64) for weight, one in parts))
        for name in ("clean", "shifted", "target")
    ]
    return parts[0][1], [ensemble.calibration.apply(average) for average in averages]


def write_distilled(folder: Path, distilled: DistillationResult) -> None:
    """Writes ``distilled.json``."""
    write_json(folder / DISTILLED_FILE, asdict(distilled))
