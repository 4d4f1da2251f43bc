"""Finds images that would mislead training: copies, contradicting labels, planted outliers. Nothing is deleted."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bloodauto.data.dataset import CellDataset, FileProblem
from bloodauto.data.near_duplicates import near_duplicate_clusters
from bloodauto.run.artifacts import CleaningReport, CleaningRow
from bloodauto.types import Images, Mask, Rows, Scores, Strings

#: So many identical images over at least two labels were planted; fewer copies are a labelling mistake.
MIN_PLANTED_COPIES = 10
#: A cluster of near-duplicates this large over at least this many labels was planted as well.
_MIN_PLANTED_LABELS = 3
#: Standard deviation, in grey levels of 255, below which an image shows nothing.
_MIN_CONTRAST = 2.0
#: An image that stands in two predefined splits stays in the one that is evaluated on.
_SPLIT_PRIORITY = {"test": 2, "validation": 1, "train": 0, "": 0}


@dataclass(frozen=True)
class FindingCount:
    """How many images or files have a finding.

    Attributes:
        finding: as in ``Cleaning`` or ``FileProblem``.
        action: ``keep``, ``excluded`` or ``converted``.
        count: how many.
    """

    finding: str
    action: str
    count: int


@dataclass(frozen=True)
class CleaningSummary:
    """Counts for printing.

    Attributes:
        images: loaded.
        kept: of these, kept.
        excluded: of these, excluded.
        findings: every finding but ``none``, the most common first; files that could not be loaded included.
    """

    images: int
    kept: int
    excluded: int
    findings: tuple[FindingCount, ...]


@dataclass(frozen=True)
class Cleaning:
    """One finding for each image.

    Attributes:
        keep: bool, (n,): False for what must be neither trained nor evaluated on.
        clusters: int64, (n,): images with the same number are the same photograph, which a split must not separate.
        findings: str, (n,): ``none``, ``exact_duplicate``, ``contradicting_labels``, ``planted_outlier``,
            ``duplicate_across_splits``, ``near_duplicate``, ``blank``, a conversion while loading such as ``grey``, or
            ``not_cleaned``.
        actions: str, (n,): ``keep``, ``excluded`` or ``converted``.
        reasons: str, (n,): one sentence; empty without a finding.
        is_enabled: False if the user asked for no cleaning.
    """

    keep: Mask
    clusters: Rows
    findings: Strings
    actions: Strings
    reasons: Strings
    is_enabled: bool

    def summary(self, dataset: CellDataset) -> CleaningSummary:
        """Counts the findings of the data set that was cleaned."""
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
    """Finds images that would mislead training or inflate its scores.

    Excluded: exact copies but one; all copies that carry contradicting labels, since none can be trusted; an image
    planted many times over several labels; the training copy of an image that is also in a predefined test or
    validation split (exact or near). Kept, but never separated by a split: near-duplicates. Kept and noted: images
    without contrast.

    Args:
        dataset: the images as loaded.
        enabled: False keeps every image as it is, each in a cluster of its own.

    Example:
        >>> from bloodauto.data.synthetic.generator import PlantedFaults, synthesize
        >>> dataset = synthesize(40, image_size_px=32, faults=PlantedFaults(duplicate_fraction=0.1))
        >>> clean(dataset).summary(dataset).excluded
        4
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
    log = _FindingLog(dataset)
    clusters = np.arange(count)
    for copies in _exact_copies(dataset.images):
        clusters[copies] = copies[0]
        _record_exact_copies(dataset, copies, log)
    unique = np.flatnonzero(clusters == np.arange(count))
    unique_clusters = unique[near_duplicate_clusters(dataset.images[unique])]
    clusters = unique_clusters[np.searchsorted(unique, clusters)]
    for members in _equal_value_groups(clusters):
        _record_near_duplicates(dataset, members, log)
    for index in np.flatnonzero(_contrasts(dataset.images) < _MIN_CONTRAST).tolist():
        log.add(index, "blank", "keep", "the image has no contrast: an empty field or a failed exposure")
    index_of = {name: index for index, name in enumerate(dataset.names.tolist())}
    for problem in dataset.problems:
        if problem.name in index_of:
            log.add(index_of[problem.name], problem.finding, problem.action, problem.detail)
    return log.cleaning(clusters)


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

    def cleaning(self, clusters: Rows) -> Cleaning:
        actions = np.array(self._actions)
        return Cleaning(
            keep=actions != "excluded",
            clusters=clusters,
            findings=np.array(self._findings),
            actions=actions,
            reasons=np.array(self._reasons),
            is_enabled=True,
        )


