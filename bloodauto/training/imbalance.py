"""Classes of unequal size: which images a training sees how often, and images made to fill up small classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from bloodauto.config.recipe import ClassSynthesis, Imbalance
from bloodauto.training.augmentation import synthesised_images

#: The papers' choices: neighbours to blend with, and neighbours by which the border between classes is found.
_BLEND_NEIGHBOURS = 5
_BORDER_NEIGHBOURS = 10
#: Similarity is judged on images of this side: what they show of the cell is kept, and distances cost a thirtieth.
_REDUCED_SIDE_PX = 16
#: Distances of so many images to all others are held at a time.
_DISTANCE_ROWS = 512


@dataclass(frozen=True)
class TrainingSet:
    """What a training learns from.

    Attributes:
        images: uint8 (n, h, w, 3), the given ones first, made ones after them.
        targets: float32 (n, c), each row a distribution.
        rows: int64 (m,), the images to visit; one that occurs twice is visited twice as often.
    """

    images: np.ndarray
    targets: np.ndarray
    rows: np.ndarray

    @property
    def class_counts(self) -> np.ndarray:
        """Images of each class among the visited ones, float64 (c,); mixed images count by their shares."""
        return self.targets[self.rows].sum(axis=0, dtype=np.float64)


def training_set(
    images: np.ndarray, labels: np.ndarray, num_classes: int, imbalance: Imbalance, *, seed: int
) -> TrainingSet:
    """The images of a training, sampled as the recipe says; the same for the same seed.

    Args:
        images: uint8 (n, h, w, 3); labels: int (n,).
    """
    # A key of its own, so that no other draw of the training follows this one.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 0, 0, 1)))
    sampling = imbalance.sampling
    if sampling == "oversample":
        return TrainingSet(images, one_hot(labels, num_classes), oversampled_rows(labels, rng))
    if sampling == "undersample":
        return TrainingSet(images, one_hot(labels, num_classes), undersampled_rows(labels, rng))
    if sampling == "none":
        return TrainingSet(images, one_hot(labels, num_classes), np.arange(len(labels)))
    if sampling == "synthesise":
        settings = imbalance.synthesise if imbalance.synthesise is not None else ClassSynthesis()
        made, made_labels = synthesised_images(images, labels, settings, rng)
    else:
        made, made_labels = smote_images(images, labels, rng, borderline=sampling == "borderline_smote")
    all_labels = np.concatenate([labels, made_labels])
    return TrainingSet(np.concatenate([images, made]), one_hot(all_labels, num_classes), np.arange(len(all_labels)))


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Float32 (n, c)."""
    return np.eye(num_classes, dtype=np.float32)[labels]


def oversampled_rows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each class as often as the largest occurs: every image, then some of each class once more often, drawn."""
    members = _rows_by_class(labels)
    most = max(len(rows) for rows in members)
    filled = []
    for rows in members:
        rounds, rest = divmod(most, len(rows))
        filled += [np.tile(rows, rounds), rng.choice(rows, rest, replace=False)]
    return np.sort(np.concatenate(filled))


def undersampled_rows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of each class as many images, drawn, as the smallest that occurs has."""
    members = _rows_by_class(labels)
    fewest = min(len(rows) for rows in members)
    return np.sort(np.concatenate([rng.choice(rows, fewest, replace=False) for rows in members]))


def _rows_by_class(labels: np.ndarray) -> list[np.ndarray]:
    return [np.nonzero(labels == label)[0] for label in np.unique(labels)]


def cyclic_epoch_order(rows: np.ndarray, length: int, seed: int) -> Callable[[int], np.ndarray]:
    """Visits ``rows`` round after round, each round in an order of its own; an epoch is the next ``length`` of them.

    Returns:
        The rows of an epoch, int64 (length,), by its number, the first being 1.
    """

    def order(epoch: int) -> np.ndarray:
        start = (epoch - 1) * length
        first, last = start // len(rows), (start + length - 1) // len(rows)
        # The second key keeps these draws apart from the pipeline's own, which have the epoch and the batch as theirs.
        rounds = [
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, 0, 0))).permutation(rows)
            for number in range(first, last + 1)
        ]
        begin = start - first * len(rows)
        return np.concatenate(rounds)[begin : begin + length]

    return order


