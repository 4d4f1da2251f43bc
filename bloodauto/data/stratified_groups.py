"""Stratified group split: divides images into parts of given sizes without separating a group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bloodauto.types import Floats, Labels, Rows


def stratified_group_split(
    labels: Labels, group_ids: Rows, fractions: Sequence[float], num_classes: int, rng: np.random.Generator
) -> Rows:
    """Assigns whole groups to parts, with every class in proportion.

    Three rounds. A class with fewer groups than there are parts is served first, one group to each part in the order of
    the parts. Then groups of several images, the largest first, each to the part where it brings the class counts
    closest to their targets (smallest growth of the sum over classes of (count - target)^2 / target); of equals, the
    last part. Then single images class by class, in random order, to fill what is missing.

    Not scikit-learn's ``StratifiedGroupKFold``: its folds are of equal size (a test part of 15 % beside folds of 17 %
    would need two passes), it may leave a scarce class out of the part that is trained on, and it loops in Python over
    every group, which single images are, too.

    Args:
        labels: int64, (n,), classes.
        group_ids: int64, (n,), equal for images that must stay together.
        fractions: the size of each part, relative to the others; all above 0; in the order in which scarce classes are
            served.
        num_classes: how many classes there are.
        rng: breaks ties and orders single images.

    Returns:
        int64 (n,): the part of each image, an index into ``fractions``.

    Example:
        >>> labels, groups = np.array([0, 0, 1, 1] * 5), np.arange(20) // 2
        >>> parts = stratified_group_split(labels, groups, [0.8, 0.2], 2, np.random.default_rng(0))
        >>> np.bincount(parts).tolist()
        [16, 4]
    """
    assignment = _Assignment(labels, group_ids, np.asarray(fractions, np.float64), num_classes)
    shuffled = rng.permutation(assignment.num_groups)
    by_size = shuffled[np.argsort(-assignment.sizes[shuffled], kind="stable")]
    assignment.assign_scarce_classes(by_size)
    for group in by_size[(assignment.part_of[by_size] < 0) & (assignment.sizes[by_size] > 1)].tolist():
        assignment.assign(group, assignment.best_part(group))
    for label in range(num_classes):
        singles = shuffled[(assignment.part_of[shuffled] < 0) & (assignment.counts[shuffled, label] > 0)]
        quotas = _quotas(len(singles), assignment.missing(label), rng)
        assignment.part_of[singles] = np.repeat(np.arange(len(fractions)), quotas)
    return assignment.part_of[assignment.group_of]


class _Assignment:
    """Groups that are being assigned to parts.

    Attributes:
        group_of: int64, (n,), the group of each image, an index into the following.
        num_groups: g.
        counts: int64, (g, classes), images of each class in each group.
        sizes: int64, (g,), images in each group.
        targets: float64, (parts, classes), the class counts each part should have.
        assigned: float64, (parts, classes), those it has so far.
        part_of: int64, (g,), the part of each group; -1 before it is assigned.
    """

    def __init__(self, labels: Labels, group_ids: Rows, fractions: Floats, num_classes: int) -> None:
        unique, self.group_of = np.unique(group_ids, return_inverse=True)
        self.num_groups = len(unique)
        self.counts = np.zeros((len(unique), num_classes), np.int64)
        np.add.at(self.counts, (self.group_of, labels), 1)
        self.sizes = self.counts.sum(axis=1)
        self.targets = np.outer(fractions / fractions.sum(), self.counts.sum(axis=0))
        self.assigned = np.zeros_like(self.targets)
        self.part_of = np.full(len(unique), -1, np.int64)

    def assign(self, group: int, part: int) -> None:
        self.part_of[group] = part
        self.assigned[part] += self.counts[group]

    def missing(self, label: int) -> Floats:
        """float64, (parts,): images of a class that each part still needs; negative where it has too many."""
        missing: Floats = self.targets[:, label] - self.assigned[:, label]
        return missing

    def best_part(self, group: int) -> int:
        """The part whose class counts a group brings closest to their targets."""
        present = np.flatnonzero(self.counts[group])
        target, now = self.targets[:, present], self.assigned[:, present]
        growth = (((now + self.counts[group, present] - target) ** 2 - (now - target) ** 2) / target).sum(axis=1)
        return int(np.flatnonzero(growth <= growth.min() + 1e-9)[-1])

    def assign_scarce_classes(self, by_size: Rows) -> None:
        """Gives one group to each part, in their order, of every class with fewer groups than parts."""
        groups_with_class = (self.counts > 0).sum(axis=0)
        for label in np.argsort(groups_with_class, kind="stable").tolist():
            if not 0 < groups_with_class[label] < len(self.targets):
                continue
            for group in by_size[self.counts[by_size, label] > 0].tolist():
                if self.part_of[group] < 0:
                    without = np.flatnonzero(self.assigned[:, label] == 0)
                    self.assign(group, int(without[0]) if len(without) else self.best_part(group))


def _quotas(count: int, missing: Floats, rng: np.random.Generator) -> Rows:
    """``count`` divided in proportion to what each part still needs, by largest remainder; int64, sums to count."""
    if count == 0:
        return np.zeros(len(missing), np.int64)
    weights = np.maximum(missing, 0.0)
    exact = count * weights / weights.sum()
    quotas: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    remainders = exact - quotas
    order = rng.permutation(len(missing))
    order = order[np.argsort(-np.round(remainders[order], 9), kind="stable")]
    quotas[order[: count - quotas.sum()]] += 1
    return quotas
