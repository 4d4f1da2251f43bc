"""The images on which variants are compared, and how a budget is divided among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.config.budget import parse_budget
from bloodauto.data.dataset import CellDataset
from bloodauto.errors import BudgetError, UserError
from bloodauto.workflows.datasets import SYNTHETIC, read_dataset

_MIN_IMAGES_PER_CLASS = 10


@dataclass(frozen=True)
class ComparisonSettings:
    """What every variant of a comparison shares.

    Attributes:
        data: A path, or ``synthetic``.
        image_size_px: Side in px to which images are resized; None keeps their size.
        images: Largest number of images, drawn with the classes' own proportions; None: all.
        cleaning: Whether images that the data check finds broken, duplicated or mislabelled are excluded.
        weights_dir: Folder of pre-trained weights that is searched first.
        budget: Limit on devices x seconds from the first measurement to the last prediction, such as ``30cpu-min``. Reading and
            cleaning the images is not limited. None: every variant trains all its epochs.
        seed: Seed of subset, splits, shifted images, trainings and intervals.

    Example:
        >>> settings = ComparisonSettings(data="cells.npz", images=2000, budget="30cpu-min")
        >>> settings.seed, settings.cleaning
        (0, True)
    """

    data: str = SYNTHETIC
    image_size_px: int | None = None
    images: int | None = None
    cleaning: bool = True
    weights_dir: str | None = None
    budget: str | None = None
    seed: int = 0


def budget_device_seconds(budget: str | None, *, devices: float, on_gpu: bool) -> float | None:
    """The device-seconds that a budget allows.

    Args:
        budget: Such as ``30cpu-min``; None: no budget.
        devices: Devices that the comparison reserves.
        on_gpu: Whether they are GPUs.

    Returns:
        Device-seconds; None without a budget.

    Raises:
        BudgetError: It cannot be read, or counts devices that trainings on this machine do not use.
    """
    if budget is None:
        return None
    parsed = parse_budget(budget)
    device = "gpu" if on_gpu else "cpu"
    if parsed.kind not in ("wall", device):
        raise BudgetError(
            f"--budget {budget}: expected {device} or wall-clock time, which is what trainings on this machine use."
        )
    return parsed.device_seconds(devices)


def load_comparison_dataset(settings: ComparisonSettings) -> CellDataset:
    """Reads the images of a comparison, or the requested number of them.

    Args:
        settings: Names data, size and number.

    Returns:
        The images; of each class a fraction as in the whole.

    Raises:
        DataError: They cannot be used.
        UserError: Fewer than ten images per class were requested.
    """
    dataset = read_dataset(settings.data, settings.image_size_px)
    if settings.images is None or settings.images >= len(dataset):
        return dataset
    if settings.images < _MIN_IMAGES_PER_CLASS * len(dataset.class_names):
        raise UserError(
            f"--images: expected at least {_MIN_IMAGES_PER_CLASS} for each of {len(dataset.class_names)} classes, "
            f"got {settings.images}."
        )
    order = np.random.default_rng(settings.seed).permutation(len(dataset))
    by_class = order[np.argsort(dataset.labels[order], kind="stable")]
    kept = by_class[np.linspace(0, len(dataset) - 1, settings.images).round().astype(int)]
    return dataset.subset(np.sort(kept))
