"""Classes of unequal size: how often each image is used, and synthetic images that fill small classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.config.recipe import ClassSynthesis, Imbalance
from bloodauto.training.augmentation import synthesised_images
from bloodauto.types import Images, Labels, Mask, Rows, Targets

#: The papers' choices: neighbours to blend with, and neighbours that tell whether an image is near the border of classes.
_BLEND_NEIGHBOURS = 5
_BORDER_NEIGHBOURS = 10
#: Neighbours are searched on images of this side: they still show the cell, and distances cost a thirtieth.
_REDUCED_SIDE_PX = 16
#: Images whose distances to all others are in memory at a time.
_DISTANCE_ROWS = 512


@dataclass(frozen=True)
class TrainingSet:
    """The images that a training uses.

    Attributes:
        images: uint8, shape (n, height, width, 3): the original images, then synthetic ones.
        targets: float32, shape (n, classes); each row is a distribution.
        rows: int64, shape (m,): the images that are used; one that occurs twice is used twice as often.
    """

    images: Images
    targets: Targets
    rows: Rows

    @property
    def class_counts(self) -> NDArray[np.float64]:
        """Used images of each class, shape (classes,); mixed images count in proportion."""
        counts: NDArray[np.float64] = self.targets[self.rows].sum(axis=0, dtype=np.float64)
        return counts


def training_set(images: Images, labels: Labels, num_classes: int, imbalance: Imbalance, *, seed: int) -> TrainingSet:
    """The images of a training, sampled as the recipe says; the same for the same seed.

    Args:
        images: uint8, shape (n, height, width, 3).
        labels: Shape (n,).
        num_classes: Number of classes.
        imbalance: The recipe's sampling.
        seed: Of the training.
    """
    # A key of its own, so that no other draw of the training depends on this one.
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
        synthetic, synthetic_labels = synthesised_images(images, labels, settings, rng)
    else:
        synthetic, synthetic_labels = smote_images(images, labels, rng, borderline=sampling == "borderline_smote")
    all_labels = np.concatenate([labels, synthetic_labels])
    return TrainingSet(
        np.concatenate([images, synthetic]), one_hot(all_labels, num_classes), np.arange(len(all_labels))
    )


def one_hot(labels: Labels, num_classes: int) -> Targets:
    """One-hot targets, float32, shape (n, classes)."""
    targets: Targets = np.eye(num_classes, dtype=np.float32)[labels]
    return targets


def oversampled_rows(labels: Labels, rng: np.random.Generator) -> Rows:
    """Rows in which each class occurs as often as the largest: every image equally often, some drawn ones once more."""
    members = _rows_by_class(labels)
    most = max(len(rows) for rows in members)
    filled = []
    for rows in members:
        rounds, rest = divmod(most, len(rows))
        filled += [np.tile(rows, rounds), rng.choice(rows, rest, replace=False)]
    return np.sort(np.concatenate(filled))


def undersampled_rows(labels: Labels, rng: np.random.Generator) -> Rows:
    """Rows in which each class occurs as often as the smallest: images drawn without replacement."""
    members = _rows_by_class(labels)
    fewest = min(len(rows) for rows in members)
    return np.sort(np.concatenate([rng.choice(rows, fewest, replace=False) for rows in members]))


def _rows_by_class(labels: Labels) -> list[Rows]:
    return [np.nonzero(labels == label)[0] for label in np.unique(labels)]


def cyclic_epoch_order(rows: Rows, length: int, seed: int) -> Callable[[int], Rows]:
    """Uses ``rows`` round after round, each round in an order of its own; an epoch is the next ``length`` of them.

    Args:
        rows: The images of a round.
        length: Images in an epoch.
        seed: Of the orders.

    Returns:
        A function of an epoch's 1-based number that returns its rows, shape (length,).
    """

    def order(epoch: int) -> Rows:
        start = (epoch - 1) * length
        first, last = start // len(rows), (start + length - 1) // len(rows)
        # The second key keeps these draws apart from the pipeline's own, whose keys are the epoch and the batch.
        rounds = [
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, 0, 0))).permutation(rows)
            for number in range(first, last + 1)
        ]
        begin = start - first * len(rows)
        return np.concatenate(rounds)[begin : begin + length]

    return order


def smote_images(
    images: Images, labels: Labels, rng: np.random.Generator, *, borderline: bool
) -> tuple[Images, Labels]:
    """Synthetic images that fill each class to the size of the largest: blends of an image and a similar one of its class.

    SMOTE (Chawla et al., arXiv:1106.1813) in the space of pixels. With ``borderline`` only images near the border of classes
    are blended, as in Borderline-SMOTE1 (Han et al., doi:10.1007/11538059_91): those of whose ten nearest images at least half,
    but not all, are of other classes. Deviations: neighbours are searched on images reduced to 16 px; a class without an image
    at its border is blended as by SMOTE, and a class of a single image repeats it, so that all classes end equal.
    imbalanced-learn searches and blends in one space, which for full images takes their whole size for every distance.

    Memory: the synthetic images, and the distances of 512 images to all others.

    Args:
        images: uint8, shape (n, height, width, 3).
        labels: Shape (n,).
        rng: Draws bases, partners and proportions.
        borderline: Whether only images near the border of classes are blended.

    Returns:
        Images, uint8 (k, height, width, 3), and labels, int64 (k,).
    """
    reduced = np.stack(
        [cv2.resize(image, (_REDUCED_SIDE_PX, _REDUCED_SIDE_PX), interpolation=cv2.INTER_AREA) for image in images]
    )
    points = reduced.reshape(len(images), -1).astype(np.float32)
    members = _rows_by_class(labels)
    most = max(len(rows) for rows in members)
    missing = [most - len(rows) for rows in members]
    synthetic = np.empty((sum(missing), *images.shape[1:]), dtype=np.uint8)
    synthetic_labels = np.repeat([labels[rows[0]] for rows in members], missing).astype(np.int64)
    position = 0
    for rows, count in zip(members, missing, strict=True):
        if count == 0:
            continue
        bases = np.arange(len(rows))
        if borderline:
            border = _near_border(points, labels, rows)
            bases = bases[border] if border.any() else bases
        similar = nearest_neighbours(points[rows[bases]], points[rows], _BLEND_NEIGHBOURS, self_index=bases)
        chosen = rng.integers(0, len(bases), count)
        partners = similar[chosen, rng.integers(0, similar.shape[1], count)] if similar.shape[1] else bases[chosen]
        for base, partner, fraction in zip(rows[bases[chosen]], rows[partners], rng.random(count), strict=True):
            cv2.addWeighted(images[base], 1 - fraction, images[partner], fraction, 0.0, dst=synthetic[position])
            position += 1
    return synthetic, synthetic_labels


def _near_border(points: NDArray[np.float32], labels: Labels, rows: Rows) -> Mask:
    near = nearest_neighbours(points[rows], points, _BORDER_NEIGHBOURS, self_index=rows)
    others = (labels[near] != labels[rows][:, None]).sum(axis=1)
    is_near: Mask = (others * 2 >= near.shape[1]) & (others < near.shape[1])
    return is_near


def nearest_neighbours(
    queries: NDArray[np.float32], points: NDArray[np.float32], count: int, *, self_index: Rows
) -> NDArray[np.int64]:
    """The nearest points of each query by Euclidean distance, itself excluded, nearest first.

    Args:
        queries: Shape (q, d).
        points: Shape (n, d).
        count: Neighbours of each query.
        self_index: Which point each query is, shape (q,).

    Returns:
        Rows of ``points``, shape (q, k); k is ``count``, or n - 1 where that is less.
    """
    count = min(count, len(points) - 1)
    lengths = np.square(points).sum(axis=1)
    neighbours = np.empty((len(queries), count), dtype=np.int64)
    for start in range(0, len(queries), _DISTANCE_ROWS):
        part = slice(start, start + _DISTANCE_ROWS)
        # The query's own length is the same for all points and does not change their order.
        distances = lengths - 2 * queries[part] @ points.T
        distances[np.arange(len(distances)), self_index[part]] = np.inf
        nearest = np.argpartition(distances, count - 1, axis=1)[:, :count] if count else neighbours[part]
        order = np.argsort(np.take_along_axis(distances, nearest, axis=1), axis=1, kind="stable")
        neighbours[part] = np.take_along_axis(nearest, order, axis=1)
    return neighbours
