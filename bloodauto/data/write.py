"""Writes data sets where ``load_dataset`` and other programs can read them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bloodauto.data.dataset import CellDataset
from bloodauto.errors import DataError
from bloodauto.run.files import atomic_path, write_arrays


def write_dataset(dataset: CellDataset, path: Path) -> None:
    """Writes a data set as one file of arrays or as a folder of images.

    Args:
        dataset: what to write.
        path: with the suffix ``.npz`` one file of the arrays images (uint8), labels (int64), class_names, names,
            groups and sites (text), nothing pickled; otherwise a folder, which must not exist yet or be empty, with one
            folder of PNG files for each class that has images. Only the file keeps groups and sites.

    Raises:
        DataError: the folder holds something already, or two images would become the same file.
    """
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
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path}: expected no folder or an empty one to write images into. Choose another path.")
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
