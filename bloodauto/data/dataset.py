"""Labelled images as one value, and the checks that every source of images passes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bloodauto.errors import DataError
from bloodauto.types import Images, Labels, Mask, Rows, Strings, check_images

#: The eight classes of the competition and of BloodMNIST, in the order of their labels.
COMPETITION_CLASSES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "ig",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)


@dataclass(frozen=True)
class FileProblem:
    """A file that could not become an image, or became one only after a repair.

    Attributes:
        name: path of the file within the data set.
        finding: short machine-readable word, for example ``truncated``.
        action: ``excluded`` or ``converted``.
        detail: one sentence for a reader.
    """

    name: str
    finding: str
    action: str
    detail: str


@dataclass(frozen=True)
class CellDataset:
    """Labelled images and what is known of each.

    Attributes:
        images: uint8, (n, height, width, 3), RGB, 0-255.
        labels: int64, (n,), indices into ``class_names``.
        class_names: one name per class, in the order of the labels.
        names: str, (n,), unique; the file's relative path or ``split/index`` of an array.
        groups: str, (n,), patient or slide; empty where unknown. A split never separates a group.
        sites: str, (n,), acquisition site (laboratory); empty where unknown.
        predefined_splits: str, (n,), ``train``, ``validation``, ``test``, or empty where the data do not say.
        source: what the images were read from, for messages and reports.
        problems: files that were excluded or repaired while loading.
        notes: sentences about what was chosen for the whole set, for people.

    Raises:
        DataError: ``images`` is no such array, or a label is no index into ``class_names``.

    Example:
        >>> dataset = CellDataset(
        ...     images=np.zeros((4, 8, 8, 3), np.uint8),
        ...     labels=np.array([0, 1, 0, 1]),
        ...     class_names=("lymphocyte", "monocyte"),
        ...     names=np.array(["a", "b", "c", "d"]),
        ...     groups=empty_column(4),
        ...     sites=np.array(["berlin", "berlin", "lyon", "lyon"]),
        ...     predefined_splits=empty_column(4),
        ...     source="example",
        ... )
        >>> len(dataset), dataset.class_counts(np.arange(3)).tolist()
        (4, [2, 1])
    """

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    names: Strings
    groups: Strings
    sites: Strings
    predefined_splits: Strings
    source: str
    problems: tuple[FileProblem, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_images(self.images, self.source)
        n = len(self.images)
        for name in ("labels", "names", "groups", "sites", "predefined_splits"):
            assert getattr(self, name).shape == (n,), f"{name}: expected ({n},), got {getattr(self, name).shape}"
        if n and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            raise DataError(
                f"{self.source}: expected labels in 0..{len(self.class_names) - 1} ({len(self.class_names)} classes), "
                f"got {self.labels.min()}..{self.labels.max()}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def class_counts(self, index: Rows | Mask) -> Labels:
        """Counts the images of each class.

        Args:
            index: which images, as integers or as a boolean mask.

        Returns:
            int64, (classes,).
        """
        return np.bincount(self.labels[index], minlength=len(self.class_names))

    def subset(self, index: Rows | Mask) -> CellDataset:
        """The images at ``index`` (integers or a boolean mask), in that order."""
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            names=self.names[index],
            groups=self.groups[index],
            sites=self.sites[index],
            predefined_splits=self.predefined_splits[index],
        )

    def digest(self) -> str:
        """SHA-256 over images, labels, class names and all columns: changes when anything that training sees changes."""
        hasher = hashlib.sha256()
        hasher.update(repr((self.images.shape, self.class_names)).encode())
        hasher.update(np.ascontiguousarray(self.images).data)
        hasher.update(np.ascontiguousarray(self.labels, dtype=np.int64).data)
        for column in (self.names, self.groups, self.sites, self.predefined_splits):
            hasher.update("\0".join(column.tolist()).encode())
        return hasher.hexdigest()


def empty_column(count: int) -> Strings:
    """A column that is unknown for every image: str (count,), all empty."""
    return np.full(count, "", np.str_)


def check_trainable(dataset: CellDataset) -> CellDataset:
    """Checks what a search needs of any data set.

    Returns:
        The same data set.

    Raises:
        DataError: fewer than two classes, a class with fewer than two images, or a name that occurs twice.
    """
    source = dataset.source
    if len(dataset.class_names) < 2:
        raise DataError(
            f"{source}: expected at least two classes, got only {list(dataset.class_names)}. "
            f"There is nothing to tell apart."
        )
    counts = dataset.class_counts(np.arange(len(dataset))).tolist()
    sparse = [f"{name} ({count})" for name, count in zip(dataset.class_names, counts, strict=True) if count < 2]
    if sparse:
        excluded = sum(problem.action == "excluded" for problem in dataset.problems)
        because = f" {excluded} files could not be used." if excluded else ""
        raise DataError(
            f"{source}: expected at least two images of each class, one to train on and one to evaluate on; too few of "
            f"{', '.join(sparse)}.{because} Add images or leave the class out."
        )
    return check_unique_names(dataset)


def check_unique_names(dataset: CellDataset) -> CellDataset:
    """Checks that every image has a name of its own.

    Returns:
        The same data set.

    Raises:
        DataError: a name that occurs twice.
    """
    repeated = [name for name, count in Counter(dataset.names.tolist()).items() if count > 1]
    if repeated:
        raise DataError(
            f"{dataset.source}: expected a different name for each image, these occur twice: {repeated[:5]}."
        )
    return dataset


def concatenate(parts: Sequence[CellDataset]) -> CellDataset:
    """Joins several data sets, for instance those of several sites.

    Raises:
        DataError: nothing to join, or the parts differ in class names or image size, or share a name.
    """
    if not parts:
        raise DataError("concatenate: expected at least one data set, got none.")
    first = parts[0]
    for part in parts[1:]:
        if part.class_names != first.class_names or part.images.shape[1:] != first.images.shape[1:]:
            raise DataError(
                f"concatenate: {part.source} has classes {part.class_names} and images {part.images.shape[1:]}, "
                f"expected {first.class_names} and {first.images.shape[1:]} as in {first.source}."
            )
    names = np.concatenate([part.names for part in parts])
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        raise DataError(
            f"concatenate: expected unique names, {unique[counts > 1][0]!r} occurs more than once. "
            "Give synthetic data sets of one site different seeds or first_index."
        )
    return replace(
        first,
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        names=names,
        groups=np.concatenate([part.groups for part in parts]),
        sites=np.concatenate([part.sites for part in parts]),
        predefined_splits=np.concatenate([part.predefined_splits for part in parts]),
        source=" + ".join(part.source for part in parts),
        problems=tuple(problem for part in parts for problem in part.problems),
        notes=tuple(note for part in parts for note in part.notes),
    )