def _equal_value_groups(numbers: Rows) -> list[Rows]:
    """Indices of equal numbers, ascending, for every number that occurs more than once."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order])) + 1
    return [group for group in np.split(order, starts) if len(group) > 1]


def _exact_copies(images: Images) -> list[Rows]:
    """Indices of images with the same pixels, ascending, for every image that occurs more than once."""
    first: dict[bytes, int] = {}
    numbers = np.empty(len(images), np.int64)
    for index, image in enumerate(images):
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        numbers[index] = first.setdefault(digest, index)
    return _equal_value_groups(numbers)


def _contrasts(images: Images) -> Scores:
    """Largest standard deviation over the three channels, float64 (n,)."""
    # numpy's std makes three float copies of each image: ten times as slow.
    return np.array([cv2.meanStdDev(image)[1].max() for image in images])


def _label_names(dataset: CellDataset, members: Rows) -> list[str]:
    return [dataset.class_names[label] for label in np.unique(dataset.labels[members])]


def _record_exact_copies(dataset: CellDataset, copies: Rows, log: _FindingLog) -> None:
    names = _label_names(dataset, copies)
    if len(names) > 1:
        is_planted = len(copies) >= MIN_PLANTED_COPIES
        finding = "planted_outlier" if is_planted else "contradicting_labels"
        reason = f"{len(copies)} identical copies, first {dataset.names[copies[0]]}, labelled {', '.join(names)}"
        for index in copies.tolist():
            log.add(index, finding, "excluded", reason)
        return
    splits = dataset.predefined_splits[copies].tolist()
    best = max(splits, key=lambda split: _SPLIT_PRIORITY[split])
    kept = copies[splits.index(best)]
    for index, split in zip(copies.tolist(), splits, strict=True):
        if index == kept:
            continue
        if _SPLIT_PRIORITY[split] < _SPLIT_PRIORITY[best]:
            log.add(index, "duplicate_across_splits", "excluded", f"identical to {dataset.names[kept]} in {best}")
        else:
            log.add(index, "exact_duplicate", "excluded", f"identical to {dataset.names[kept]}")


def _record_near_duplicates(dataset: CellDataset, members: Rows, log: _FindingLog) -> None:
    """Records near-duplicates among what the exact comparison kept."""
    kept = np.array([index for index in members.tolist() if not log.is_excluded(index)], np.int64)
    names = _label_names(dataset, members)
    if len(members) >= MIN_PLANTED_COPIES and len(names) >= _MIN_PLANTED_LABELS:
        reason = f"{len(members)} near-identical copies, first {dataset.names[members[0]]}, labelled {', '.join(names)}"
        for index in kept.tolist():
            log.replace(index, "planted_outlier", "excluded", reason)
        return
    if len(kept) < 2:
        return
    ranks = np.array([_SPLIT_PRIORITY[split] for split in dataset.predefined_splits[kept].tolist()])
    best = kept[ranks.argmax()]
    labels = f", labelled {', '.join(_label_names(dataset, kept))}" if len(_label_names(dataset, kept)) > 1 else ""
    for index, rank in zip(kept.tolist(), ranks.tolist(), strict=True):
        other = best if index != best else kept[kept != best][0]
        if rank < ranks.max():
            reason = f"the same photograph as {dataset.names[best]} in {dataset.predefined_splits[best]}{labels}"
            log.add(index, "duplicate_across_splits", "excluded", reason)
        else:
            reason = f"the same photograph as {dataset.names[other]}{labels}; no split separates them"
            log.add(index, "near_duplicate", "keep", reason)


def _unreadable_files(dataset: CellDataset) -> list[FileProblem]:
    """Problems of files that became no image."""
    names = set(dataset.names.tolist())
    return [problem for problem in dataset.problems if problem.name not in names]


def write_cleaning_csv(path: Path, dataset: CellDataset, cleaning: Cleaning) -> None:
    """Writes one row for each image, then one for each file that could not be loaded.

    Columns: name, label (the class's name), finding, action, cluster, reason. Files have no label and no cluster.

    Args:
        path: the file, written atomically.
        dataset: the images that were cleaned.
        cleaning: the findings.
    """
    images = zip(
        dataset.names.tolist(),
        [dataset.class_names[label] for label in dataset.labels.tolist()],
        cleaning.findings.tolist(),
        cleaning.actions.tolist(),
        cleaning.clusters.tolist(),
        cleaning.reasons.tolist(),
        strict=True,
    )
    columns = ("name", "label", "finding", "action", "cluster", "reason")
    rows = [CleaningRow(**dict(zip(columns, image, strict=True))) for image in images]
    rows += [
        CleaningRow(
            name=problem.name,
            label="",
            finding=problem.finding,
            action=problem.action,
            cluster=None,
            reason=problem.detail,
        )
        for problem in _unreadable_files(dataset)
    ]
    CleaningReport(rows=tuple(rows)).write(path)
