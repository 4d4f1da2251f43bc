"""What a recipe is worth on the views: numbers per group and family, and the one number a search maximises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.errors import DataError, RecipeError
from bloodauto.shift.corruptions.family import GROUPS
from bloodauto.shift.suite import ShiftPlan

#: What the images of a left-out laboratory count in the objective: as much as all simulated causes, being real.
HELD_OUT_SITE_WEIGHT = 0.5


@dataclass(frozen=True)
class FamilyScore:
    """Accuracy, 0-1, over the views of one family, how many there are, and what each counted on average."""

    name: str
    group: str
    accuracy: float
    num_shifted_images: int
    weight: float


@dataclass(frozen=True)
class GroupScore:
    """Weighted accuracy and balanced accuracy, 0-1, over the views of one group, and what the group counts."""

    name: str
    accuracy: float
    balanced_accuracy: float
    num_shifted_images: int
    weight: float


@dataclass(frozen=True)
class ShiftScore:
    """How one model did.

    Attributes:
        clean_accuracy, clean_balanced_accuracy: 0-1, on the unchanged validation images.
        groups: one per group that has a view of positive weight, in the order of ``GROUPS``.
        families: one per family that has a view, weight 0 included: reported, but counted nowhere.
        mean_balanced_accuracy: 0-1, mean over ``groups``.
        worst_group: name of the group of lowest balanced accuracy; the first of them on a tie.
        objective: 0-1, see ``score``.
    """

    clean_accuracy: float
    clean_balanced_accuracy: float
    groups: tuple[GroupScore, ...]
    families: tuple[FamilyScore, ...]
    mean_balanced_accuracy: float
    worst_group: str
    objective: float


def score(
    labels: np.ndarray,
    clean_probabilities: np.ndarray,
    plan: ShiftPlan,
    shifted_probabilities: np.ndarray,
    *,
    clean_weight: float | None = None,
) -> ShiftScore:
    """Sums up what a model answered on clean images and on views.

    The objective is the weighted mean of the clean balanced accuracy, which counts 1, and the groups' balanced
    accuracies, each of which counts what its views count on average (``plan.weights``): a group that recipes could train
    on entirely counts little, and within a group the views count more that none could.

    Args:
        labels: integers, (n,), of all validation images, in 0..classes - 1.
        clean_probabilities: float, (n, classes).
        plan: the views that were shown, m rows.
        shifted_probabilities: float, (m, classes), in the plan's order.
        clean_weight: the clean images' share of the objective, 0-1, instead of counting 1: ``HELD_OUT_SITE_WEIGHT`` where they
            come from a laboratory that was not trained on.

    Raises:
        DataError: shapes do not fit together, labels are out of range, or a probability is not finite.
        RecipeError: no view has a positive weight.
    """
    labels = np.asarray(labels)
    classes = _checked_classes(labels, clean_probabilities, plan, shifted_probabilities)
    clean_correct = (clean_probabilities.argmax(axis=1) == labels).astype(np.float64)
    shifted_labels = labels[plan.image_index]
    view_correct = (shifted_probabilities.argmax(axis=1) == shifted_labels).astype(np.float64)

    family_scores = []
    for index, family in enumerate(plan.families):
        rows = plan.family_index == index
        if rows.any():
            correct, weight = float(view_correct[rows].mean()), float(plan.weights[rows].mean())
            family_scores.append(FamilyScore(family.name, family.group, correct, int(rows.sum()), weight))

    group_scores = []
    of_group = plan.group_names
    for group in GROUPS:
        rows = of_group == group
        counted = rows & (plan.weights > 0)
        if counted.any():
            correct_views, weights = view_correct[counted], plan.weights[counted]
            group_scores.append(
                GroupScore(
                    group,
                    float(np.average(correct_views, weights=weights)),
                    _balanced_accuracy(correct_views, shifted_labels[counted], weights, classes),
                    int(counted.sum()),
                    float(plan.weights[rows].mean()),
                )
            )
    if not group_scores:
        raise RecipeError("shift score: expected a view with a positive weight, but every view has weight 0.")
    balanced = [group_score.balanced_accuracy for group_score in group_scores]
    clean_balanced = _balanced_accuracy(clean_correct, labels, np.ones(len(labels)), classes)
    return ShiftScore(
        clean_accuracy=float(clean_correct.mean()),
        clean_balanced_accuracy=clean_balanced,
        groups=tuple(group_scores),
        families=tuple(family_scores),
        mean_balanced_accuracy=float(np.mean(balanced)),
        worst_group=group_scores[int(np.argmin(balanced))].name,
        objective=_objective(clean_balanced, balanced, [one.weight for one in group_scores], clean_weight),
    )


def _objective(clean: float, balanced: list[float], weights: list[float], clean_weight: float | None) -> float:
    share = 1 / (1 + sum(weights)) if clean_weight is None else clean_weight
    return share * clean + (1 - share) * float(np.average(balanced, weights=weights))


def _balanced_accuracy(correct: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int) -> float:
    """Mean over the classes that occur of the weighted share that is right."""
    total = np.bincount(labels, weights, minlength=classes)
    right = np.bincount(labels, weights * correct, minlength=classes)
    present = total > 0
    return float(np.mean(right[present] / total[present]))


def _checked_classes(
    labels: np.ndarray, clean_probabilities: np.ndarray, plan: ShiftPlan, shifted_probabilities: np.ndarray
) -> int:
    """The number of classes, once all four fit together."""
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
            f"shift score: expected view probabilities ({len(plan)}, {classes}), got {shifted_probabilities.shape}."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"shift score: expected labels in 0..{classes - 1}, got {labels.min()}..{labels.max()}.")
    if not (np.isfinite(clean_probabilities).all() and np.isfinite(shifted_probabilities).all()):
        raise DataError("shift score: expected finite probabilities, got NaN or infinity; the model has diverged.")
    return classes
