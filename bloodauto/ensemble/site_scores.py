"""How an ensemble does in each laboratory that the data name, by networks that saw no image from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.evaluation.metrics import balanced_accuracy, confusion_matrix
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_json

SITE_SCORES_FILE = "site_scores.json"


@dataclass(frozen=True)
class SiteScore:
    """Accuracy and balanced accuracy, 0-1, on a laboratory's images that were left out of training."""

    site: str
    images: int
    accuracy: float
    balanced_accuracy: float


def score_sites(
    dataset: CellDataset, splits: Splits, folds: Sequence[int], labels: np.ndarray, probabilities: np.ndarray
) -> tuple[SiteScore, ...]:
    """Scores by laboratory, in the order of the folds.

    Args:
        folds: each a laboratory, in which the answers were given out of fold.
        labels: int (n,), of the images of these folds, in ascending order of the images.
        probabilities: float (n, classes), of networks that did not see the image's laboratory.
    """
    index = np.sort(np.concatenate([splits.validation_index(fold) for fold in folds]))
    assert splits.folds_are_sites
    assert len(index) == len(labels) == len(probabilities), f"{len(index)} images, {len(labels)} answers"
    answers = probabilities.argmax(axis=1)
    scores = []
    for fold in folds:
        rows = splits.fold[index] == fold
        confusion = confusion_matrix(labels[rows], answers[rows], len(dataset.class_names))
        scores.append(
            SiteScore(
                splits.fold_names[fold],
                int(rows.sum()),
                float((answers[rows] == labels[rows]).mean()),
                float(balanced_accuracy(confusion)),
            )
        )
    return tuple(scores)


def write_site_scores(run: RunDirectory, scores: Sequence[SiteScore]) -> None:
    """Writes ``site_scores.json``."""
    write_json(run.root / SITE_SCORES_FILE, [asdict(score) for score in scores])
