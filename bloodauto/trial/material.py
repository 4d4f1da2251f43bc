"""What a training needs of the images: which to learn from, which to be judged on, and the shifted views of those."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from bloodauto.data.cells import Cells
from bloodauto.data.split import Splits
from bloodauto.errors import TrialRejected
from bloodauto.files import write_arrays
from bloodauto.shift.score import score as shift_score
from bloodauto.shift.suite import ShiftSuite, ViewPlan
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
        train_images: uint8, ``images[train_index]``.
        quick_rows: int, the rows of ``validation_index`` that are judged after every epoch, and of which views are made.
        plan: which of these images is shown how; ``views``: uint8 (m, h, w, 3), the plan rendered.
        view_labels: int64 (m,); view_groups: str (m,), the cause of each view's shift.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    train_index: np.ndarray
    train_images: np.ndarray
    validation_index: np.ndarray
    quick_rows: np.ndarray
    plan: ViewPlan
    views: np.ndarray
    view_labels: np.ndarray
    view_groups: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Answers on the validation images and their shifted views; probabilities are float32.

    Attributes:
        index: int (n,), the validation images' positions among all cells.
        labels: int64 (n,); clean: (n, c).
        view_labels: int64 (m,); shifted: (m, c).
        view_groups, view_families: str (m,), the cause of each view's shift; view_severities: int64 (m,), 1 to 5.
        view_weights: float64 (m,), what each view counts in the shift objective.
    """

    index: np.ndarray
    labels: np.ndarray
    clean: np.ndarray
    view_labels: np.ndarray
    view_groups: np.ndarray
    view_families: np.ndarray
    view_severities: np.ndarray
    view_weights: np.ndarray
    shifted: np.ndarray

    def write(self, path: Path) -> None:
        """Writes all fields as one ``.npz``, atomically."""
        write_arrays(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """About ``count`` rows in the classes' own shares: a systematic sample of the rows sorted by class."""
    if len(labels) <= count:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, count).round().astype(int)])


def prepare(cells: Cells, splits: Splits, suite: ShiftSuite, *, fold: int = 0, quick_images: int = 1024) -> Material:
    """Chooses the images of one fold and draws its shifted views, the same for every trial."""
    validation = splits.validation_index(fold)
    quick_rows = _spread(cells.labels[validation], quick_images)
    quick_labels = cells.labels[validation[quick_rows]]
    plan = suite.plan(quick_labels)
    return Material(
        images=cells.images,
        labels=cells.labels,
        num_classes=len(cells.class_names),
        train_index=splits.train_index(fold),
        train_images=cells.images[splits.train_index(fold)],
        validation_index=validation,
        quick_rows=quick_rows,
        plan=plan,
        views=plan.render(cells.images[validation[quick_rows]]),
        view_labels=quick_labels[plan.image_index],
        view_groups=plan.group_names,
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


def judge(network: keras.Model, material: Material, *, quick: bool) -> tuple[Judgement, Predictions]:
    """Answers for the validation images (``quick``: the fixed part of them) and their shifted views.

    Raises:
        TrialRejected: answers that are no numbers.
    """
    index = material.validation_index[material.quick_rows] if quick else material.validation_index
    labels = material.labels[index]
    clean = probabilities(network, material.images, index)
    shifted = probabilities(network, material.views)
    if not (np.isfinite(clean).all() and np.isfinite(shifted).all()):
        raise TrialRejected("nan", "the network's answers are no numbers; a smaller learning rate may help")
    rows = slice(None) if quick else material.quick_rows
    score = shift_score(labels[rows], clean[rows], material.plan, shifted)
    plan = material.plan
    predictions = Predictions(
        index=index,
        labels=labels,
        clean=clean,
        view_labels=material.view_labels,
        view_groups=material.view_groups,
        view_families=plan.family_names,
        view_severities=plan.severities,
        view_weights=plan.weights,
        shifted=shifted,
    )
    return Judgement(measure(labels, clean), score.objective), predictions
