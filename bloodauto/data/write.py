"""Writes data sets where ``load_dataset`` and other programs can read them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bloodauto.data.dataset import CellDataset
from bloodauto.errors import DataError
from bloodauto.run.files import atomic_path, check_output_file, check_output_folder, write_arrays

#: Suffixes of formats that data sets are not written in: a folder of such a name would be a mistake.
_OTHER_SUFFIXES = frozenset(
    {".csv", ".npy", ".npz", ".zip", ".h5", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".tar", ".gz"}
)


def check_dataset_path(path: Path) -> None:
    """Checks, before images are made, that a data set can be written there; leaves nothing behind.

    Args:
        path: as for ``write_dataset``.

    Raises:
        DataError: the folder holds something already, or the name has the suffix of another format.
        UserError: nothing can be written there.
    """
    if path.suffix == ".npz":
        check_output_file(path)
        return
    if path.suffix.lower() in _OTHER_SUFFIXES:
        raise DataError(f"{path}: expected a name that ends in .npz, or the name of a folder, got {path.suffix!r}.")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path}: expected no folder or an empty one to write images into. Choose another path.")
    check_output_folder(path)


def write_dataset(dataset: CellDataset, path: Path) -> None:
    """Writes a data set as one file of arrays or as a folder of images.

    Args:
        dataset: what to write.
        path: with the suffix ``.npz`` one file of the arrays images (uint8), labels (int64), class_names, names,
            groups and sites (text), nothing pickled; otherwise a folder, which must not exist yet or be empty, with one
            folder of PNG files for each class that has images. Only the file keeps groups and sites.

    Raises:
        DataError: the folder holds something already, two images would become the same file, or a class cannot name a folder.
        UserError: nothing can be written there.
    """
    check_dataset_path(path)
    if path.suffix == ".npz":
        write_arrays(
            path,
            images=dataset.images,
            labels=dataset.labels,
            class_names=np.array(dataset.class_names),
            names=dataset.names.astype(np.str_),
            groups=dataset.groups.astype(np.str_),
            sites=dataset.sites.astype(np.str_),
        )
        return
    for name in dataset.class_names:
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise DataError(
                f"{path}: expected class names that can name a folder, got {name!r}. Write an .npz file instead."
            )
    files = [
        path / dataset.class_names[label] / f"{str(name).replace('/', '_')}.png"
        for label, name in zip(dataset.labels, dataset.names, strict=True)
    ]
    if len(set(files)) < len(files):
        raise DataError(f"{path}: two images would become the same file. Write an .npz file instead.")
    for file, image in zip(files, dataset.images, strict=True):
        _, encoded = cv2.imencode(".png", image[..., ::-1])
        with atomic_path(file) as temporary:
            temporary.write_bytes(encoded.tobytes())
