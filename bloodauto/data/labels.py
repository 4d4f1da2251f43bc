"""Labels and class names: from numbers or words to int64 labels with one name per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodauto.errors import DataError
from bloodauto.types import Labels

#: Far more classes than any blood smear has; a larger label is something else, such as a patient's number.
_MAX_LABEL = 9999


def _columns_hint(array: NDArray[Any]) -> str:
    if array.dtype.kind in "biuf" and array.size and (array.sum(axis=1) == 1).all():
        return " One column per class? Save labels.argmax(axis=1)."
    return " Several labels for an image are not supported: save one class for each."


def integer_labels(array: NDArray[Any], count: int, where: str) -> Labels:
    """Converts labels of any numeric dtype.

    Args:
        array: (n,) or (n, 1), whole numbers of any numeric dtype, or booleans.
        count: n, the number of images.
        where: file and array, for messages.

    Returns:
        int64, (n,).

    Raises:
        DataError: another shape or length, labels that are not whole numbers, or negative ones.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = _columns_hint(array) if array.ndim == 2 else ""
        raise DataError(f"{where}: expected labels of shape (n,) or (n, 1), got {array.shape}.{hint}")
    if len(array) != count:
        raise DataError(f"{where}: expected one label for each of the {count} images, got {len(array)} labels.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected whole numbers, got {array.dtype}.")
    if array.dtype.kind == "f":
        fractions = np.flatnonzero(~(np.isfinite(array) & (np.rint(array) == array)))
        if len(fractions):
            raise DataError(f"{where}: expected whole numbers, got {array[fractions[0]]} at index {fractions[0]}.")
    largest = array.max(initial=0)
    if largest > _MAX_LABEL:
        raise DataError(
            f"{where}: expected labels from 0 to {_MAX_LABEL}, got {largest} at index {int(array.argmax())}. "
            "Number the classes from 0."
        )
    negative = np.flatnonzero(array < 0)
    if len(negative):
        raise DataError(
            f"{where}: expected labels from 0 upwards, got {array[negative[0]]} at index {negative[0]}. "
            f"Leave out images without a label."
        )
    return array.astype(np.int64)


def class_names_for(labels: Labels, known_names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Class names for whole-number labels.

    Args:
        labels: int64, (n,), n at least 1.
        known_names: names that the data bring; None where they bring none.
        where: file and array, for messages.

    Returns:
        The known names; without them ``class_0``, ``class_1``, ...

    Raises:
        DataError: a label without a name, a repeated or empty name, or labels that skip a number.
    """
    if known_names is not None:
        names = tuple(known_names)
        if len(set(names)) != len(names) or not all(name.strip() for name in names):
            raise DataError(f"{where}: expected class names that differ and are not empty, got {list(names)}.")
        if labels.max() >= len(names):
            row = int(labels.argmax())
            raise DataError(
                f"{where}: expected labels in 0..{len(names) - 1} for {len(names)} class names, got {labels[row]} "
                f"at index {row}."
            )
        return names
    present = np.unique(labels)
    count = int(present[-1]) + 1
    if len(present) != count:
        first_gap = next(label for label in range(count) if label != present[label])
        hint = " Do they count from 1? Subtract 1." if first_gap == 0 else " Renumber them, or give class_names."
        raise DataError(f"{where}: expected labels 0..{count - 1} without gaps, no image has label {first_gap}.{hint}")
    return tuple(f"class_{label}" for label in range(count))


def labels_from_names(
    class_of_image: Sequence[str], known_names: Sequence[str] | None, where: str
) -> tuple[Labels, tuple[str, ...]]:
    """Labels written as words.

    Args:
        class_of_image: n class names, one for each image.
        known_names: the classes in the order of their labels; None: those that occur, sorted.
        where: file and array, for messages.

    Returns:
        int64 (n,), and the class names.

    Raises:
        DataError: a word that is none of the known names, or class names that are empty or repeated.
    """
    names = tuple(known_names) if known_names is not None else tuple(sorted(set(class_of_image)))
    label_of = {name: label for label, name in enumerate(names)}
    if not all(name.strip() for name in names) or len(label_of) < len(names):
        raise DataError(f"{where}: expected class names that differ and are not empty, got {list(names)}.")
    unknown = sorted(set(class_of_image) - label_of.keys())
    if unknown:
        raise DataError(f"{where}: expected one of {list(names)}, got {unknown[:5]}.")
    return np.array([label_of[name] for name in class_of_image], np.int64), names
