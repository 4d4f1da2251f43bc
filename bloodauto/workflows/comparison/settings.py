"""On which images variants are compared, and how a budget is shared among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.config.budget import parse_budget
from bloodauto.data.dataset import CellDataset
from bloodauto.errors import BudgetError, UserError


@dataclass(frozen=True)
class ExperimentSettings:
    """On what variants are compared.

    Attributes:
        data: a path, or ``synthetic``.
        images: at most so many, drawn evenly over the classes' own shares; None: all.
        budget: as typed; it limits devices x seconds from the first measurement to the last prediction, not reading and
            cleaning the images. None: every variant trains all its epochs.
        seed: of subset, splits, views, trainings and intervals.
    """

    data: str
    image_size_px: int | None = None
    images: int | None = None
    cleaning: bool = True
    weights_dir: str | None = None
    budget: str | None = None
    seed: int = 0


def budget_device_seconds(budget: str | None, *, devices: float, on_gpu: bool) -> float | None:
    """What a budget allows; None without one.

    Raises:
        BudgetError: it cannot be read, or counts devices that trainings on this machine do not use.
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


def load_experiment_dataset(settings: ExperimentSettings) -> CellDataset:
    """The images, or the part of them that was asked for.

    Raises:
        DataError: they cannot be used.
        UserError: fewer were asked for than there are classes.
    """
    from bloodauto.workflows.prepare import read_dataset

    dataset = read_dataset(settings.data, settings.image_size_px)
    if settings.images is None or settings.images >= len(dataset):
        return dataset
    if settings.images < 10 * len(dataset.class_names):
        raise UserError(
            f"--images: expected at least 10 for each of {len(dataset.class_names)} classes, got {settings.images}."
        )
    order = np.random.default_rng(settings.seed).permutation(len(dataset))
    by_class = order[np.argsort(dataset.labels[order], kind="stable")]
    kept = by_class[np.linspace(0, len(dataset) - 1, settings.images).round().astype(int)]
    return dataset.subset(np.sort(kept))


@dataclass(frozen=True)
class TimeAllocation:
    """Wall seconds of an experiment with a budget.

    Attributes:
        training_seconds: each variant's training.
        judging_seconds: judging one network on all validation images and views.
        measurement_seconds: spent on finding this out.
        overhead_seconds: building and judging, per variant.
    """

    training_seconds: float
    evaluation_seconds: float
    measurement_seconds: float
    overhead_seconds: list[float]
