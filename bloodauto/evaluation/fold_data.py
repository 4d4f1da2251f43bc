"""The images of one fold: training images, validation images, and the shifted validation images of the shift suite."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.evaluation.shift_score import HELD_OUT_SITE_WEIGHT
from bloodauto.shift.suite import ShiftPlan, ShiftSuite
from bloodauto.types import Images, Labels, Rows

#: Images that are evaluated after an epoch, clean and shifted together, as a fraction of the training images. A training step
#: costs about three forward passes, so an evaluation costs a fifteenth of an epoch on a GPU, and less where images are
#: augmented on the CPU.
_EVALUATED_FRACTION = 0.2
#: Fewer evaluated images than this give scores that are mostly noise.
_MIN_EVALUATED = 256
#: Fraction of the images evaluated after an epoch that are clean; the others are shifted.
_CLEAN_FRACTION = 0.35
#: Training images per image that the suite shifts; see ``ShiftSuite.num_images``.
_TRAIN_IMAGES_PER_SHIFTED = 16
_MIN_SHIFTED = 64


@dataclass(frozen=True)
class FoldData:
    """The images of one fold, prepared once per worker and shared by its trials.

    Attributes:
        images: All images of the data set, shape (n, height, width, 3); may be a read-only shared array.
        labels: int64, shape (n,).
        num_classes: Number of classes.
        train_index: Positions of the training images in ``images``.
        train_images: ``images[train_index]``.
        validation_index: Positions of the validation images in ``images``.
        subset_rows: Rows of ``validation_index`` that are evaluated after every epoch, and that the suite shifts.
        plan: Which of these images is shifted how; m rows.
        shifted_images: The plan, rendered; shape (m, height, width, 3).
        subset_shifted_rows: Rows of ``plan`` that are evaluated after every epoch; the evaluation at the end takes all.
        clean_weight: Fraction of the objective that the clean images make up, where they come from a site that was left out
            of training; otherwise None.
        target_images: Unlabelled images of the target domain, shape (k, height, width, 3); k may be 0.
    """

    images: Images
    labels: Labels
    num_classes: int
    train_index: Rows
    train_images: Images
    validation_index: Rows
    subset_rows: Rows
    plan: ShiftPlan
    shifted_images: Images
    subset_shifted_rows: Rows
    clean_weight: float | None
    target_images: Images

    @property
    def train_labels(self) -> Labels:
        """Labels of the training images."""
        return self.labels[self.train_index]

    @property
    def validation_labels(self) -> Labels:
        """Labels of the validation images."""
        return self.labels[self.validation_index]

    @property
    def subset_labels(self) -> Labels:
        """Labels of the validation images that are evaluated after every epoch."""
        return self.validation_labels[self.subset_rows]

    @property
    def shifted_labels(self) -> Labels:
        """Label of each shifted image, shape (m,)."""
        return np.asarray(self.subset_labels[self.plan.image_index])

    @property
    def shifted_groups(self) -> NDArray[np.str_]:
        """Group of corruption families of each shifted image, shape (m,)."""
        return self.plan.group_names

    @property
    def image_shape_px(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[1], self.images.shape[2]

    @property
    def num_evaluated_images(self) -> int:
        """Number of images that an evaluation of the whole fold predicts."""
        return len(self.validation_index) + len(self.shifted_images) + len(self.target_images)


def prepare_fold(
    dataset: CellDataset,
    splits: Splits,
    suite: ShiftSuite,
    *,
    fold: int = 0,
    max_subset_images: int = 1024,
    target: Images | None = None,
) -> FoldData:
    """Selects the images of one fold and renders its shifted images, the same for every trial.

    The number of evaluated images grows with the number of training images, so that evaluation stays about a tenth of the
    cost of a training.

    Args:
        dataset: All images.
        splits: The folds.
        suite: Draws the shifted images.
        fold: The fold whose images are the validation images.
        max_subset_images: Maximum number of clean images that are evaluated after an epoch.
        target: Unlabelled images of the target domain, shape (k, height, width, 3); None if there are none.

    Example:
        >>> from bloodauto.data.clean import clean
        >>> from bloodauto.data.split import make_splits
        >>> from bloodauto.data.synthetic.generator import synthesize
        >>> dataset = synthesize(100, seed=0, image_size_px=16)
        >>> splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
        >>> fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=0))
        >>> len(fold_data.shifted_images) == len(fold_data.plan)
        True
    """
    train_index, validation_index = splits.train_index(fold), splits.validation_index(fold)
    num_evaluated = max(round(_EVALUATED_FRACTION * len(train_index)), _MIN_EVALUATED)
    num_clean = min(max_subset_images, round(_CLEAN_FRACTION * num_evaluated))
    subset_rows = _stratified_rows(dataset.labels[validation_index], num_clean)
    subset_index = validation_index[subset_rows]
    num_shifted = max(len(train_index) // _TRAIN_IMAGES_PER_SHIFTED, _MIN_SHIFTED)
    plan = replace(suite, num_images=min(suite.num_images, num_shifted)).plan(dataset.labels[subset_index])
    return FoldData(
        images=dataset.images,
        labels=dataset.labels,
        num_classes=len(dataset.class_names),
        train_index=train_index,
        train_images=dataset.images[train_index],
        validation_index=validation_index,
        subset_rows=subset_rows,
        plan=plan,
        shifted_images=plan.render(dataset.images[subset_index]),
        subset_shifted_rows=_stratified_shifted_rows(plan, num_evaluated - len(subset_rows)),
        clean_weight=HELD_OUT_SITE_WEIGHT if splits.folds_are_sites else None,
        target_images=dataset.images[:0] if target is None else target,
    )


def _stratified_rows(labels: Labels, count: int) -> Rows:
    """Selects about ``count`` rows with the class fractions of all: a systematic sample of the rows sorted by class."""
    if len(labels) <= count:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, count).round().astype(int)])


def _stratified_shifted_rows(plan: ShiftPlan, count: int) -> Rows:
    """Selects about ``count`` rows of a plan, the same fraction of each group, whose images are in the order of classes."""
    fraction = min(count / len(plan), 1.0)
    groups = [np.flatnonzero(plan.group_names == group) for group in dict.fromkeys(plan.group_names.tolist())]
    return np.concatenate(
        [rows[np.linspace(0, len(rows) - 1, max(int(fraction * len(rows)), 1)).round().astype(int)] for rows in groups]
    )
