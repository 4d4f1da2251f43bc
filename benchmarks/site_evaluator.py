"""Evaluates predictions on images, on corruptions of them that no search has drawn, and at other sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from exhaustive_plan import exhaustive_plan

from bloodauto.data.dataset import CellDataset
from bloodauto.evaluation.metrics import weighted_balanced_accuracy
from bloodauto.shift.suite import ShiftSuite
from bloodauto.types import Images, Labels, Probabilities, Rows

#: Of the corruptions: another draw than that of any search.
_SEED = 2026
_SEVERITIES = (3, 4, 5)
_SUITE_IMAGES = 128

#: uint8 images (n, height, width, 3) -> class probabilities (n, classes).
Predict = Callable[[Images], Probabilities]


def _accuracy(predict: Predict, images: Images, labels: Labels) -> float:
    return float((predict(images).argmax(axis=1) == labels).mean())


class SiteEvaluator:
    """Some images of a data set, corruptions of them, and images of other sites.

    Args:
        dataset: The images.
        rows: Which of them are evaluated.
        external: Data sets of other sites by name; their classes are among those of ``dataset``.
    """

    def __init__(self, dataset: CellDataset, rows: Rows, external: Mapping[str, CellDataset]) -> None:
        self._images, self._labels = dataset.images[rows], dataset.labels[rows]
        plan = exhaustive_plan(ShiftSuite(seed=_SEED, num_images=_SUITE_IMAGES), self._labels, _SEVERITIES)
        self._shifted_images, self._shifted_labels = plan.render(self._images), self._labels[plan.image_index]
        self._groups = np.array([family.group for family in plan.families])[plan.family_index]
        self._external: dict[str, tuple[Images, Labels]] = {}
        for name, other in external.items():
            class_indices = np.array([dataset.class_names.index(class_name) for class_name in other.class_names])
            self._external[name] = (other.images, class_indices[other.labels])

    @property
    def columns(self) -> list[str]:
        """What the values of a row are."""
        return ["in-domain", "corrupted", *self._external]

    def row(self, predict: Predict) -> list[float]:
        """Accuracies, in the order of the columns; of corrupted images the mean of the groups' balanced accuracies."""
        correct = predict(self._shifted_images).argmax(axis=1) == self._shifted_labels
        by_group = [
            weighted_balanced_accuracy(self._shifted_labels[rows], correct[rows])
            for rows in (self._groups == group for group in np.unique(self._groups))
        ]
        external = [_accuracy(predict, images, labels) for images, labels in self._external.values()]
        return [_accuracy(predict, self._images, self._labels), float(np.mean(by_group)), *external]


def markdown_header(columns: list[str]) -> str:
    """The first two lines of a table with a name in its first column."""
    return f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}"


def markdown_row(name: str, values: list[float]) -> str:
    """A line of that table, in per cent."""
    return f"| {name} | {' | '.join(f'{100 * value:.1f} %' for value in values)} |"
