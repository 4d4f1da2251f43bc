"""What is wrong with the images, and what is done about it. Nothing is deleted: images are kept or left out."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bloodauto.data.dataset import CellDataset, FileProblem
from bloodauto.data.near_duplicates import near_duplicate_clusters
from bloodauto.run.files import atomic_path

#: One picture this often over at least two labels was planted; fewer copies are a labelling mistake.
MIN_PLANTED_COPIES = 10
#: A cluster of near-duplicates this large over at least this many labels was planted as well.
_MIN_PLANTED_LABELS = 3
#: Standard deviation, in grey levels of 255, below which a picture shows nothing.
_MIN_CONTRAST = 2.0
# A picture that stands in two given parts stays in the one that is judged by.
_SPLIT_PRIORITY = {"test": 2, "validation": 1, "train": 0, "": 0}


@dataclass(frozen=True)
class FindingCount:
    """How many images (or files) have one finding and what was done with them."""

    finding: str
    action: str
    count: int


@dataclass(frozen=True)
class CleaningSummary:
    """Counts for printing: images that were loaded, kept and left out, and each finding with its count."""

    images: int
    kept: int
    excluded: int
    findings: tuple[FindingCount, ...]


@dataclass(frozen=True)
class Cleaning:
    """One finding for each image.

    Attributes:
        keep: bool, (n,): false for what must not be trained on or judged by.
        clusters: int64, (n,): images with the same number are the same photograph and belong on one side of a split.
        findings: str, (n,): ``none``, ``exact_duplicate``, ``contradicting_labels``, ``planted_outlier``,
            ``duplicate_across_splits``, ``near_duplicate``, ``blank``, a conversion while loading such as ``grey``, or
            ``not_cleaned``.
        actions: str, (n,): ``keep``, ``excluded`` or ``converted``.
        reasons: str, (n,): one sentence; empty where nothing was found.
        is_enabled: false if the user asked for no cleaning.
    """

    keep: np.ndarray
    clusters: np.ndarray
    findings: np.ndarray
    actions: np.ndarray
    reasons: np.ndarray
    is_enabled: bool

    def summary(self, dataset: CellDataset) -> CleaningSummary:
        """Counts of each finding, the files that could not be loaded among them; commonest first."""
        counts = Counter(zip(self.findings.tolist(), self.actions.tolist(), strict=True))
        counts.update((problem.finding, problem.action) for problem in _unreadable_files(dataset))
        kept = int(self.keep.sum())
        return CleaningSummary(
            images=len(dataset),
            kept=kept,
            excluded=len(dataset) - kept,
            findings=tuple(FindingCount(*key, count) for key, count in counts.most_common() if key[0] != "none"),
        )


def clean(dataset: CellDataset, *, enabled: bool = True) -> Cleaning:
    """Finds images that would mislead training or flatter its result.

    Left out: exact copies but one; all copies that carry contradicting labels, since none can be trusted; one picture
    planted many times over several labels; the training copy of a picture that is also in a given test or validation
    part (exact or near). Kept, but tied to one side of any split: near-duplicates. Kept and noted: pictures without
    contrast.

    Args:
        cells: the images as loaded.
        enabled: false keeps every image as it is and ties none together.
    """
    count = len(dataset)
    if not enabled:
        return Cleaning(
            keep=np.ones(count, bool),
            clusters=np.arange(count),
            findings=np.full(count, "not_cleaned"),
            actions=np.full(count, "keep"),
            reasons=np.full(count, "cleaning was switched off"),
            is_enabled=False,
        )
    notes = _FindingLog(dataset)
    clusters = np.arange(count)
    for copies in _exact_copies(dataset.images):
        clusters[copies] = copies[0]
        _record_exact_copies(dataset, copies, notes)
    unique = np.flatnonzero(clusters == np.arange(count))
    unique_clusters = unique[near_duplicate_clusters(dataset.images[unique])]
    clusters = unique_clusters[np.searchsorted(unique, clusters)]
    for members in _equal_value_groups(clusters):
        _record_near_duplicates(dataset, members, notes)
    for index in np.flatnonzero(_contrasts(dataset.images) < _MIN_CONTRAST).tolist():
        notes.add(index, "blank", "keep", "the picture has no contrast: an empty field or a failed exposure")
    converted = {name: index for index, name in enumerate(dataset.names.tolist())}
    for problem in dataset.problems:
        if problem.name in converted:
            notes.add(converted[problem.name], problem.finding, problem.action, problem.detail)
    return notes.cleaning(clusters)


class _FindingLog:
    """Collects findings; the first one for an image counts, later ones only add their reason."""

    def __init__(self, dataset: CellDataset) -> None:
        self._findings = ["none"] * len(dataset)
        self._actions = ["keep"] * len(dataset)
        self._reasons = [""] * len(dataset)

    def add(self, index: int, finding: str, action: str, reason: str) -> None:
        if self._findings[index] == "none":
            self._findings[index], self._actions[index], self._reasons[index] = finding, action, reason
        else:
            self._reasons[index] += f"; {finding}: {reason}"

    def replace(self, index: int, finding: str, action: str, reason: str) -> None:
        self._findings[index], self._actions[index], self._reasons[index] = finding, action, reason

    def is_excluded(self, index: int) -> bool:
        return self._actions[index] == "excluded"

    def cleaning(self, clusters: np.ndarray) -> Cleaning:
        actions = np.array(self._actions)
        return Cleaning(
            keep=actions != "excluded",
            clusters=clusters,
            findings=np.array(self._findings),
            actions=actions,
            reasons=np.array(self._reasons),
            is_enabled=True,
        )


def _equal_value_groups(numbers: np.ndarray) -> list[np.ndarray]:
    """Indices of equal numbers, ascending, for every number that stands more than once."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order])) + 1
    return [group for group in np.split(order, starts) if len(group) > 1]


