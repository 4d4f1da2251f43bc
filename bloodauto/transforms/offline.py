"""Images made once, before training: augmented versions of some images, and images that fill up small classes."""

from __future__ import annotations

import numpy as np

from bloodauto.transforms.mixing import BatchMixing, mix_targets
from bloodauto.transforms.policies import BatchPolicy
from bloodauto.types import Images, Labels, Rows, Targets

#: Images that are drawn and joined at a time; what is drawn for them takes far less memory than they do.
_CHUNK_IMAGES = 256


def repeated_choice(rows: Rows, count: int, rng: np.random.Generator) -> Rows:
    """``count`` of the rows, in random order, no row more than once more often than another."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate([rows[:0], *rounds])[:count]


def make_synthetic_images(
    images: Images,
    targets: Targets,
    sources: Rows,
    *,
    policy: BatchPolicy,
    mixing: BatchMixing | None,
    rng: np.random.Generator,
) -> tuple[Images, Targets]:
    """Augmented versions of some images, then joined among themselves.

    Args:
        images: uint8 (n, height, width, 3).
        targets: (n, classes), each row a distribution.
        sources: int (k,), the image that each version is made of.
        policy: How the versions are made.
        mixing: How they are joined; None: not at all.
        rng: The only source of randomness.

    Returns:
        Images, uint8 (k, height, width, 3), and targets, float32 (k, classes).
    """
    synthetic = np.empty((len(sources), *images.shape[1:]), np.uint8)
    synthetic_targets = targets[sources].astype(np.float32)
    for start in range(0, len(sources), _CHUNK_IMAGES):
        chunk = slice(start, start + _CHUNK_IMAGES)
        versions = policy.batch([images[row] for row in sources[chunk].tolist()], rng)
        if mixing is not None:
            versions, pairing = mixing.join(versions, rng)
            synthetic_targets[chunk] = mix_targets(synthetic_targets[chunk], np.ones(len(versions)), pairing)[0]
        synthetic[chunk] = versions
    return synthetic, synthetic_targets


def class_balancing_images(
    images: Images, labels: Labels, *, policy: BatchPolicy, mixing: BatchMixing | None, rng: np.random.Generator
) -> tuple[Images, Labels]:
    """Images that fill up each class to the size of the largest.

    Each is an image that is joined with another one of its class, so that it keeps its label, and then augmented.

    Args:
        images: uint8 (n, height, width, 3).
        labels: int (n,).
        policy: How images are augmented.
        mixing: How they are joined before; None: not at all.
        rng: The only source of randomness.

    Returns:
        Images, uint8 (k, height, width, 3), and labels, int64 (k,), class by class.
    """
    members = [np.nonzero(labels == label)[0] for label in np.unique(labels)]
    missing = [max(map(len, members)) - len(rows) for rows in members]
    synthetic = np.empty((sum(missing), *images.shape[1:]), np.uint8)
    filled = 0
    for rows, count in zip(members, missing, strict=True):
        sources = repeated_choice(rows, count, rng)
        for start in range(0, count, _CHUNK_IMAGES):
            versions = images[sources[start : start + _CHUNK_IMAGES]]
            if mixing is not None:
                versions, _ = mixing.join(versions, rng)
            synthetic[filled : filled + len(versions)] = policy.batch(list(versions), rng)
            filled += len(versions)
    return synthetic, np.repeat([int(labels[rows[0]]) for rows in members], missing).astype(np.int64)
