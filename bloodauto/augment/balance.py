"""In which order an epoch visits the images, and how often the images of rare classes."""

from __future__ import annotations

import numpy as np


def class_quotas(counts: np.ndarray, balance: float) -> np.ndarray:
    """How many images of each class an epoch visits.

    Args:
        counts: int (classes,), images of each class.
        balance: 0 keeps the counts, 1 makes all classes that occur equal, between them count ** (1 - balance) decides.

    Returns:
        int64 (classes,), with the same sum as ``counts``.
    """
    present = counts > 0
    shares = np.where(present, np.maximum(counts, 1).astype(np.float64) ** (1.0 - balance), 0.0)
    exact = shares / shares.sum() * counts.sum()
    quotas = np.floor(exact).astype(np.int64)
    # Largest remainders; rounding noise must not move a quota when nothing is to be changed.
    missing = int(counts.sum() - quotas.sum())
    quotas[np.argsort(-np.round(exact - quotas, 9), kind="stable")[:missing]] += 1
    return quotas


def epoch_order(labels: np.ndarray, balance: float, rng: np.random.Generator) -> np.ndarray:
    """The images an epoch visits, shuffled.

    With ``balance`` 0 every image once. Otherwise an epoch is as long, but each class has the quota of
    :func:`class_quotas`; within a class no image is visited once more often than another.

    Args:
        labels: int (n,).
        balance: in [0, 1].

    Returns:
        int64 (n,), indices.
    """
    if balance == 0 or len(labels) == 0:
        return rng.permutation(len(labels))
    visits = []
    for label, quota in enumerate(class_quotas(np.bincount(labels), balance).tolist()):
        members = np.nonzero(labels == label)[0]
        if len(members):
            rounds, rest = divmod(quota, len(members))
            visits += [np.tile(members, rounds), rng.permutation(members)[:rest]]
    return rng.permutation(np.concatenate(visits))
