"""Splits a data set into folds and a held-out test part: stratified, never separating what belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from bloodauto.data.clean import Cleaning
from bloodauto.data.dataset import CellDataset
from bloodauto.data.stratified_groups import stratified_group_split
from bloodauto.errors import DataError, RunError
from bloodauto.run.artifacts import SplitPart, SplitsFile
from bloodauto.types import Rows

#: Values of ``Splits.fold`` that are no fold.
EXCLUDED = -1
HELD_OUT_TEST = -2
_FORMAT_VERSION = 1
#: A group that stands in several predefined splits stays in the one with the highest rank.
_SPLIT_RANKS = {"test": 2, "validation": 1, "train": 0, "": 0}


@dataclass(frozen=True)
class Splits:
    """The part of every image.

    Attributes:
        fold: int8, (n,): 0..num_folds-1, ``EXCLUDED`` or ``HELD_OUT_TEST``. Fold 0 is the search's validation part.
        seed: what the parts were drawn with.
        num_folds: how many folds there are.
        fold_names: one for each fold: ``fold_0``, ... or the sites.
        notes: sentences on what was not possible, for example a class that no test image shows.
    """

    fold: NDArray[np.int8]
    seed: int
    num_folds: int
    fold_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def folds_are_sites(self) -> bool:
        """Whether each fold is a site, so that a network validated on one was not trained on images from there."""
        return self.fold_names != _default_fold_names(self.num_folds)

    def train_index(self, fold: int = 0) -> Rows:
        """Ascending indices of all folds but ``fold``; int64."""
        self._check(fold)
        return np.flatnonzero((self.fold >= 0) & (self.fold != fold))

    def validation_index(self, fold: int = 0) -> Rows:
        """Ascending indices of ``fold``; int64."""
        self._check(fold)
        return np.flatnonzero(self.fold == fold)

    def test_index(self) -> Rows:
        """Ascending indices of the held-out test part, which is evaluated on once, after the search; int64."""
        return np.flatnonzero(self.fold == HELD_OUT_TEST)

    def _check(self, fold: int) -> None:
        assert 0 <= fold < self.num_folds, f"expected a fold in 0..{self.num_folds - 1}, got {fold}"


def make_splits(
    dataset: CellDataset, cleaning: Cleaning, *, seed: int, test_fraction: float = 0.15, num_folds: int = 5
) -> Splits:
    """Splits the kept images into a held-out test part and folds of equal size.

    Images of one near-duplicate cluster, or of one patient or slide (``groups``, within a site), end in one part, also
    where the two chain. Classes are spread over the parts in proportion, as far as groups allow.

    Predefined splits are respected: test becomes the held-out test part, validation fold 0, train the other folds. A
    part that the data do not define is drawn from their train images. Where a group stands in several predefined
    splits, only its images in the split with the highest rank (test before validation before train) stay.

    Args:
        dataset: the images as loaded.
        cleaning: what cleaning found in them.
        seed: of the draw; the same seed gives the same splits.
        test_fraction: of the kept images, 0 to 0.8, unless the data define a test split.
        num_folds: 2 to 100.

    Raises:
        DataError: fractions that leave nothing to train on, or groups so large that fold 0 would be empty or the train
            part would lack a class.

    Example:
        >>> from bloodauto.data.clean import clean
        >>> from bloodauto.data.synthetic.generator import synthesize
        >>> dataset = synthesize(100, image_size_px=16)
        >>> splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
        >>> len(splits.train_index()), len(splits.validation_index()), len(splits.test_index())
        (68, 18, 14)
    """
    _check_shape(test_fraction, num_folds)
    kept = np.flatnonzero(cleaning.keep)
    group_ids = _group_ids(dataset, cleaning, kept)
    fold = np.full(len(dataset), EXCLUDED, np.int8)
    notes: list[str] = []

    ranks = np.array([_SPLIT_RANKS[split] for split in dataset.predefined_splits[kept].tolist()], np.int64)
    group_ranks = np.zeros(group_ids.max() + 1, np.int64)
    np.maximum.at(group_ranks, group_ids, ranks)
    stays = ranks == group_ranks[group_ids]
    fold[kept[stays & (ranks == _SPLIT_RANKS["test"])]] = HELD_OUT_TEST
    fold[kept[stays & (ranks == _SPLIT_RANKS["validation"])]] = 0
    if not stays.all():
        notes.append(
            f"{int((~stays).sum())} images were excluded because other images of their group are in a predefined test "
            f"or validation split"
        )

    has_test = bool((ranks == _SPLIT_RANKS["test"]).any())
    has_validation = bool((ranks == _SPLIT_RANKS["validation"]).any())
    if has_test and not has_validation:
        notes.append("the data define no validation split: fold 0 is drawn from their train images")
    if has_validation and not has_test and test_fraction > 0:
        notes.append("the data define no test split: the held-out test part is drawn from their train images")
    # The order in which a class with few groups is served: first train, then validation, then test.
    parts = [1] + ([] if has_validation else [0]) + ([] if has_test or test_fraction == 0 else [HELD_OUT_TEST])
    parts += list(range(2, num_folds))
    fractions = [test_fraction if part == HELD_OUT_TEST else (1 - test_fraction) / num_folds for part in parts]
    free = stays & (ranks == 0)
    if free.any():
        assigned = stratified_group_split(
            dataset.labels[kept[free]],
            group_ids[free],
            fractions,
            len(dataset.class_names),
            np.random.default_rng(seed),
        )
        fold[kept[free]] = np.array(parts, np.int8)[assigned]
    splits = Splits(fold, seed, num_folds, _default_fold_names(num_folds))
    return _checked(dataset, splits, notes, wants_test=test_fraction > 0)


def site_folds(dataset: CellDataset, cleaning: Cleaning, *, seed: int, test_fraction: float = 0.15) -> Splits:
    """Makes every site a fold, so that each validation part comes from a site that was not trained on.

    The held-out test part is drawn from each site in proportion, or is the predefined test split. Fold 0 is the site with
    most classes among those without which every class can still be trained on, the smallest of equals. A group or
    cluster that stands in several sites is kept in the site with most of its images.

    Args:
        dataset: the images as loaded, each with its site.
        cleaning: what cleaning found in them.
        seed: of the draw of the test part.
        test_fraction: of the images of each site, 0 to 0.8.

    Raises:
        DataError: fewer than two sites, images without one, or no site that could be held out.
    """
    _check_shape(test_fraction, 2)
    kept = np.flatnonzero(cleaning.keep)
    names = _site_names(dataset, kept)
    site_number = np.searchsorted(np.array(names), dataset.sites[kept])
    group_ids = _group_ids(dataset, cleaning, kept)
    images_at_site = np.zeros((group_ids.max() + 1, len(names)), np.int64)
    np.add.at(images_at_site, (group_ids, site_number), 1)
    stays = images_at_site.argmax(axis=1)[group_ids] == site_number
    notes: list[str] = []
    if not stays.all():
        notes.append(
            f"{int((~stays).sum())} images were excluded because their photograph or group is at another site as well"
        )
    class_counts = np.zeros((len(names), len(dataset.class_names)), np.int64)
    np.add.at(class_counts, (site_number[stays], dataset.labels[kept[stays]]), 1)
    first = _validation_site(dataset, names, class_counts)
    order = [first, *(site for site in range(len(names)) if site != first)]

    fold = np.full(len(dataset), EXCLUDED, np.int8)
    is_test = dataset.predefined_splits[kept] == "test"
    rng = np.random.default_rng(seed)
    for position, site in enumerate(order):
        inside = np.flatnonzero(stays & (site_number == site))
        if is_test.any():
            has_test_group = np.isin(group_ids[inside], group_ids[inside][is_test[inside]])
            fold[kept[inside]] = np.where(has_test_group, np.where(is_test[inside], HELD_OUT_TEST, EXCLUDED), position)
        elif test_fraction > 0:
            assigned = stratified_group_split(
                dataset.labels[kept[inside]],
                group_ids[inside],
                [1 - test_fraction, test_fraction],
                len(dataset.class_names),
                rng,
            )
            fold[kept[inside]] = np.where(assigned == 1, HELD_OUT_TEST, position)
        else:
            fold[kept[inside]] = position
    splits = Splits(fold, seed, len(names), tuple(names[site] for site in order))
    return _checked(dataset, splits, notes, wants_test=test_fraction > 0)


def _site_names(dataset: CellDataset, kept: Rows) -> list[str]:
    """The sites of the kept images, sorted; refuses images without a site."""
    sites = dataset.sites[kept]
    names = sorted(set(sites.tolist()))
    if "" in names:
        raise DataError(
            f"{dataset.source}: expected the site of every image, {int((sites == '').sum())} of {len(sites)} have none. "
            f"Fill in the column site (or the array sites), or split without sites."
        )
    if not 2 <= len(names) <= 100:
        raise DataError(f"{dataset.source}: expected 2 to 100 sites, got {len(names)}: {names[:5]}.")
    return names


def _validation_site(dataset: CellDataset, names: Sequence[str], class_counts: Rows) -> int:
    """The site that becomes fold 0; ``class_counts``: int64 (sites, classes)."""
    can_be_validated = ((class_counts.sum(axis=0) - class_counts) > 0).all(axis=1)
    if not can_be_validated.any():
        raise DataError(
            f"{dataset.source}: expected a site without which every class can still be trained on; each of {list(names)} "
            f"holds the only images of some class. Split without sites."
        )
    return min(
        np.flatnonzero(can_be_validated).tolist(),
        key=lambda site: (-(class_counts[site] > 0).sum(), class_counts[site].sum(), site),
    )


def default_splits(dataset: CellDataset, cleaning: Cleaning, *, seed: int, num_folds: int = 5) -> Splits:
    """Makes folds of sites where the data name them, else folds of equal size.

    By site when every kept image names one, there are at least two, one of them can be held out, and the data define no
    validation split. Where sites are named but not used, a note says why.

    Args:
        dataset: the images as loaded.
        cleaning: what cleaning found in them.
        seed: of the draw.
        num_folds: where folds are no sites.

    Raises:
        DataError: as ``make_splits``.
    """
    sites = set(dataset.sites[cleaning.keep].tolist())
    has_several = len(sites - {""}) >= 2
    reason = ""
    if has_several and "" in sites:
        reason = "some images name no site"
    elif has_several and (dataset.predefined_splits[cleaning.keep] == "validation").any():
        reason = "the data define a validation split"
    elif has_several:
        try:
            return site_folds(dataset, cleaning, seed=seed)
        except DataError as error:
            reason = str(error)
    splits = make_splits(dataset, cleaning, seed=seed, num_folds=num_folds)
    notes = (*splits.notes, f"folds are not sites: {reason}") if reason else splits.notes
    return replace(splits, notes=notes)


def _default_fold_names(num_folds: int) -> tuple[str, ...]:
    return tuple(f"fold_{number}" for number in range(num_folds))


def _check_shape(test_fraction: float, num_folds: int) -> None:
    if not 0 <= test_fraction <= 0.8:
        raise DataError(f"test_fraction: expected 0 to 0.8 of the images, got {test_fraction}.")
    if not 2 <= num_folds <= 100:
        raise DataError(
            f"num_folds: expected 2 to 100, got {num_folds}. One fold is for validation, the others for training."
        )


def _group_ids(dataset: CellDataset, cleaning: Cleaning, kept: Rows) -> Rows:
    """int64 (kept,): images with the same number must stay together, by cluster or by (site, group); 0.. without gaps.

    Groups are counted within their site: patient 1 of two sites is two people.
    """
    if len(kept) == 0:
        raise DataError(
            f"{dataset.source}: expected images, cleaning excluded all {len(dataset)}. Look at cleaning.csv."
        )
    together = DisjointSet(range(len(kept)))
    first: dict[object, int] = {}
    rows = zip(
        cleaning.clusters[kept].tolist(), dataset.sites[kept].tolist(), dataset.groups[kept].tolist(), strict=True
    )
    for position, (cluster, site, group) in enumerate(rows):
        together.merge(position, first.setdefault(cluster, position))
        if group:
            together.merge(position, first.setdefault((site, group), position))
    group_ids = np.empty(len(kept), np.int64)
    for number, members in enumerate(together.subsets()):
        group_ids[list(members)] = number
    return group_ids


def _absent_classes(dataset: CellDataset, index: Rows) -> list[str]:
    """Classes without an image at ``index``."""
    counts = dataset.class_counts(index).tolist()
    return [name for name, count in zip(dataset.class_names, counts, strict=True) if not count]


def _checked(dataset: CellDataset, splits: Splits, notes: Sequence[str], *, wants_test: bool) -> Splits:
    """Refuses parts that nothing can be trained or validated on; notes parts that lack a class."""
    validation = splits.validation_index()
    absent = _absent_classes(dataset, splits.train_index())
    if absent:
        raise DataError(
            f"{dataset.source}: expected images of every class to train on, none of {', '.join(absent)} are in the train "
            f"part. They were excluded by cleaning, are all in a predefined validation or test split, or form one group."
        )
    if len(validation) == 0:
        raise DataError(
            f"{dataset.source}: expected images to validate on, fold 0 is empty: the images form too few groups to be "
            f"divided. Use finer groups (slides rather than sites) or none."
        )
    all_notes = list(notes)
    evaluated = [("validation", validation)] + ([("test", splits.test_index())] if wants_test else [])
    for part, index in evaluated:
        absent = _absent_classes(dataset, index)
        if absent:
            all_notes.append(f"the {part} part has no image of {', '.join(absent)}: it cannot evaluate them")
    for fold in range(1, splits.num_folds):
        absent = _absent_classes(dataset, splits.train_index(fold))
        if absent:
            all_notes.append(f"{splits.fold_names[fold]} holds all images of {', '.join(absent)}")
    return replace(splits, notes=tuple(all_notes))


def _splits_file(dataset: CellDataset, splits: Splits) -> SplitsFile:
    parts = {EXCLUDED: "excluded", HELD_OUT_TEST: "test", **dict(enumerate(splits.fold_names))}
    return SplitsFile(
        dataset_sha256=dataset.digest(),
        seed=splits.seed,
        num_folds=splits.num_folds,
        notes=splits.notes,
        parts=tuple(
            SplitPart(part=part, name=name, images=tuple(dataset.names[splits.fold == part].tolist()))
            for part, name in parts.items()
        ),
    )


def write_splits(path: Path, dataset: CellDataset, splits: Splits) -> None:
    """Writes ``splits.json`` once: the names in each part and a digest of the data set.

    Raises:
        RunError: the file exists and holds other splits. Results under both would not be comparable.
    """
    value = _splits_file(dataset, splits)
    if not path.exists():
        value.write(path)
    elif SplitsFile.read(path) != value:
        raise RunError(
            f"{path}: expected no splits or the same ones, found others. A run keeps its splits; start a new run."
        )


def read_splits(path: Path, dataset: CellDataset) -> Splits:
    """Reads ``splits.json`` for the data set it was written for.

    Raises:
        RunError: absent or damaged, or the data have changed since.
    """
    if not path.exists():
        raise RunError(f"{path}: expected the splits of this run, found none. Start a new run.")
    value = SplitsFile.read(path)
    if value.dataset_sha256 != dataset.digest():
        raise RunError(
            f"{path}: the data have changed since this run began: expected images with digest {value.dataset_sha256[:12]}, "
            f"{dataset.source} has {dataset.digest()[:12]}. Restore them or start a new run."
        )
    row_of = {name: index for index, name in enumerate(dataset.names.tolist())}
    fold = np.full(len(dataset), np.iinfo(np.int8).min, np.int8)
    try:
        for part in value.parts:
            fold[[row_of[name] for name in part.images]] = part.part
    except (KeyError, OverflowError) as error:
        raise RunError(f"{path}: parts: expected names of these images, got {error}. Restore the file.") from error
    fold_names = tuple(part.name for part in value.parts if part.part >= 0)
    if (fold < HELD_OUT_TEST).any() or len(fold_names) != value.num_folds:
        raise RunError(f"{path}: expected every image in one part and {value.num_folds} folds. Restore the file.")
    return Splits(fold, value.seed, value.num_folds, fold_names, value.notes)
