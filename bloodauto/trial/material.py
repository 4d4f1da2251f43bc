"""What a training needs of the images: which to learn from, which to be judged on, and the shifted views of those."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from bloodauto.data.cells import Cells
from bloodauto.data.split import Splits
from bloodauto.files import write_arrays
from bloodauto.shift.suite import ShiftSuite
from bloodauto.trial.metrics import Metrics, measure, softmax

_PREDICT_BATCH = 128


@dataclass(frozen=True)
class Material:
    """One fold's images, made once per worker and shared by its trials.

    Attributes:
        images: uint8 (n, h, w, 3), all images; may be a read-only shared array.
        labels: int64 (n,).
        num_classes: c.
        train_index, validation_index: int, into ``images``.
        quick_index: a fixed part of ``validation_index`` that is judged after every epoch.
        views: uint8 (m, h, w, 3), shifted views of validation images; ``view_labels`` (m,), ``view_groups`` str (m,).
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    train_index: np.ndarray
    validation_index: np.ndarray
    quick_index: np.ndarray
    views: np.ndarray
    view_labels: np.ndarray
    view_groups: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Answers on the validation images and their shifted views; probabilities are float32.

    Attributes:
        index: int (n,), the validation images' positions among all cells.
        labels: int64 (n,); clean: (n, c).
        view_labels: int64 (m,); view_groups: str (m,); shifted: (m, c).
    """

    index: np.ndarray
    labels: np.ndarray
    clean: np.ndarray
    view_labels: np.ndarray
    view_groups: np.ndarray
    shifted: np.ndarray

    def write(self, path: Path) -> None:
        """Writes all fields as one ``.npz``, atomically."""
        write_arrays(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})


def _spread(index: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """About ``count`` of ``index``, evenly over the classes' shares: a systematic sample of the images sorted by class."""
    if len(index) <= count:
        return index
    by_class = index[np.argsort(labels[index], kind="stable")]
    return np.sort(by_class[np.linspace(0, len(index) - 1, count).round().astype(int)])


def prepare(cells: Cells, splits: Splits, suite: ShiftSuite, *, fold: int = 0, quick_images: int = 1024) -> Material:
    """Chooses the images of one fold and draws its shifted views, the same for every trial."""
    validation = splits.validation_index(fold)
    views = suite.views(cells.images[validation], cells.labels[validation])
    return Material(
        images=cells.images,
        labels=cells.labels,
        num_classes=len(cells.class_names),
        train_index=splits.train_index(fold),
        validation_index=validation,
        quick_index=_spread(validation, cells.labels, quick_images),
        views=views.images,
        view_labels=views.labels,
        view_groups=views.groups,
    )


def probabilities(network: keras.Model, images: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
    """Answers of a network made by ``build_network``: uint8 (n, h, w, 3) -> float32 (n, c).

    With ``index`` only those images are read, a batch at a time, so that no second copy of them is made. The last batch
    is padded: a graph is traced for one batch size only.
    """
    count = len(images) if index is None else len(index)
    answers = []
    for start in range(0, count, _PREDICT_BATCH):
        part = slice(start, min(start + _PREDICT_BATCH, count))
        batch = images[part] if index is None else images[index[part]]
        missing = _PREDICT_BATCH - len(batch)
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), dtype=batch.dtype)])
        answers.append(np.asarray(network.predict_on_batch(batch))[: _PREDICT_BATCH - missing])
    return softmax(np.concatenate(answers))


@dataclass(frozen=True)
class Judgement:
    """A network's metrics on clean validation images, and the shift suite's score."""

    metrics: Metrics
    shift: float


def judge(network: keras.Model, material: Material, suite: ShiftSuite, *, quick: bool) -> tuple[Judgement, Predictions]:
    """Answers for the validation images (``quick``: the fixed part of them) and their shifted views."""
    index = material.quick_index if quick else material.validation_index
    predictions = Predictions(
        index=index,
        labels=material.labels[index],
        clean=probabilities(network, material.images, index),
        view_labels=material.view_labels,
        view_groups=material.view_groups,
        shifted=probabilities(network, material.views),
    )
    metrics = measure(predictions.labels, predictions.clean)
    score = suite.score(
        predictions.labels,
        predictions.clean,
        predictions.view_labels,
        predictions.view_groups,
        predictions.shifted,
    )
    return Judgement(metrics, score.objective), predictions