def _exact_copies(images: np.ndarray) -> list[np.ndarray]:
    """Indices of images with the same pixels, ascending, for every picture that stands more than once."""
    first: dict[bytes, int] = {}
    numbers = np.empty(len(images), np.int64)
    for index, image in enumerate(images):
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        numbers[index] = first.setdefault(digest, index)
    return _equal_value_groups(numbers)


def _contrasts(images: np.ndarray) -> np.ndarray:
    """Largest standard deviation over the three channels, float64 (n,)."""
    # numpy's std makes three float copies of each image: ten times as slow.
    return np.array([cv2.meanStdDev(image)[1].max() for image in images])


def _label_names(dataset: CellDataset, members: np.ndarray) -> list[str]:
    return [dataset.class_names[label] for label in np.unique(dataset.labels[members])]


def _record_exact_copies(dataset: CellDataset, copies: np.ndarray, notes: _FindingLog) -> None:
    names = _label_names(dataset, copies)
    if len(names) > 1:
        is_planted = len(copies) >= MIN_PLANTED_COPIES
        finding = "planted_outlier" if is_planted else "contradicting_labels"
        reason = f"{len(copies)} identical copies, first {dataset.names[copies[0]]}, labelled {', '.join(names)}"
        for index in copies.tolist():
            notes.add(index, finding, "excluded", reason)
        return
    splits = dataset.predefined_splits[copies].tolist()
    best = max(splits, key=lambda split: _SPLIT_PRIORITY[split])
    kept = copies[splits.index(best)]
    for index, split in zip(copies.tolist(), splits, strict=True):
        if index == kept:
            continue
        if _SPLIT_PRIORITY[split] < _SPLIT_PRIORITY[best]:
            notes.add(index, "duplicate_across_splits", "excluded", f"identical to {dataset.names[kept]} in {best}")
        else:
            notes.add(index, "exact_duplicate", "excluded", f"identical to {dataset.names[kept]}")


def _record_near_duplicates(dataset: CellDataset, members: np.ndarray, notes: _FindingLog) -> None:
    """Notes near-duplicates among what the exact comparison kept."""
    alive = np.array([index for index in members.tolist() if not notes.is_excluded(index)], np.int64)
    names = _label_names(dataset, members)
    if len(members) >= MIN_PLANTED_COPIES and len(names) >= _MIN_PLANTED_LABELS:
        reason = f"{len(members)} near-identical copies, first {dataset.names[members[0]]}, labelled {', '.join(names)}"
        for index in alive.tolist():
            notes.replace(index, "planted_outlier", "excluded", reason)
        return
    if len(alive) < 2:
        return
    ranks = np.array([_SPLIT_PRIORITY[split] for split in dataset.predefined_splits[alive].tolist()])
    best = alive[ranks.argmax()]
    labels = f", labelled {', '.join(_label_names(dataset, alive))}" if len(_label_names(dataset, alive)) > 1 else ""
    for index, rank in zip(alive.tolist(), ranks.tolist(), strict=True):
        other = best if index != best else alive[alive != best][0]
        if rank < ranks.max():
            reason = f"the same photograph as {dataset.names[best]} in {dataset.predefined_splits[best]}{labels}"
            notes.add(index, "duplicate_across_splits", "excluded", reason)
        else:
            reason = f"the same photograph as {dataset.names[other]}{labels}; kept on one side of every split"
            notes.add(index, "near_duplicate", "keep", reason)


def _unreadable_files(dataset: CellDataset) -> list[FileProblem]:
    names = set(dataset.names.tolist())
    return [problem for problem in dataset.problems if problem.name not in names]


def write_cleaning_csv(path: Path, dataset: CellDataset, cleaning: Cleaning) -> None:
    """Writes one row for each image, then one for each file that could not be loaded.

    Columns: name, label (the class's name), finding, action, cluster, reason. Files have no label and no cluster.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "label", "finding", "action", "cluster", "reason"])
        writer.writerows(
            zip(
                dataset.names.tolist(),
                [dataset.class_names[label] for label in dataset.labels.tolist()],
                cleaning.findings.tolist(),
                cleaning.actions.tolist(),
                cleaning.clusters.tolist(),
                cleaning.reasons.tolist(),
                strict=True,
            )
        )
        writer.writerows(
            [lost.name, "", lost.finding, lost.action, "", lost.detail] for lost in _unreadable_files(dataset)
        )
