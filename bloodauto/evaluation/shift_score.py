"""The shift score: a model's accuracy on shifted validation images by group and family, and the one number of the search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.errors import DataError, RecipeError
from bloodauto.evaluation.metrics import weighted_balanced_accuracy
from bloodauto.shift.corruptions import GROUPS
from bloodauto.shift.suite import ShiftPlan
from bloodauto.types import Labels, Mask, Probabilities

#: Weight of the clean images in the objective where they come from a site that was left out of training: as much as all
#: simulated shifts together, because they are real.
HELD_OUT_SITE_WEIGHT = 0.5


@dataclass(frozen=True)
class FamilyScore:
    """A model on the shifted images of one corruption family.

    Attributes:
        name: The family.
        group: The group of families it belongs to.
        accuracy: 0-1.
        num_shifted_images: Number of shifted images.
        weight: Their mean weight in the plan.
    """

    name: str
    group: str
    accuracy: float
    num_shifted_images: int
    weight: float


@dataclass(frozen=True)
class GroupScore:
    """A model on the shifted images of one group of families; images of weight 0 do not count.

    Attributes:
        name: The group, one of ``GROUPS``.
        accuracy: Weighted accuracy, 0-1.
        balanced_accuracy: Weighted balanced accuracy, 0-1.
        num_shifted_images: Number of shifted images of positive weight.
        weight: Weight of the group in the objective: the mean weight of all its shifted images.
    """

    name: str
    accuracy: float
    balanced_accuracy: float
    num_shifted_images: int
    weight: float


@dataclass(frozen=True)
class ShiftScore:
    """A model on clean and shifted validation images.

    Attributes:
        clean_accuracy: On the clean validation images, 0-1.
        clean_balanced_accuracy: On the clean validation images, 0-1.
        groups: One for each group that has a shifted image of positive weight, in the order of ``GROUPS``.
        families: One for each family that has a shifted image. Those of weight 0 are reported but count nowhere.
        mean_balanced_accuracy: Mean over ``groups``, 0-1.
        worst_group: Name of the group with the lowest balanced accuracy; the first of equals.
        objective: The shift score, 0-1; see ``score_shift``.
    """

    clean_accuracy: float
    clean_balanced_accuracy: float
    groups: tuple[GroupScore, ...]
    families: tuple[FamilyScore, ...]
    mean_balanced_accuracy: float
    worst_group: str
    objective: float


def score_shift(
    labels: Labels,
    clean_probabilities: Probabilities,
    plan: ShiftPlan,
    shifted_probabilities: Probabilities,
    *,
    clean_weight: float | None = None,
) -> ShiftScore:
    """Scores a model's class probabilities for clean and shifted images.

    The objective is the weighted mean of the balanced accuracy on the clean images, which has weight 1, and those of the
    groups. The weight of a group is the mean weight of its shifted images (``plan.weights``): a group that recipes could
    train on entirely has little weight, and within a group the images that no recipe could train on have more.

    Args:
        labels: Labels of all validation images, shape (n,), 0 to classes - 1.
        clean_probabilities: For the clean images, shape (n, classes).
        plan: The shifted images, m rows.
        shifted_probabilities: For the shifted images, shape (m, classes), in the order of the plan.
        clean_weight: Fraction of the objective that the clean images make up, 0-1, instead of their weight of 1:
            ``HELD_OUT_SITE_WEIGHT`` where they come from a site that was left out of training.

    Raises:
        DataError: The shapes do not fit together, labels are out of range, or a probability is not finite.
        RecipeError: No shifted image has a positive weight.
    """
    labels = np.asarray(labels)
    _check_shapes(labels, clean_probabilities, plan, shifted_probabilities)
    clean_correct = clean_probabilities.argmax(axis=1) == labels
    shifted_labels = labels[plan.image_index]
    shifted_correct = shifted_probabilities.argmax(axis=1) == shifted_labels
    group_scores = _score_groups(plan, shifted_labels, shifted_correct)
    if not group_scores:
        raise RecipeError(
            "shift score: expected a shifted image with a positive weight, but every one of them has weight 0."
        )
    balanced = [group.balanced_accuracy for group in group_scores]
    weights = [group.weight for group in group_scores]
    clean_balanced = weighted_balanced_accuracy(labels, clean_correct)
    fraction = 1 / (1 + sum(weights)) if clean_weight is None else clean_weight
    return ShiftScore(
        clean_accuracy=float(clean_correct.mean()),
        clean_balanced_accuracy=clean_balanced,
        groups=group_scores,
        families=_score_families(plan, shifted_correct),
        mean_balanced_accuracy=float(np.mean(balanced)),
        worst_group=group_scores[int(np.argmin(balanced))].name,
        objective=fraction * clean_balanced + (1 - fraction) * float(np.average(balanced, weights=weights)),
    )


def _score_families(plan: ShiftPlan, correct: Mask) -> tuple[FamilyScore, ...]:
    scores = []
    for index, family in enumerate(plan.families):
        rows = plan.family_index == index
        if rows.any():
            accuracy, weight = float(correct[rows].mean()), float(plan.weights[rows].mean())
            scores.append(FamilyScore(family.name, family.group, accuracy, int(rows.sum()), weight))
    return tuple(scores)


def _score_groups(plan: ShiftPlan, labels: Labels, correct: Mask) -> tuple[GroupScore, ...]:
    scores = []
    group_of_row = plan.group_names
    for group in GROUPS:
        in_group = group_of_row == group
        rows = in_group & (plan.weights > 0)
        if not rows.any():
            continue
        weights = plan.weights[rows]
        balanced = weighted_balanced_accuracy(labels[rows], correct[rows], weights=weights)
        scores.append(
            GroupScore(
                name=group,
                accuracy=float(np.average(correct[rows], weights=weights)),
                balanced_accuracy=balanced,
                num_shifted_images=int(rows.sum()),
                weight=float(plan.weights[in_group].mean()),
            )
        )
    return tuple(scores)


def _check_shapes(
    labels: Labels, clean_probabilities: Probabilities, plan: ShiftPlan, shifted_probabilities: Probabilities
) -> None:
    """Refuses labels, probabilities and a plan that do not fit together; see ``score_shift``."""
    if labels.shape != (plan.num_validation_images,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"shift score: expected integer labels ({plan.num_validation_images},), one per image of the plan, "
            f"got {labels.dtype} {labels.shape}."
        )
    if clean_probabilities.ndim != 2 or clean_probabilities.shape[0] != len(labels):
        raise DataError(
            f"shift score: expected clean probabilities ({len(labels)}, classes), got {clean_probabilities.shape}."
        )
    classes = clean_probabilities.shape[1]
    if shifted_probabilities.shape != (len(plan), classes):
        raise DataError(
            f"shift score: expected shifted probabilities ({len(plan)}, {classes}), got {shifted_probabilities.shape}."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"shift score: expected labels in 0..{classes - 1}, got {labels.min()}..{labels.max()}.")
    if not (np.isfinite(clean_probabilities).all() and np.isfinite(shifted_probabilities).all()):
        raise DataError("shift score: expected finite probabilities, got NaN or infinity; the model has diverged.")
