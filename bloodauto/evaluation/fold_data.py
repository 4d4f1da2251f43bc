"""What a training needs of the images: which to learn from, which to be judged on, and the shifted views of those."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.errors import TrialRejected
from bloodauto.evaluation.metrics import Metrics, compute_metrics, softmax
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT, score_shift
from bloodauto.run.files import write_arrays
from bloodauto.shift.suite import ShiftPlan, ShiftSuite
from bloodauto.shift.target_estimators import estimate_by_transport

_PREDICT_BATCH = 128
#: After an epoch so many images are judged for each that was learnt from: a fifteenth of a training step's work on a GPU, where
#: a step costs three answers, less where images are augmented on the CPU. Never fewer than so many, or scores are mere noise.
_EVALUATED_FRACTION = 0.2
_MIN_EVALUATED = 256
#: Of these the clean ones; the rest are views.
_CLEAN_FRACTION = 0.35
#: One image of so many learnt from is shown as another laboratory would; see ``ShiftSuite.num_images``.
_TRAIN_IMAGES_PER_SHIFTED = 16
_MIN_SHIFTED = 64
_LATENCY_REPEATS = 5


@dataclass(frozen=True)
class FoldData:
    """One fold's images, made once per worker and shared by its trials.

    Attributes:
        images: uint8 (n, h, w, 3), all images; may be a read-only shared array.
        labels: int64 (n,).
        num_classes: c.
        train_index, validation_index: int, into ``images``.
        train_images: uint8, ``images[train_index]``.
        subset_rows: int, the rows of ``validation_index`` that are judged after every epoch, and of which views are made.
        plan: which of these images is shown how; ``shifted_images``: uint8 (m, h, w, 3), the plan rendered.
        subset_shifted_rows: int, the rows of ``plan`` that are judged after every epoch; all of them are at a training's end.
        shifted_labels: int64 (m,); shifted_groups: str (m,), the cause of each view's shift.
        clean_weight: of the objective, where the validation images come from a left-out laboratory; else None.
        target: uint8 (k, h, w, 3), unlabelled images of the laboratory the network is meant for; k may be 0.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    train_index: np.ndarray
    train_images: np.ndarray
    validation_index: np.ndarray
    subset_rows: np.ndarray
    plan: ShiftPlan
    subset_shifted_rows: np.ndarray
    shifted_images: np.ndarray
    shifted_labels: np.ndarray
    shifted_groups: np.ndarray
    clean_weight: float | None
    target: np.ndarray


@dataclass(frozen=True)
class ValidationPredictions:
    """Answers on the validation images and their shifted views; probabilities are float32.

    Attributes:
        index: int (n,), the validation images' positions among all cells.
        labels: int64 (n,); clean: (n, c).
        shifted_labels: int64 (m,); shifted: (m, c).
        shifted_groups, shifted_families: str (m,), the cause of each view's shift; shifted_severities: int64 (m,), 1 to 5.
        shifted_weights: float64 (m,), what each view counts in the shift objective.
        target: (k, c), on unlabelled images of the target laboratory; k is 0 where there are none.
    """

    index: np.ndarray
    labels: np.ndarray
    clean: np.ndarray
    shifted_labels: np.ndarray
    shifted_groups: np.ndarray
    shifted_families: np.ndarray
    shifted_severities: np.ndarray
    shifted_weights: np.ndarray
    shifted: np.ndarray
    target: np.ndarray

    def write(self, path: Path) -> None:
        """Writes all fields as one ``.npz``, atomically."""
        write_arrays(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})


def _stratified_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """About ``count`` rows in the classes' own shares: a systematic sample of the rows sorted by class."""
    if len(labels) <= count:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, count).round().astype(int)])


def _stratified_shifted_rows(plan: ShiftPlan, count: int) -> np.ndarray:
    """About ``count`` rows of a plan, the same share of each group; its images stand in the order of their classes."""
    fraction = min(count / len(plan), 1.0)
    groups = [np.flatnonzero(plan.group_names == group) for group in dict.fromkeys(plan.group_names.tolist())]
    return np.concatenate(
        [rows[np.linspace(0, len(rows) - 1, max(int(fraction * len(rows)), 1)).round().astype(int)] for rows in groups]
    )


