"""Reads, cleans and splits the images of a workflow, and writes what a run keeps of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodauto.config.settings import SearchSettings
from bloodauto.data.clean import Cleaning, clean, write_cleaning_csv
from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_dataset, load_images
from bloodauto.data.pictures import data_pictures
from bloodauto.data.split import Splits, default_splits, read_splits, write_splits
from bloodauto.data.synthetic.generator import PlantedFaults, synthesize
from bloodauto.errors import DataError, RunError
from bloodauto.run.artifacts import Fingerprint
from bloodauto.run.directory import RunDirectory
from bloodauto.types import Images

#: The value of ``data`` that stands for drawn cells.
SYNTHETIC = "synthetic"
_SYNTHETIC_IMAGES = 2400
_SYNTHETIC_SIZE_PX = 96
_SYNTHETIC_FAULTS = PlantedFaults(duplicate_fraction=0.02)
_MAX_FOLDS = 5
_MIN_IMAGE_PX = 16
#: So many unlabelled images give class fractions to within three points. Every trial predicts all of them once.
_MAX_TARGET_IMAGES = 256


def read_dataset(data: str, image_size_px: int | None) -> CellDataset:
    """Reads labelled images from a path, or draws synthetic cells.

    Args:
        data: A path that ``load_dataset`` reads, or ``synthetic``.
        image_size_px: Side in px to which images are resized; None keeps their size (synthetic cells: 96 px).

    Returns:
        The images with labels, names and sites.

    Raises:
        DataError: The images cannot be read, or the size is too small to tell cells apart.
    """
    if image_size_px is not None and image_size_px < _MIN_IMAGE_PX:
        raise DataError(f"--image-size-px: expected at least {_MIN_IMAGE_PX} px, got {image_size_px}.")
    if data == SYNTHETIC:
        size_px = _SYNTHETIC_SIZE_PX if image_size_px is None else image_size_px
        return synthesize(_SYNTHETIC_IMAGES, site="lab_a", seed=0, image_size_px=size_px, faults=_SYNTHETIC_FAULTS)
    return load_dataset(Path(data), image_size_px=image_size_px)


def read_target_images(path: str | None, dataset: CellDataset, *, seed: int) -> Images:
    """Reads unlabelled images of the target site in the size of the dataset's images, in random order.

    Args:
        path: Folder, image or array file; None reads nothing.
        dataset: The labelled images.
        seed: Seed of the order.

    Returns:
        uint8 (k, height, width, 3), RGB, 0-255; k is at most 256, and 0 without a path.

    Raises:
        DataError: No usable images are there, or the labelled images are not square.
    """
    height, width = dataset.images.shape[1:3]
    if path is None:
        return np.empty((0, height, width, 3), np.uint8)
    if height != width:
        raise DataError(f"--target-images: expected square cells to go with them, got {height} x {width} px.")
    images, _ = load_images(Path(path), height)
    return images[np.random.default_rng(seed).permutation(len(images))[:_MAX_TARGET_IMAGES]]


@dataclass(frozen=True)
class RunData:
    """The images of a run with their cleaning and their splits.

    Attributes:
        dataset: The labelled images.
        cleaning: What cleaning found in them.
        splits: Folds and the held-out test set.
        target: Unlabelled images of the target site, uint8 (k, height, width, 3); k may be 0.
    """

    dataset: CellDataset
    cleaning: Cleaning
    splits: Splits
    target: Images


def load_run_data(run: RunDirectory, settings: SearchSettings) -> RunData:
    """Reads, cleans and splits the images of a search; writes nothing.

    A run that has splits keeps them.

    Args:
        run: The run; it may not exist yet.
        settings: Its settings.

    Returns:
        The images, their cleaning and their splits.

    Raises:
        DataError: The images cannot be used.
        RunError: The run was started with other images.
    """
    dataset = read_dataset(settings.data, settings.image_size_px)
    digest = dataset.digest()
    fingerprint = run.fingerprint.read_if_exists()
    if fingerprint is not None and fingerprint.digest != digest:
        raise RunError(
            f"{settings.data}: expected the images the run was started with, but they have changed. "
            "Restore them, or start a new run."
        )
    target = read_target_images(settings.target_images, dataset, seed=settings.seed)
    cleaning = clean(dataset, enabled=settings.cleaning)
    if run.splits.exists:
        return RunData(dataset, cleaning, read_splits(run.splits.path, dataset), target)
    smallest_class = int(np.bincount(dataset.labels[cleaning.keep], minlength=len(dataset.class_names)).min())
    num_folds = max(2, min(_MAX_FOLDS, smallest_class - 1))
    splits = default_splits(dataset, cleaning, seed=settings.seed, num_folds=num_folds)
    return RunData(dataset, cleaning, splits, target)


def save_run_data(run: RunDirectory, data: RunData) -> None:
    """Writes fingerprint, cleaning, pictures and splits of a run that has none yet.

    Args:
        run: The run.
        data: Its images.
    """
    if run.splits.exists:
        return
    dataset = data.dataset
    # In the order of the class indices: readers of the run name the columns of its predictions by it.
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    run.fingerprint.write(
        Fingerprint(
            source=dataset.source,
            images=len(dataset),
            height_px=dataset.images.shape[1],
            width_px=dataset.images.shape[2],
            classes=dict(zip(dataset.class_names, counts.tolist(), strict=True)),
            sites=dict(Counter(site for site in dataset.sites.tolist() if site)),
            excluded=int((~data.cleaning.keep).sum()),
            digest=dataset.digest(),
        )
    )
    write_cleaning_csv(run.cleaning.path, dataset, data.cleaning)
    run.data_pictures.write(data_pictures(dataset, data.cleaning))
    write_splits(run.splits.path, dataset, data.splits)
