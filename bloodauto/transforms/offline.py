"""Images made once, before training: augmented versions of a share of the images, and images that fill up small classes."""

from __future__ import annotations

import numpy as np

from bloodauto.transforms.mixing import Mixing, mix_targets
from bloodauto.transforms.policies import BatchPolicy

#: So many are drawn and joined at a time; what is drawn for them takes far less memory than they do.
_CHUNK_IMAGES = 256


def repeated_choice(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` of the rows, in a drawn order, none once more often than another."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate([rows[:0], *rounds])[:count]


def make_synthetic_images(
    images: np.ndarray,
    targets: np.ndarray,
    sources: np.ndarray,
    *,
    policy: BatchPolicy,
    mixing: Mixing | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Augmented versions of some images, then joined among themselves.

    Args:
        images: uint8 (n, height, width, 3).
        targets: (n, classes), each row a distribution.
        sources: int (k,), of which image each is made.

    Returns:
        Images, uint8 (k, height, width, 3), and targets, float32 (k, classes).
    """
    made = np.empty((len(sources), *images.shape[1:]), np.uint8)
    made_targets = targets[sources].astype(np.float32)
    for start in range(0, len(sources), _CHUNK_IMAGES):
        part = slice(start, start + _CHUNK_IMAGES)
        versions = policy.batch([images[row] for row in sources[part].tolist()], rng)
        if mixing is not None:
            versions, pairing = mixing.join(versions, rng)
            made_targets[part] = mix_targets(made_targets[part], np.ones(len(versions)), pairing)[0]
        made[part] = versions
    return made, made_targets


def class_balancing_images(
    images: np.ndarray, labels: np.ndarray, *, policy: BatchPolicy, mixing: Mixing | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Images that fill up each class to the size of the largest.

    Each is joined with another of its own class by ``mixing``, so that it keeps its label, and then augmented.

    Args:
        images: uint8 (n, height, width, 3).
        labels: int (n,).

    Returns:
        Images, uint8 (k, height, width, 3), and labels, int64 (k,), class by class.
    """
    members = [np.nonzero(labels == label)[0] for label in np.unique(labels)]
    missing = [max(map(len, members)) - len(rows) for rows in members]
    made = np.empty((sum(missing), *images.shape[1:]), np.uint8)
    place = 0
    for rows, count in zip(members, missing, strict=True):
        sources = repeated_choice(rows, count, rng)
        for start in range(0, count, _CHUNK_IMAGES):
            versions = images[sources[start : start + _CHUNK_IMAGES]]
            if mixing is not None:
                versions, _ = mixing.join(versions, rng)
            made[place : place + len(versions)] = policy.batch(list(versions), rng)
            place += len(versions)
    return made, np.repeat([int(labels[rows[0]]) for rows in members], missing).astype(np.int64)