def prepare_fold(
    dataset: CellDataset,
    splits: Splits,
    suite: ShiftSuite,
    *,
    fold: int = 0,
    max_subset_images: int = 1024,
    target: np.ndarray | None = None,
) -> FoldData:
    """Chooses the images of one fold and draws its shifted views, the same for every trial.

    How much is judged follows from how much there is to learn from, so that judging stays a tenth of a training.

    Args:
        max_subset_images: most clean images that are judged after an epoch.
        target: see ``Material``; None: none.
    """
    validation = splits.validation_index(fold)
    train_images = len(splits.train_index(fold))
    judged = max(round(_EVALUATED_FRACTION * train_images), _MIN_EVALUATED)
    subset_rows = _stratified_rows(dataset.labels[validation], min(max_subset_images, round(_CLEAN_FRACTION * judged)))
    quick_labels = dataset.labels[validation[subset_rows]]
    viewed = max(train_images // _TRAIN_IMAGES_PER_SHIFTED, _MIN_SHIFTED)
    plan = replace(suite, num_images=min(suite.num_images, viewed)).plan(quick_labels)
    return FoldData(
        images=dataset.images,
        labels=dataset.labels,
        num_classes=len(dataset.class_names),
        train_index=splits.train_index(fold),
        train_images=dataset.images[splits.train_index(fold)],
        validation_index=validation,
        subset_rows=subset_rows,
        plan=plan,
        subset_shifted_rows=_stratified_shifted_rows(plan, judged - len(subset_rows)),
        shifted_images=plan.render(dataset.images[validation[subset_rows]]),
        shifted_labels=quick_labels[plan.image_index],
        shifted_groups=plan.group_names,
        clean_weight=HELD_OUT_SITE_WEIGHT if splits.folds_are_sites else None,
        target=dataset.images[:0] if target is None else target,
    )


def predict_outputs(
    model: keras.Model, images: np.ndarray, index: np.ndarray | None = None, *, batch_size: int = _PREDICT_BATCH
) -> list[np.ndarray]:
    """What each output of a model says of images, uint8 (n, h, w, 3), n at least 1: one array of n rows for each.

    With ``index`` only those images are read, a batch at a time, so that no second copy of them is made. The last batch
    is padded: a graph is traced for one batch size only. Keras' own ``predict`` feeds through ``tf.data`` and may pause at its
    end; see ``fitting.as_tf_dataset``.
    """
    count = len(images) if index is None else len(index)
    found: list[list[np.ndarray]] = []
    for start in range(0, count, batch_size):
        part = slice(start, min(start + batch_size, count))
        batch = images[part] if index is None else images[index[part]]
        missing = batch_size - len(batch)
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), dtype=batch.dtype)])
        outputs = model.predict_on_batch(batch)
        # Keras unpacks a list of one.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        found.append([np.asarray(output)[: batch_size - missing] for output in outputs])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def predict_probabilities(network: keras.Model, images: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
    """Answers of a network made by ``build_network``: uint8 (n, h, w, 3) -> float32 (n, c); ``index`` as in ``answers_of``."""
    return softmax(predict_outputs(network, images, index)[0])


def milliseconds_per_image(network: keras.Model, images: np.ndarray) -> float:
    """The median time of an answer in a batch of ``_PREDICT_BATCH``; the first batch, which may trace a graph, left out."""
    batch = np.resize(images[:_PREDICT_BATCH], (_PREDICT_BATCH, *images.shape[1:]))
    network.predict_on_batch(batch)
    seconds = []
    for _ in range(_LATENCY_REPEATS):
        started = time.perf_counter()
        network.predict_on_batch(batch)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds) / _PREDICT_BATCH


@dataclass(frozen=True)
class Evaluation:
    """A network's metrics on clean validation images, and the shift suite's score.

    ``latency_ms``: of an answer for one image, on the device it was trained on; None after a quick look.
    ``target_estimate``: of the accuracy on unlabelled target images, 0-1; None after a quick look, or without such images.
    """

    metrics: Metrics
    shift: float
    latency_ms: float | None = None
    target_estimate: float | None = None


def evaluate(
    network: keras.Model, fold_data: FoldData, *, subset_only: bool
) -> tuple[Evaluation, ValidationPredictions]:
    """Answers for the validation images and their shifted views, or (``quick``) for a fixed part of both.

    Raises:
        TrialRejected: answers that are no numbers.
    """
    index = fold_data.validation_index[fold_data.subset_rows] if subset_only else fold_data.validation_index
    shifted_rows = fold_data.subset_shifted_rows if subset_only else np.arange(len(fold_data.plan))
    plan = fold_data.plan.select(shifted_rows)
    labels = fold_data.labels[index]
    clean = predict_probabilities(network, fold_data.images, index)
    shifted = predict_probabilities(network, fold_data.shifted_images, shifted_rows)
    if not (np.isfinite(clean).all() and np.isfinite(shifted).all()):
        raise TrialRejected("nan", "the network's outputs are not finite; a smaller learning rate may help")
    target, estimate = clean[:0], None
    if not subset_only and len(fold_data.target):
        target = predict_probabilities(network, fold_data.target)
        learnt = fold_data.labels[fold_data.train_index]
        estimate = estimate_by_transport(target, np.bincount(learnt, minlength=fold_data.num_classes))
    rows = slice(None) if subset_only else fold_data.subset_rows
    score = score_shift(labels[rows], clean[rows], plan, shifted, clean_weight=fold_data.clean_weight)
    predictions = ValidationPredictions(
        index=index,
        labels=labels,
        clean=clean,
        shifted_labels=fold_data.shifted_labels[shifted_rows],
        shifted_groups=fold_data.shifted_groups[shifted_rows],
        shifted_families=plan.family_names,
        shifted_severities=plan.severities,
        shifted_weights=plan.weights,
        shifted=shifted,
        target=target,
    )
    latency_ms = None if subset_only else milliseconds_per_image(network, fold_data.shifted_images)
    return Evaluation(compute_metrics(labels, clean), score.objective, latency_ms, estimate), predictions
