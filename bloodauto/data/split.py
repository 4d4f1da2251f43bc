"""Which images are learnt from, chosen by, and judged by: stratified, never separating what belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bloodauto.data.clean import Cleaning
from bloodauto.data.dataset import CellDataset
from bloodauto.data.disjoint import DisjointSets
from bloodauto.data.stratified_groups import stratified_group_split
from bloodauto.errors import DataError, RunError
from bloodauto.run.files import read_json, write_json

#: Values of ``Splits.fold`` that are no fold.
EXCLUDED = -1
HELD_OUT_TEST = -2
_FORMAT_VERSION = 1
_SPLIT_PRIORITY = {"test": 2, "validation": 1, "train": 0, "": 0}


@dataclass(frozen=True)
class Splits:
    """The part of every image.

    Attributes:
        fold: int8, (n,): 0..num_folds-1, -1 left out, -2 held-out test. Fold 0 is the search's validation part.
        seed: what the parts were drawn with.
        num_folds: how many folds there are.
        fold_names: one for each fold: ``fold_0``, ... or the laboratories.
        notes: sentences on what could not be had, for example a class that no test image shows.
    """

    fold: np.ndarray
    seed: int
    num_folds: int
    fold_names: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def folds_are_sites(self) -> bool:
        """Whether each fold is a laboratory, so that who is validated on one has not seen images from there."""
        return self.fold_names != _default_fold_names(self.num_folds)

    def train_index(self, fold: int = 0) -> np.ndarray:
        """Ascending indices of all folds but ``fold``; int64."""
        self._check(fold)
        return np.flatnonzero((self.fold >= 0) & (self.fold != fold))

    def validation_index(self, fold: int = 0) -> np.ndarray:
        """Ascending indices of ``fold``; int64."""
        self._check(fold)
        return np.flatnonzero(self.fold == fold)

    def test_index(self) -> np.ndarray:
        """Ascending indices of the held-out test part, looked at once, after the search; int64."""
        return np.flatnonzero(self.fold == HELD_OUT_TEST)

    def _check(self, fold: int) -> None:
        assert 0 <= fold < self.num_folds, f"expected a fold in 0..{self.num_folds - 1}, got {fold}"


def make_splits(
    dataset: CellDataset, cleaning: Cleaning, *, seed: int, test_fraction: float = 0.15, num_folds: int = 5
) -> Splits:
    """Deals the kept images into a held-out test part and folds.

    Images of one near-duplicate cluster, or of one patient or slide (``groups``, within a lab), end in one part, also
    where both ties chain. Classes are spread over the parts in proportion, as far as groups allow.

    Splits that the data bring are respected: test is sealed, validation is fold 0, train goes to the other folds. A
    part they do not name is drawn from their train part. Where a group stands in several given parts, only its images in
    the part that is judged by (test before validation before train) stay.

    Raises:
        DataError: fractions that leave nothing to learn from, or groups so large that fold 0 would be empty or a class
            could not be learnt.
    """
    _check_shape(test_fraction, num_folds)
    kept = np.flatnonzero(cleaning.keep)
    group_ids = _group_ids(dataset, cleaning, kept)
    fold = np.full(len(dataset), EXCLUDED, np.int8)
    notes: list[str] = []

    ranks = np.array([_SPLIT_PRIORITY[split] for split in dataset.predefined_splits[kept].tolist()], np.int64)
    unit_ranks = np.zeros(group_ids.max() + 1, np.int64)
    np.maximum.at(unit_ranks, group_ids, ranks)
    stays = ranks == unit_ranks[group_ids]
    fold[kept[stays & (ranks == 2)]] = HELD_OUT_TEST
    fold[kept[stays & (ranks == 1)]] = 0
    if not stays.all():
        notes.append(
            f"{int((~stays).sum())} images were left out because other images of their group are in a given test or "
            f"validation part"
        )

    has_test, has_validation = bool((ranks == 2).any()), bool((ranks == 1).any())
    if has_test and not has_validation:
        notes.append("the data name no validation part: fold 0 is drawn from their train part")
    if has_validation and not has_test and test_fraction > 0:
        notes.append("the data name no test part: the held-out test is drawn from their train part")
    # The order is that in which a class with few groups is served: to learn from, to choose by, to judge by.
    parts = [1] + ([] if has_validation else [0]) + ([] if has_test or test_fraction == 0 else [HELD_OUT_TEST])
    parts += list(range(2, num_folds))
    fractions = [test_fraction if part == HELD_OUT_TEST else (1 - test_fraction) / num_folds for part in parts]
    free = stays & (ranks == 0)
    if free.any():
        dealt = stratified_group_split(
            dataset.labels[kept[free]],
            group_ids[free],
            fractions,
            len(dataset.class_names),
            np.random.default_rng(seed),
        )
        fold[kept[free]] = np.array(parts, np.int8)[dealt]
    splits = Splits(fold, seed, num_folds, _default_fold_names(num_folds))
    return _checked(dataset, splits, notes, wants_test=test_fraction > 0)


def site_folds(dataset: CellDataset, cleaning: Cleaning, *, seed: int, test_fraction: float = 0.15) -> Splits:
    """Folds that are laboratories, so that every validation part comes from somewhere else.

    The held-out test is drawn from each lab in proportion (or is the given one). Fold 0 is the lab with most classes among those
    without which every class can still be learnt, the smallest of equals. A group or cluster that stands in several labs is
    kept in the lab with most of its images.

    Raises:
        DataError: fewer than two labs, images without one, or no lab that could be left out.
    """
    _check_shape(test_fraction, 2)
    kept = np.flatnonzero(cleaning.keep)
    sites = dataset.sites[kept]
    names = sorted(set(sites.tolist()))
    if "" in names:
        raise DataError(
            f"{dataset.source}: expected the laboratory of every image, {int((sites == '').sum())} of {len(sites)} have "
            f"none. Fill in the column site (or the array sites), or split without laboratories."
        )
    if not 2 <= len(names) <= 100:
        raise DataError(f"{dataset.source}: expected 2 to 100 laboratories, got {len(names)}: {names[:5]}.")
    notes: list[str] = []
    number = np.searchsorted(np.array(names), sites)
    group_ids = _group_ids(dataset, cleaning, kept)
    votes = np.zeros((group_ids.max() + 1, len(names)), np.int64)
    np.add.at(votes, (group_ids, number), 1)
    stays = votes.argmax(axis=1)[group_ids] == number
    if not stays.all():
        notes.append(f"{int((~stays).sum())} images were left out because their photograph or group is in another lab")

    classes = len(dataset.class_names)
    table = np.zeros((len(names), classes), np.int64)
    np.add.at(table, (number[stays], dataset.labels[kept[stays]]), 1)
    can_go = ((table.sum(axis=0) - table) > 0).all(axis=1)
    if not can_go.any():
        raise DataError(
            f"{dataset.source}: expected a laboratory without which every class can still be learnt; each of "
            f"{names} holds the only images of some class. Split without laboratories."
        )
    first = min(np.flatnonzero(can_go).tolist(), key=lambda site: (-(table[site] > 0).sum(), table[site].sum(), site))
    order = [first] + [site for site in range(len(names)) if site != first]

    fold = np.full(len(dataset), EXCLUDED, np.int8)
    given_test = dataset.predefined_splits[kept] == "test"
    rng = np.random.default_rng(seed)
    for position, site in enumerate(order):
        inside = np.flatnonzero(stays & (number == site))
        if given_test.any():
            tested = np.isin(group_ids[inside], group_ids[inside][given_test[inside]])
            fold[kept[inside]] = np.where(tested, np.where(given_test[inside], HELD_OUT_TEST, EXCLUDED), position)
        elif test_fraction > 0:
            dealt = stratified_group_split(
                dataset.labels[kept[inside]], group_ids[inside], [1 - test_fraction, test_fraction], classes, rng
            )
            fold[kept[inside]] = np.where(dealt == 1, HELD_OUT_TEST, position)
        else:
            fold[kept[inside]] = position
    splits = Splits(fold, seed, len(names), tuple(names[site] for site in order))
    return _checked(dataset, splits, notes, wants_test=test_fraction > 0)


def default_splits(dataset: CellDataset, cleaning: Cleaning, *, seed: int, num_folds: int = 5) -> Splits:
    """Folds that are laboratories where the data name them, else folds of equal size.

    By laboratory when every kept image names one, there are at least two, one of them can be left out, and the data bring no
    validation part of their own. A note says why not, where labs are named in vain.

    Raises:
        DataError: as ``make_splits``.
    """
    sites = set(dataset.sites[cleaning.keep].tolist())
    named = len(sites - {""}) >= 2
    reason = ""
    if named and "" in sites:
        reason = "some images name no laboratory"
    elif named and (dataset.predefined_splits[cleaning.keep] == "validation").any():
        reason = "the data bring a validation part"
    elif named:
        try:
            return site_folds(dataset, cleaning, seed=seed)
        except DataError as error:
            reason = str(error)
    splits = make_splits(dataset, cleaning, seed=seed, num_folds=num_folds)
    notes = (*splits.notes, f"folds are no laboratories: {reason}") if reason else splits.notes
    return replace(splits, notes=notes)


def _default_fold_names(num_folds: int) -> tuple[str, ...]:
    return tuple(f"fold_{number}" for number in range(num_folds))


def _check_shape(test_fraction: float, num_folds: int) -> None:
    if not 0 <= test_fraction <= 0.8:
        raise DataError(f"test_fraction: expected 0 to 0.8 of the images, got {test_fraction}.")
    if not 2 <= num_folds <= 100:
        raise DataError(
            f"num_folds: expected 2 to 100, got {num_folds}. One fold is validated on, the rest trained on."
        )


def _group_ids(dataset: CellDataset, cleaning: Cleaning, kept: np.ndarray) -> np.ndarray:
    """int64 (kept,): images with the same number must stay together, by cluster or by (lab, group); 0.. without gaps.

    Groups are counted within their lab: patient 1 of two labs is two people.
    """
    if len(kept) == 0:
        raise DataError(
            f"{dataset.source}: expected images, cleaning left all {len(dataset)} out. Look at cleaning.csv."
        )
    sets = DisjointSets(len(kept))
    first: dict[object, int] = {}
    rows = zip(
        cleaning.clusters[kept].tolist(), dataset.sites[kept].tolist(), dataset.groups[kept].tolist(), strict=True
    )
    for position, (cluster, site, group) in enumerate(rows):
        sets.union(position, first.setdefault(cluster, position))
        if group:
            sets.union(position, first.setdefault((site, group), position))
    return np.unique(sets.leaders(), return_inverse=True)[1]


def _class_counts(dataset: CellDataset, index: np.ndarray) -> np.ndarray:
    return np.bincount(dataset.labels[index], minlength=len(dataset.class_names))


def _checked(dataset: CellDataset, splits: Splits, notes: Sequence[str], *, wants_test: bool) -> Splits:
    """Refuses parts that nothing can be learnt from or chosen by; notes what is merely thin."""
    train, validation = splits.train_index(), splits.validation_index()
    unlearnable = [
        name for name, count in zip(dataset.class_names, _class_counts(dataset, train), strict=True) if not count
    ]
    if unlearnable:
        raise DataError(
            f"{dataset.source}: expected images of every class to learn from, none of {', '.join(unlearnable)} are in the "
            f"train part. They were excluded by cleaning, are all in a given validation or test part, or form one group."
        )
    if len(validation) == 0:
        raise DataError(
            f"{dataset.source}: expected images to validate on, fold 0 is empty: the images form too few groups to be "
            f"divided. Use finer groups (slides rather than laboratories) or none."
        )
    found = list(notes)
    looked_at = [("validation", validation)] + ([("test", splits.test_index())] if wants_test else [])
    for part, index in looked_at:
        counts = _class_counts(dataset, index)
        absent = [name for name, count in zip(dataset.class_names, counts, strict=True) if not count]
        if absent:
            found.append(f"the {part} part shows no image of {', '.join(absent)}: nothing can be said of them there")
    for other in range(1, splits.num_folds):
        counts = _class_counts(dataset, splits.train_index(other))
        absent = [name for name, count in zip(dataset.class_names, counts, strict=True) if not count]
        if absent:
            found.append(f"{splits.fold_names[other]} holds all images of {', '.join(absent)}")
    return Splits(splits.fold, splits.seed, splits.num_folds, splits.fold_names, tuple(found))


def _as_json(dataset: CellDataset, splits: Splits) -> dict[str, object]:
    parts = {EXCLUDED: "excluded", HELD_OUT_TEST: "test", **dict(enumerate(splits.fold_names))}
    return {
        "version": _FORMAT_VERSION,
        "dataset_sha256": dataset.digest(),
        "seed": splits.seed,
        "num_folds": splits.num_folds,
        "notes": list(splits.notes),
        "parts": [
            {"part": part, "name": name, "images": dataset.names[splits.fold == part].tolist()}
            for part, name in parts.items()
        ],
    }


def write_splits(path: Path, dataset: CellDataset, splits: Splits) -> None:
    """Writes ``splits.json`` once: the names in each part and a digest of the cells.

    Raises:
        RunError: the file is there and says something else. Results before and after would not be comparable.
    """
    value = _as_json(dataset, splits)
    if path.exists():
        if read_json(path) != value:
            raise RunError(
                f"{path}: expected no splits or the same ones, found others. A run keeps its splits; start a new run."
            )
        return
    write_json(path, value)


def read_splits(path: Path, dataset: CellDataset) -> Splits:
    """Reads ``splits.json`` for the cells it was written for.

    Raises:
        RunError: absent or damaged, or the cells have changed since.
    """
    if not path.exists():
        raise RunError(f"{path}: expected the splits of this run, found none. Start a new run.")
    value = read_json(path)
    try:
        if value["version"] != _FORMAT_VERSION:
            raise RunError(f"{path}: expected version {_FORMAT_VERSION}, got {value['version']!r}.")
        if value["dataset_sha256"] != dataset.digest():
            raise RunError(
                f"{path}: the data have changed since this run began: expected cells with digest "
                f"{value['dataset_sha256'][:12]}, {dataset.source} has {dataset.digest()[:12]}. Restore them or start a new run."
            )
        place = {name: index for index, name in enumerate(dataset.names.tolist())}
        fold = np.full(len(dataset), np.iinfo(np.int8).min, np.int8)
        for part in value["parts"]:
            fold[[place[name] for name in part["images"]]] = part["part"]
        fold_names = tuple(part["name"] for part in value["parts"] if part["part"] >= 0)
        splits = Splits(fold, int(value["seed"]), int(value["num_folds"]), fold_names, tuple(value["notes"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path}: expected splits, got something damaged ({error!r}). Restore it.") from None
    if (fold < HELD_OUT_TEST).any() or len(fold_names) != splits.num_folds:
        raise RunError(f"{path}: expected every image in one part and {splits.num_folds} folds. Restore the file.")
    return splits
