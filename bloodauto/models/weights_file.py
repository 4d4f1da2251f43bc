"""Checks a file of weights before anything relies on it: whole, HDF5, and without references to other files."""

from __future__ import annotations

from pathlib import Path

import h5py

from bloodauto.errors import WeightsError

_GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_REASON_CHARACTERS = 200


def check_weights_file(path: Path) -> Path:
    """Opens a file of weights and reads its table of contents, but no weights.

    Args:
        path: An HDF5 file, as Keras writes weights.

    Returns:
        The same path.

    Raises:
        WeightsError: The file is a Git LFS pointer, is cut short or something else, or refers to other files, which a file from
            elsewhere could use to read any file of this machine.
    """
    try:
        with path.open("rb") as stream:
            beginning = stream.read(len(_GIT_LFS_POINTER))
        if beginning == _GIT_LFS_POINTER:
            raise WeightsError(
                f"{path}: expected a file of weights (HDF5), got a Git LFS pointer to it. Fetch the file itself: git lfs pull."
            )
        with h5py.File(path, "r") as file:
            reference = outside_reference(file)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path}: expected a whole file of weights (HDF5), could not open it "
            f"({str(error)[:_MAX_REASON_CHARACTERS]}). Download it again."
        ) from error
    if reference is not None:
        raise WeightsError(
            f"{path}: expected a file of weights that holds them all, got one that refers to another file at {reference}. "
            "Take a file from its publisher."
        )
    return path


def outside_reference(group: h5py.Group) -> str | None:
    """The name of the first link or data set in an HDF5 group whose content may lie in another file.

    Args:
        group: Searched with all groups in it.

    Returns:
        None: there is none.
    """
    for name in group:
        where = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return where
        value = group[name]
        if isinstance(value, h5py.Dataset) and (value.external or value.is_virtual):
            return where
        # Hard links can form circles; Keras' weights nest a few levels deep.
        if isinstance(value, h5py.Group) and where.count("/") < 64:
            reference = outside_reference(value)
            if reference is not None:
                return reference
    return None
