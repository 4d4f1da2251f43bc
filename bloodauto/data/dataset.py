"""The images of a person, as one value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from bloodauto.errors import DataError
from bloodauto.types import check_images

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
    """A file that could not become an image, or became one only after a repair."""

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
        groups: str, (n,), patient or slide; empty where unknown. No group ever stands on both sides of a split.
        labs: str, (n,), laboratory; empty where unknown.
        predefined_splits: str, (n,), ``train``, ``validation``, ``test``, or empty where the data do not say.
        source: what the cells were read from, for messages and reports.
        problems: files that were left out or repaired while loading.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: np.ndarray
    groups: np.ndarray
    sites: np.ndarray
    predefined_splits: np.ndarray
    source: str
    problems: tuple[FileProblem, ...] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.images)
        check_images(self.images, self.source)
        for name in ("labels", "names", "groups", "sites", "predefined_splits"):
            assert getattr(self, name).shape == (n,), f"{name}: expected ({n},), got {getattr(self, name).shape}"
        if n and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            raise DataError(
                f"{self.source}: expected labels in 0..{len(self.class_names) - 1} ({len(self.class_names)} classes), "
                f"got {self.labels.min()}..{self.labels.max()}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def class_counts(self, index: np.ndarray) -> np.ndarray:
        """How many of the cells at ``index`` (integers or a boolean mask) are of each class, int64 (classes,)."""
        return np.bincount(self.labels[index], minlength=len(self.class_names))

    def subset(self, index: np.ndarray) -> CellDataset:
        """The cells at ``index`` (integers or a boolean mask), in that order."""
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
        """SHA-256 over images, labels, names and class names: changes when anything that training sees changes."""
        hasher = hashlib.sha256()
        hasher.update(repr((self.images.shape, self.class_names)).encode())
        hasher.update(np.ascontiguousarray(self.images).data)
        hasher.update(np.ascontiguousarray(self.labels, dtype=np.int64).data)
        for column in (self.names, self.groups, self.sites, self.predefined_splits):
            hasher.update("\0".join(column.tolist()).encode())
        return hasher.hexdigest()
