"""Which images are learnt from, chosen by, and judged by: stratified, never separating what belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bloodauto.data.clean import Cleaning
from bloodauto.data.dataset import Cells
from bloodauto.data.disjoint import DisjointSets
from bloodauto.data.stratified_groups import deal
from bloodauto.errors import DataError, RunError
from bloodauto.run.files import read_json, write_json

#: Values of ``Splits.fold`` that are no fold.
LEFT_OUT = -1
SEALED_TEST = -2
_FORMAT_VERSION = 1
_GIVEN_RANK = {"test": 2, "validation": 1, "train": 0, "": 0}


@dataclass(frozen=True)
class Splits:
    """The part of every image.

    Attributes:
        fold: int8, (n,): 0..num_folds-1, -1 left out, -2 sealed test. Fold 0 is the search's validation part.
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
    def folds_are_labs(self) -> bool:
        """Whether each fold is a laboratory, so that who is validated on one has not seen images from there."""
        return self.fold_names != _plain_names(self.num_folds)

    def train_index(self, fold: int = 0) -> np.ndarray:
        """Ascending indices of all folds but ``fold``; int64."""
        self._check(fold)
        return np.flatnonzero((self.fold >= 0) & (self.fold != fold))

    def validation_index(self, fold: int = 0) -> np.ndarray:
        """Ascending indices of ``fold``; int64."""
        self._check(fold)
        return np.flatnonzero(self.fold == fold)

    def test_index(self) -> np.ndarray:
        """Ascending indices of the sealed test part, looked at once, after the search; int64."""
        return np.flatnonzero(self.fold == SEALED_TEST)

    def _check(self, fold: int) -> None:
        assert 0 <= fold < self.num_folds, f"expected a fold in 0..{self.num_folds - 1}, got {fold}"