def smote_images(
    images: np.ndarray, labels: np.ndarray, rng: np.random.Generator, *, borderline: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Images that fill up each class to the size of the largest: points between an image and a similar one of its class.

    SMOTE (Chawla et al., arXiv:1106.1813) in the space of pixels; with ``borderline`` only images near the border between
    classes are blended, Borderline-SMOTE1 (Han et al., doi:10.1007/11538059_91): those of whose ten nearest images at least
    half, but not all, are of other classes. We look for neighbours on images reduced to 16 px. A class without an image at its
    border is blended as by SMOTE, and one of a single image repeats it, so that classes end equal in any case. Memory: the
    made images, and the distances of 512 images to all.

    Args:
        images: uint8 (n, h, w, 3).
        labels: int (n,).

    Returns:
        Images, uint8 (k, h, w, 3), and labels, int64 (k,).
    """
    reduced = np.stack(
        [cv2.resize(image, (_REDUCED_SIDE_PX, _REDUCED_SIDE_PX), interpolation=cv2.INTER_AREA) for image in images]
    )
    points = reduced.reshape(len(images), -1).astype(np.float32)
    members = _rows_by_class(labels)
    most = max(len(rows) for rows in members)
    missing = [most - len(rows) for rows in members]
    made = np.empty((sum(missing), *images.shape[1:]), dtype=np.uint8)
    made_labels = np.repeat([labels[rows[0]] for rows in members], missing).astype(np.int64)
    place = 0
    for rows, count in zip(members, missing, strict=True):
        if count == 0:
            continue
        bases = np.arange(len(rows))
        if borderline:
            border = _near_border(points, labels, rows)
            bases = bases[border] if border.any() else bases
        similar = nearest_neighbours(points[rows[bases]], points[rows], _BLEND_NEIGHBOURS, own=bases)
        chosen = rng.integers(0, len(bases), count)
        partners = similar[chosen, rng.integers(0, similar.shape[1], count)] if similar.shape[1] else bases[chosen]
        for base, partner, share in zip(rows[bases[chosen]], rows[partners], rng.random(count), strict=True):
            cv2.addWeighted(images[base], 1 - share, images[partner], share, 0.0, dst=made[place])
            place += 1
    return made, made_labels


def _near_border(points: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    near = nearest_neighbours(points[rows], points, _BORDER_NEIGHBOURS, own=rows)
    others = (labels[near] != labels[rows][:, None]).sum(axis=1)
    return (others * 2 >= near.shape[1]) & (others < near.shape[1])


def nearest_neighbours(queries: np.ndarray, points: np.ndarray, count: int, *, own: np.ndarray) -> np.ndarray:
    """For each query its nearest points by Euclidean distance, itself left out, nearest first.

    Args:
        queries: float32 (q, d); points: float32 (n, d).
        own: int (q,), which point each query is.

    Returns:
        int64 (q, k), rows of ``points``; k is ``count``, or n - 1 where that is less.
    """
    count = min(count, len(points) - 1)
    lengths = np.square(points).sum(axis=1)
    found = np.empty((len(queries), count), dtype=np.int64)
    for start in range(0, len(queries), _DISTANCE_ROWS):
        part = slice(start, start + _DISTANCE_ROWS)
        # The query's own length is the same for all points and decides nothing.
        distances = lengths - 2 * queries[part] @ points.T
        distances[np.arange(len(distances)), own[part]] = np.inf
        nearest = np.argpartition(distances, count - 1, axis=1)[:, :count] if count else found[part]
        order = np.argsort(np.take_along_axis(distances, nearest, axis=1), axis=1, kind="stable")
        found[part] = np.take_along_axis(nearest, order, axis=1)
    return found
