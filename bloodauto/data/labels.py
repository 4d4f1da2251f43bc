"""Labels and class names, and the last checks that all sources share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bloodauto.data.dataset import COMPETITION_CLASSES, CellDataset, FileProblem
from bloodauto.errors import DataError


def integer_labels(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """Labels (n,) or (n, 1) of any numeric dtype -> int64 (n,).

    Raises:
        DataError: another shape or length, labels that are not whole numbers, or negative ones.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = " One column per class? Save labels.argmax(axis=1)." if array.ndim == 2 else ""
        raise DataError(f"{where}: expected labels of shape (n,) or (n, 1), got {array.shape}.{hint}")
    if len(array) != count:
        raise DataError(f"{where}: expected one label for each of the {count} images, got {len(array)} labels.")
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: expected whole numbers, got {array.dtype}.")
    fractions = array.dtype.kind == "f" and ~(np.isfinite(array) & (np.rint(array) == array))
    if np.any(fractions):
        place = int(np.flatnonzero(fractions)[0])
        raise DataError(f"{where}: expected whole numbers, got {array[place]} at index {place}.")
    labels = array.astype(np.int64)
    if len(labels) and labels.min() < 0:
        place = int(np.flatnonzero(labels < 0)[0])
        raise DataError(
            f"{where}: expected labels from 0 upwards, got {labels[place]} at index {place}. "
            f"Leave out images without a label."
        )
    return labels


def class_names_for(labels: np.ndarray, known_names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Class names for whole-number labels: the given ones, the competition's for eight classes, or ``class_0``, ...

    Raises:
        DataError: a label without a name, a repeated or empty name, or labels that leave numbers out.
    """
    if known_names is not None:
        names = tuple(known_names)
        if len(set(names)) != len(names) or not all(name.strip() for name in names):
            raise DataError(f"{where}: expected class names that differ and are not empty, got {list(names)}.")
        if labels.max() >= len(names):
            place = int(labels.argmax())
            raise DataError(
                f"{where}: expected labels in 0..{len(names) - 1} for {len(names)} class names, got {labels[place]} "
                f"at index {place}."
            )
        return names
    present = np.unique(labels)
    number = int(present[-1]) + 1
    if len(present) != number:
        first_gap = next(label for label in range(number) if label != present[label])
        hint = " Do they count from 1? Subtract 1." if first_gap == 0 else " Renumber them, or give class_names."
        raise DataError(f"{where}: expected labels 0..{number - 1} without gaps, no image has label {first_gap}.{hint}")
    if number == len(COMPETITION_CLASSES):
        return COMPETITION_CLASSES
    return tuple(f"class_{label}" for label in range(number))


def labels_from_names(
    words: Sequence[str], known_names: Sequence[str] | None, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels written as words -> int64 (n,) and class names: the given ones, or those found, sorted."""
    names = tuple(known_names) if known_names is not None else tuple(sorted(set(words)))
    place = {name: label for label, name in enumerate(names)}
    unknown = sorted(set(words) - place.keys())
    if unknown:
        raise DataError(f"{where}: expected one of {list(names)}, got {unknown[:5]}.")
    return np.array([place[word] for word in words], np.int64), names


def make_dataset(
    *,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    names: np.ndarray,
    source: str,
    groups: np.ndarray | None = None,
    sites: np.ndarray | None = None,
    predefined_splits: np.ndarray | None = None,
    problems: Sequence[FileProblem] = (),
) -> CellDataset:
    """Checks what a search needs of any data set, then makes the value.

    Raises:
        DataError: fewer than two classes, a class with fewer than two images, or a name that stands twice.
    """
    if len(class_names) < 2:
        raise DataError(
            f"{source}: expected at least two classes, got only {list(class_names)}. There is nothing to tell apart."
        )
    counts = np.bincount(labels, minlength=len(class_names))
    sparse = [f"{name} ({count})" for name, count in zip(class_names, counts.tolist(), strict=True) if count < 2]
    if sparse:
        excluded = sum(problem.action == "excluded" for problem in problems)
        because = f" {excluded} files could not be used." if excluded else ""
        raise DataError(
            f"{source}: expected at least two images of each class, one to learn from and one to judge by; too few of "
            f"{', '.join(sparse)}.{because} Add images or leave the class out."
        )
    repeated = [name for name, count in Counter(names.tolist()).items() if count > 1]
    if repeated:
        raise DataError(f"{source}: expected a different name for each image, these stand twice: {repeated[:5]}.")
    unknown = np.full(len(images), "", np.str_)
    return CellDataset(
        images=images,
        labels=labels,
        class_names=tuple(class_names),
        names=names.astype(np.str_),
        groups=unknown if groups is None else groups,
        sites=unknown if sites is None else sites,
        predefined_splits=unknown if predefined_splits is None else predefined_splits,
        source=source,
        problems=tuple(problems),
    )