def make_splits(
    cells: Cells, cleaning: Cleaning, *, seed: int, test_fraction: float = 0.15, num_folds: int = 5
) -> Splits:
    """Deals the kept images into a sealed test part and folds.

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
    units = _units(cells, cleaning, kept)
    fold = np.full(len(cells), LEFT_OUT, np.int8)
    notes: list[str] = []

    ranks = np.array([_GIVEN_RANK[split] for split in cells.given_splits[kept].tolist()], np.int64)
    unit_ranks = np.zeros(units.max() + 1, np.int64)
    np.maximum.at(unit_ranks, units, ranks)
    stays = ranks == unit_ranks[units]
    fold[kept[stays & (ranks == 2)]] = SEALED_TEST
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
        notes.append("the data name no test part: the sealed test is drawn from their train part")
    # The order is that in which a class with few groups is served: to learn from, to choose by, to judge by.
    parts = [1] + ([] if has_validation else [0]) + ([] if has_test or test_fraction == 0 else [SEALED_TEST])
    parts += list(range(2, num_folds))
    shares = [test_fraction if part == SEALED_TEST else (1 - test_fraction) / num_folds for part in parts]
    free = stays & (ranks == 0)
    if free.any():
        dealt = deal(cells.labels[kept[free]], units[free], shares, len(cells.class_names), np.random.default_rng(seed))
        fold[kept[free]] = np.array(parts, np.int8)[dealt]
    splits = Splits(fold, seed, num_folds, _plain_names(num_folds))
    return _checked(cells, splits, notes, wants_test=test_fraction > 0)


def lab_folds(cells: Cells, cleaning: Cleaning, *, seed: int, test_fraction: float = 0.15) -> Splits:
    """Folds that are laboratories, so that every validation part comes from somewhere else.

    The sealed test is drawn from each lab in proportion (or is the given one). Fold 0 is the lab with most classes among those
    without which every class can still be learnt, the smallest of equals. A group or cluster that stands in several labs is
    kept in the lab with most of its images.

    Raises:
        DataError: fewer than two labs, images without one, or no lab that could be left out.
    """
    _check_shape(test_fraction, 2)
    kept = np.flatnonzero(cleaning.keep)
    labs = cells.labs[kept]
    names = sorted(set(labs.tolist()))
    if "" in names:
        raise DataError(
            f"{cells.source}: expected the laboratory of every image, {int((labs == '').sum())} of {len(labs)} have "
            f"none. Fill in the column lab (or the array labs), or split without laboratories."
        )
    if not 2 <= len(names) <= 100:
        raise DataError(f"{cells.source}: expected 2 to 100 laboratories, got {len(names)}: {names[:5]}.")
    notes: list[str] = []
    number = np.searchsorted(np.array(names), labs)
    units = _units(cells, cleaning, kept)
    votes = np.zeros((units.max() + 1, len(names)), np.int64)
    np.add.at(votes, (units, number), 1)
    stays = votes.argmax(axis=1)[units] == number
    if not stays.all():
        notes.append(f"{int((~stays).sum())} images were left out because their photograph or group is in another lab")

    classes = len(cells.class_names)
    table = np.zeros((len(names), classes), np.int64)
    np.add.at(table, (number[stays], cells.labels[kept[stays]]), 1)
    can_go = ((table.sum(axis=0) - table) > 0).all(axis=1)
    if not can_go.any():
        raise DataError(
            f"{cells.source}: expected a laboratory without which every class can still be learnt; each of "
            f"{names} holds the only images of some class. Split without laboratories."
        )
    first = min(np.flatnonzero(can_go).tolist(), key=lambda lab: (-(table[lab] > 0).sum(), table[lab].sum(), lab))
    order = [first] + [lab for lab in range(len(names)) if lab != first]

    fold = np.full(len(cells), LEFT_OUT, np.int8)
    given_test = cells.given_splits[kept] == "test"
    rng = np.random.default_rng(seed)
    for position, lab in enumerate(order):
        inside = np.flatnonzero(stays & (number == lab))
        if given_test.any():
            tested = np.isin(units[inside], units[inside][given_test[inside]])
            fold[kept[inside]] = np.where(tested, np.where(given_test[inside], SEALED_TEST, LEFT_OUT), position)
        elif test_fraction > 0:
            dealt = deal(cells.labels[kept[inside]], units[inside], [1 - test_fraction, test_fraction], classes, rng)
            fold[kept[inside]] = np.where(dealt == 1, SEALED_TEST, position)
        else:
            fold[kept[inside]] = position
    splits = Splits(fold, seed, len(names), tuple(names[lab] for lab in order))
    return _checked(cells, splits, notes, wants_test=test_fraction > 0)


def fitting_splits(cells: Cells, cleaning: Cleaning, *, seed: int, num_folds: int = 5) -> Splits:
    """Folds that are laboratories where the data name them, else folds of equal size.

    By laboratory when every kept image names one, there are at least two, one of them can be left out, and the data bring no
    validation part of their own. A note says why not, where labs are named in vain.

    Raises:
        DataError: as ``make_splits``.
    """
    labs = set(cells.labs[cleaning.keep].tolist())
    named = len(labs - {""}) >= 2
    reason = ""
    if named and "" in labs:
        reason = "some images name no laboratory"
    elif named and (cells.given_splits[cleaning.keep] == "validation").any():
        reason = "the data bring a validation part"
    elif named:
        try:
            return lab_folds(cells, cleaning, seed=seed)
        except DataError as error:
            reason = str(error)
    splits = make_splits(cells, cleaning, seed=seed, num_folds=num_folds)
    notes = (*splits.notes, f"folds are no laboratories: {reason}") if reason else splits.notes
    return replace(splits, notes=notes)


def _plain_names(num_folds: int) -> tuple[str, ...]:
    return tuple(f"fold_{number}" for number in range(num_folds))


def _check_shape(test_fraction: float, num_folds: int) -> None:
    if not 0 <= test_fraction <= 0.8:
        raise DataError(f"test_fraction: expected 0 to 0.8 of the images, got {test_fraction}.")
    if not 2 <= num_folds <= 100:
        raise DataError(
            f"num_folds: expected 2 to 100, got {num_folds}. One fold is validated on, the rest trained on."
        )


def _units(cells: Cells, cleaning: Cleaning, kept: np.ndarray) -> np.ndarray:
    """int64 (kept,): images with the same number must stay together, by cluster or by (lab, group); 0.. without gaps.

    Groups are counted within their lab: patient 1 of two labs is two people.
    """
    if len(kept) == 0:
        raise DataError(f"{cells.source}: expected images, cleaning left all {len(cells)} out. Look at cleaning.csv.")
    sets = DisjointSets(len(kept))
    first: dict[object, int] = {}
    rows = zip(cleaning.clusters[kept].tolist(), cells.labs[kept].tolist(), cells.groups[kept].tolist(), strict=True)
    for position, (cluster, lab, group) in enumerate(rows):
        sets.union(position, first.setdefault(cluster, position))
        if group:
            sets.union(position, first.setdefault((lab, group), position))
    return np.unique(sets.leaders(), return_inverse=True)[1]


def _class_counts(cells: Cells, index: np.ndarray) -> np.ndarray:
    return np.bincount(cells.labels[index], minlength=len(cells.class_names))


def _checked(cells: Cells, splits: Splits, notes: Sequence[str], *, wants_test: bool) -> Splits:
    """Refuses parts that nothing can be learnt from or chosen by; notes what is merely thin."""
    train, validation = splits.train_index(), splits.validation_index()
    unlearnable = [
        name for name, count in zip(cells.class_names, _class_counts(cells, train), strict=True) if not count
    ]
    if unlearnable:
        raise DataError(
            f"{cells.source}: expected images of every class to learn from, none of {', '.join(unlearnable)} are in the "
            f"train part. They were left out by cleaning, are all in a given validation or test part, or form one group."
        )
    if len(validation) == 0:
        raise DataError(
            f"{cells.source}: expected images to validate on, fold 0 is empty: the images form too few groups to be "
            f"divided. Use finer groups (slides rather than laboratories) or none."
        )
    found = list(notes)
    looked_at = [("validation", validation)] + ([("test", splits.test_index())] if wants_test else [])
    for part, index in looked_at:
        counts = _class_counts(cells, index)
        absent = [name for name, count in zip(cells.class_names, counts, strict=True) if not count]
        if absent:
            found.append(f"the {part} part shows no image of {', '.join(absent)}: nothing can be said of them there")
    for other in range(1, splits.num_folds):
        counts = _class_counts(cells, splits.train_index(other))
        absent = [name for name, count in zip(cells.class_names, counts, strict=True) if not count]
        if absent:
            found.append(f"{splits.fold_names[other]} holds all images of {', '.join(absent)}")
    return Splits(splits.fold, splits.seed, splits.num_folds, splits.fold_names, tuple(found))


def _as_json(cells: Cells, splits: Splits) -> dict[str, object]:
    parts = {LEFT_OUT: "left_out", SEALED_TEST: "test", **dict(enumerate(splits.fold_names))}
    return {
        "version": _FORMAT_VERSION,
        "cells_sha256": cells.digest(),
        "seed": splits.seed,
        "num_folds": splits.num_folds,
        "notes": list(splits.notes),
        "parts": [
            {"part": part, "name": name, "images": cells.names[splits.fold == part].tolist()}
            for part, name in parts.items()
        ],
    }


def write_splits(path: Path, cells: Cells, splits: Splits) -> None:
    """Writes ``splits.json`` once: the names in each part and a digest of the cells.

    Raises:
        RunError: the file is there and says something else. Results before and after would not be comparable.
    """
    value = _as_json(cells, splits)
    if path.exists():
        if read_json(path) != value:
            raise RunError(
                f"{path}: expected no splits or the same ones, found others. A run keeps its splits; start a new run."
            )
        return
    write_json(path, value)


def read_splits(path: Path, cells: Cells) -> Splits:
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
        if value["cells_sha256"] != cells.digest():
            raise RunError(
                f"{path}: the data have changed since this run began: expected cells with digest "
                f"{value['cells_sha256'][:12]}, {cells.source} has {cells.digest()[:12]}. Restore them or start a new run."
            )
        place = {name: index for index, name in enumerate(cells.names.tolist())}
        fold = np.full(len(cells), np.iinfo(np.int8).min, np.int8)
        for part in value["parts"]:
            fold[[place[name] for name in part["images"]]] = part["part"]
        fold_names = tuple(part["name"] for part in value["parts"] if part["part"] >= 0)
        splits = Splits(fold, int(value["seed"]), int(value["num_folds"]), fold_names, tuple(value["notes"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path}: expected splits, got something damaged ({error!r}). Restore it.") from None
    if (fold < SEALED_TEST).any() or len(fold_names) != splits.num_folds:
        raise RunError(f"{path}: expected every image in one part and {splits.num_folds} folds. Restore the file.")
    return splits
