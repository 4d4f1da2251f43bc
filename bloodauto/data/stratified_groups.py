"""Dealing groups of images into parts so that every part gets its share of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratified_group_split(
    labels: np.ndarray, group_ids: np.ndarray, fractions: Sequence[float], num_classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Deals whole units (images that must stay together) into parts.

    Three rounds. A class with fewer units than there are parts is served first, one unit to each part in the order of
    the parts. Then units of several images, the largest first, each to the part where it brings the class counts closest to
    their targets (smallest growth of the sum over classes of (count - target)^2 / target); of equals, the last part, which
    is a part to learn from. Then single images class by class, in random order, to fill what is missing. Unlike
    scikit-learn's StratifiedGroupKFold the parts may differ in size, small classes are served first and single
    images cost no Python loop.

    Args:
        labels: int64, (n,), the classes.
        units: int64, (n,), equal for images that must stay together.
        shares: the size wanted of each part, in any unit; all above 0; in the order in which scarce classes are served.
        num_classes: how many classes there are.
        rng: breaks ties and orders single images.

    Returns:
        int64 (n,): the part of each image, an index into ``shares``.
    """
    wanted = np.asarray(fractions, np.float64)
    unit_ids, unit_of = np.unique(group_ids, return_inverse=True)
    counts = np.zeros((len(unit_ids), num_classes), np.int64)
    np.add.at(counts, (unit_of, labels), 1)
    targets = np.outer(wanted / wanted.sum(), counts.sum(axis=0))
    dealt = np.zeros_like(targets)
    part_of = np.full(len(unit_ids), -1, np.int64)

    def assign(unit: int, part: int) -> None:
        part_of[unit] = part
        dealt[part] += counts[unit]

    def best_part(unit: int, allowed: np.ndarray) -> int:
        present = np.flatnonzero(counts[unit])
        goal, now = targets[:, present], dealt[:, present]
        growth = (((now + counts[unit, present] - goal) ** 2 - (now - goal) ** 2) / goal).sum(axis=1)
        growth[~allowed] = np.inf
        return int(np.flatnonzero(growth <= growth.min() + 1e-9)[-1])

    shuffled = rng.permutation(len(unit_ids))
    sizes = counts.sum(axis=1)
    by_size = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    units_with_class = (counts > 0).sum(axis=0)
    for scarce in np.argsort(units_with_class, kind="stable").tolist():
        if not 0 < units_with_class[scarce] < len(wanted):
            continue
        for unit in by_size[counts[by_size, scarce] > 0].tolist():
            if part_of[unit] < 0:
                lacking = np.flatnonzero(dealt[:, scarce] == 0)
                assign(unit, int(lacking[0]) if len(lacking) else best_part(unit, np.ones(len(wanted), bool)))
    everywhere = np.ones(len(wanted), bool)
    for unit in by_size[(part_of[by_size] < 0) & (sizes[by_size] > 1)].tolist():
        assign(unit, best_part(unit, everywhere))
    for label in range(num_classes):
        singles = shuffled[(part_of[shuffled] < 0) & (counts[shuffled, label] > 0)]
        part_of[singles] = np.repeat(
            np.arange(len(wanted)), _quotas(len(singles), targets[:, label] - dealt[:, label], rng)
        )
    return part_of[unit_of]


def _quotas(count: int, missing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``count`` divided in proportion to what each part still misses, by largest remainder; int64, sums to count."""
    if count == 0:
        return np.zeros(len(missing), np.int64)
    weights = np.maximum(missing, 0.0)
    exact = count * weights / weights.sum()
    quotas = np.floor(exact).astype(np.int64)
    remainders = exact - quotas
    order = rng.permutation(len(missing))
    order = order[np.argsort(-np.round(remainders[order], 9), kind="stable")]
    quotas[order[: count - quotas.sum()]] += 1
    return quotas
