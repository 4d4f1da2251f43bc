"""Splits on cases that are worked out by hand; the laws are in tests/properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bloodauto.data.clean import Cleaning, clean
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import (
    EXCLUDED,
    HELD_OUT_TEST,
    Splits,
    default_splits,
    make_splits,
    read_splits,
    site_folds,
    write_splits,
)
from bloodauto.errors import DataError, RunError


def dataset_with(
    labels: list[int],
    *,
    groups: list[str] | None = None,
    sites: list[str] | None = None,
    splits: list[str] | None = None,
) -> CellDataset:
    count = len(labels)
    empty = [""] * count
    rng = np.random.default_rng(count)
    return CellDataset(
        images=rng.integers(0, 256, (count, 2, 2, 3), np.uint8),
        labels=np.array(labels, np.int64),
        class_names=tuple(f"class_{label}" for label in range(max(labels) + 1)),
        names=np.array([f"{index}.png" for index in range(count)]),
        groups=np.array(empty if groups is None else groups),
        sites=np.array(empty if sites is None else sites),
        predefined_splits=np.array(empty if splits is None else splits),
        source="test",
    )


def untouched(dataset: CellDataset, clusters: list[int] | None = None, excluded: tuple[int, ...] = ()) -> Cleaning:
    cleaning = clean(dataset, enabled=False)
    keep = cleaning.keep.copy()
    keep[list(excluded)] = False
    numbers = cleaning.clusters if clusters is None else np.array(clusters)
    return Cleaning(keep, numbers, cleaning.findings, cleaning.actions, cleaning.reasons, is_enabled=True)


def split_of(dataset: CellDataset, **options: object) -> Splits:
    return make_splits(dataset, untouched(dataset), seed=0, **options)  # type: ignore[arg-type]


def test_fractions_of_every_class_are_right_to_one_image() -> None:
    dataset = dataset_with([0] * 200 + [1] * 100 + [2] * 40)
    splits = split_of(dataset)
    for label, count in ((0, 200), (1, 100), (2, 40)):
        folds = splits.fold[dataset.labels == label]
        assert abs((folds == HELD_OUT_TEST).sum() - 0.15 * count) < 1
        for fold in range(5):
            assert abs((folds == fold).sum() - 0.17 * count) < 1
    assert splits.fold.dtype == np.int8
    assert splits.notes == ()
    assert splits.fold_names == ("fold_0", "fold_1", "fold_2", "fold_3", "fold_4")


def test_indices_are_the_parts() -> None:
    dataset = dataset_with([0, 1] * 50)
    splits = make_splits(dataset, untouched(dataset, excluded=(3, 4)), seed=1, num_folds=3)
    for fold in range(3):
        together = np.concatenate([splits.train_index(fold), splits.validation_index(fold), splits.test_index()])
        assert sorted(together.tolist()) == [index for index in range(100) if index not in (3, 4)]
        assert (splits.fold[splits.validation_index(fold)] == fold).all()
    np.testing.assert_array_equal(splits.train_index(), splits.train_index(0))
    with pytest.raises(AssertionError):
        splits.train_index(3)


def test_same_seed_same_parts_other_seed_other_parts() -> None:
    dataset = dataset_with([0, 1, 2] * 40)
    first, again, other = (make_splits(dataset, untouched(dataset), seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.fold, again.fold)
    assert (first.fold != other.fold).any()


def test_clusters_and_groups_chain() -> None:
    # Images 0-1 are one cluster, 1-2 one patient, 2-3 one cluster: all four belong together.
    dataset = dataset_with([0, 1] * 30, groups=["", "p", "p", ""] + [""] * 56)
    cleaning = untouched(dataset, clusters=[0, 0, 2, 2, *range(4, 60)])
    for seed in range(20):
        assert len(set(make_splits(dataset, cleaning, seed=seed).fold[:4].tolist())) == 1


def test_patient_numbers_are_counted_within_a_site() -> None:
    dataset = dataset_with([0, 1] * 20, groups=["1"] * 20 + [""] * 20, sites=["A", "A", "B", "B"] * 10)
    fold = split_of(dataset).fold[:20]
    in_a = np.array(dataset.sites[:20]) == "A"
    assert len(set(fold[in_a].tolist())) == 1
    assert len(set(fold[~in_a].tolist())) == 1
    assert fold[in_a][0] != fold[~in_a][0]


def test_excluded_images_join_no_groups() -> None:
    dataset = dataset_with([0, 1] * 20)
    cleaning = untouched(dataset, excluded=(0,))
    splits = make_splits(dataset, cleaning, seed=0)
    assert splits.fold[0] == EXCLUDED
    assert (splits.fold[1:] != EXCLUDED).all()


def test_scarce_classes_are_trained_on_first_then_validated_then_tested() -> None:
    dataset = dataset_with([0] * 60 + [1] * 2 + [2] * 3)
    splits = split_of(dataset)
    assert sorted(splits.fold[dataset.labels == 1].tolist()) == [0, 1]
    assert sorted(splits.fold[dataset.labels == 2].tolist()) == [HELD_OUT_TEST, 0, 1]
    assert splits.notes == ("the test part has no image of class_1: it cannot evaluate them",)


def test_one_group_per_class_cannot_be_validated() -> None:
    dataset = dataset_with([0] * 10 + [1] * 10, groups=["p"] * 10 + ["q"] * 10)
    with pytest.raises(DataError, match="fold 0 is empty: the images form too few groups"):
        split_of(dataset)


def test_a_class_in_a_single_group_is_trained_on_and_noted() -> None:
    dataset = dataset_with([0] * 50 + [1] * 10, groups=[""] * 50 + ["q"] * 10)
    splits = split_of(dataset)
    assert set(splits.fold[50:].tolist()) == {1}
    assert any("validation part has no image of class_1" in note for note in splits.notes)
    assert any("fold_1 holds all images of class_1" in note for note in splits.notes)


def test_huge_group_is_trained_on() -> None:
    dataset = dataset_with([0, 1] * 100, groups=["huge"] * 120 + [""] * 80)
    splits = split_of(dataset)
    assert splits.fold[0] >= 1
    assert len(splits.validation_index()) >= 10
    assert len(splits.test_index()) >= 10


def test_groups_keep_class_fractions_close() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 800, p=[0.5, 0.3, 0.15, 0.05]).tolist()
    dataset = dataset_with(labels, groups=[f"p{number}" for number in rng.integers(0, 100, 800)])
    splits = split_of(dataset)
    for label in range(4):
        folds = splits.fold[dataset.labels == label]
        for part, fraction in ((HELD_OUT_TEST, 0.15), *((fold, 0.17) for fold in range(5))):
            assert abs((folds == part).mean() - fraction) < 0.06


def test_predefined_splits_are_respected() -> None:
    predefined = ["train"] * 60 + ["validation"] * 20 + ["test"] * 20
    splits = split_of(dataset_with([0, 1] * 50, splits=predefined))
    assert set(splits.fold[:60].tolist()) == {1, 2, 3, 4}
    assert set(splits.fold[60:80].tolist()) == {0}
    assert set(splits.fold[80:].tolist()) == {HELD_OUT_TEST}
    assert splits.notes == ()


def test_parts_that_are_not_predefined_come_from_train() -> None:
    no_validation = split_of(dataset_with([0, 1] * 50, splits=["train"] * 80 + ["test"] * 20))
    assert set(no_validation.fold[:80].tolist()) == {0, 1, 2, 3, 4}
    assert set(no_validation.fold[80:].tolist()) == {HELD_OUT_TEST}
    assert "no validation split" in no_validation.notes[0]
    no_test = split_of(dataset_with([0, 1] * 50, splits=["train"] * 80 + ["validation"] * 20))
    assert set(no_test.fold[:80].tolist()) == {HELD_OUT_TEST, 1, 2, 3, 4}
    assert "no test split" in no_test.notes[0]


def test_group_across_predefined_splits_stays_in_the_one_with_the_highest_rank() -> None:
    groups = ["p"] * 4 + [""] * 56
    predefined = ["train", "validation", "test", "train"] + ["train"] * 36 + ["validation"] * 10 + ["test"] * 10
    splits = split_of(dataset_with([0, 1] * 30, groups=groups, splits=predefined))
    assert splits.fold[:4].tolist() == [EXCLUDED, EXCLUDED, HELD_OUT_TEST, EXCLUDED]
    assert splits.notes[0].startswith("3 images were excluded")


def test_class_that_only_the_test_part_has() -> None:
    predefined = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    with pytest.raises(DataError, match="none of class_1 are in the train part"):
        split_of(dataset_with([0] * 30 + [1] * 10, splits=predefined))


def test_impossible_settings_are_refused() -> None:
    dataset = dataset_with([0, 1] * 10)
    with pytest.raises(DataError, match=r"test_fraction: expected 0 to 0.8 .* got 1.5"):
        split_of(dataset, test_fraction=1.5)
    with pytest.raises(DataError, match="num_folds: expected 2 to 100, got 1"):
        split_of(dataset, num_folds=1)
    with pytest.raises(DataError, match="cleaning excluded all 20"):
        make_splits(dataset, untouched(dataset, excluded=tuple(range(20))), seed=0)


def test_without_a_test_part() -> None:
    splits = split_of(dataset_with([0, 1] * 50), test_fraction=0.0)
    assert len(splits.test_index()) == 0
    assert splits.notes == ()


# ---- sites


def test_folds_are_sites() -> None:
    sites = ["A"] * 40 + ["B"] * 60 + ["C"] * 20
    dataset = dataset_with([0, 1] * 50 + [0] * 20, sites=sites)
    splits = site_folds(dataset, untouched(dataset), seed=0, test_fraction=0.2)
    # A and B show both classes and A is the smaller of the two.
    assert splits.fold_names == ("A", "B", "C")
    for number, name in enumerate(splits.fold_names):
        inside = splits.fold[dataset.sites == name]
        assert set(inside.tolist()) == {number, HELD_OUT_TEST}
        assert abs((inside == HELD_OUT_TEST).mean() - 0.2) < 0.05
    assert set(dataset.sites[splits.train_index()].tolist()) == {"B", "C"}


def test_only_site_with_a_class_is_not_the_first_fold() -> None:
    dataset = dataset_with([0, 1, 2] * 20 + [0, 1] * 15, sites=["A"] * 60 + ["B"] * 30)
    splits = site_folds(dataset, untouched(dataset), seed=0)
    assert splits.fold_names[0] == "B"
    assert any("A holds all images of class_2" in note for note in splits.notes)


def test_photograph_at_two_sites_stays_at_one() -> None:
    dataset = dataset_with([0, 1] * 20, sites=["A", "B"] * 10 + ["A"] * 10 + ["B"] * 10)
    splits = site_folds(dataset, untouched(dataset, clusters=[0, 0, 0, *range(3, 40)]), seed=0)
    assert splits.fold[1] == EXCLUDED
    assert splits.fold[0] != EXCLUDED
    assert splits.notes[0].startswith("1 images were excluded")


def test_sites_with_a_predefined_test_split() -> None:
    predefined = (["test"] * 4 + ["train"] * 16) * 2
    dataset = dataset_with([0, 1] * 20, sites=["A"] * 20 + ["B"] * 20, splits=predefined)
    splits = site_folds(dataset, untouched(dataset), seed=0)
    np.testing.assert_array_equal(splits.fold == HELD_OUT_TEST, np.array(predefined) == "test")


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["A"] * 20, "2 to 100 sites, got 1"),
        (["A"] * 19 + [""], "1 of 20 have none"),
        (["A"] * 10 + ["B"] * 10, "each of"),
    ],
)
def test_sites_that_cannot_be_folds(sites: list[str], message: str) -> None:
    dataset = dataset_with([0] * 10 + [1] * 10, sites=sites)
    with pytest.raises(DataError, match=message):
        site_folds(dataset, untouched(dataset), seed=0)


def test_data_that_name_sites_are_split_by_them() -> None:
    dataset = dataset_with([0, 1] * 60, sites=["A"] * 40 + ["B"] * 60 + ["C"] * 20)
    splits = default_splits(dataset, untouched(dataset), seed=0)
    assert splits.folds_are_sites
    np.testing.assert_array_equal(splits.fold, site_folds(dataset, untouched(dataset), seed=0).fold)


@pytest.mark.parametrize(
    ("sites", "predefined", "note"),
    [
        (["A"] * 40, None, ""),
        (None, None, ""),
        (["A", "B"] * 19 + ["A", ""], None, "some images name no site"),
        (["A", "B"] * 20, ["train"] * 30 + ["validation"] * 10, "a validation split"),
        (["A"] * 20 + ["B"] * 20, None, "still be trained on"),
    ],
)
def test_where_sites_do_not_fit_folds_are_of_equal_size(
    sites: list[str] | None, predefined: list[str] | None, note: str
) -> None:
    # In the last case each site holds the only images of a class.
    labels = [0] * 20 + [1] * 20 if note == "still be trained on" else [0, 0, 1, 1] * 10
    dataset = dataset_with(labels, sites=sites, splits=predefined)
    splits = default_splits(dataset, untouched(dataset), seed=0, num_folds=4)
    assert not splits.folds_are_sites
    assert splits.num_folds == 4
    np.testing.assert_array_equal(splits.fold, make_splits(dataset, untouched(dataset), seed=0, num_folds=4).fold)
    assert (
        [text for text in splits.notes if "folds are not sites" in text and note in text] if note else not splits.notes
    )


# ---- on disk


def test_written_once_and_read_back(tmp_path: Path) -> None:
    dataset = dataset_with([0] * 40 + [1] * 2)
    path = tmp_path / "splits.json"
    splits = make_splits(dataset, untouched(dataset, excluded=(7,)), seed=3)
    write_splits(path, dataset, splits)
    again = read_splits(path, dataset)
    np.testing.assert_array_equal(again.fold, splits.fold)
    assert again.fold.dtype == np.int8
    assert (again.seed, again.num_folds, again.fold_names, again.notes) == (3, 5, splits.fold_names, splits.notes)
    before = path.read_bytes()
    write_splits(path, dataset, splits)
    with pytest.raises(RunError, match="A run keeps its splits"):
        write_splits(path, dataset, make_splits(dataset, untouched(dataset), seed=4))
    assert path.read_bytes() == before
    parts = json.loads(before)["parts"]
    assert sorted(name for part in parts for name in part["images"]) == sorted(dataset.names.tolist())


def test_changed_data_are_refused(tmp_path: Path) -> None:
    dataset = dataset_with([0, 1] * 20)
    write_splits(tmp_path / "s.json", dataset, split_of(dataset))
    changed = dataset.subset(np.arange(40))
    changed.images[0, 0, 0, 0] ^= 1
    with pytest.raises(RunError, match="the data have changed since this run began"):
        read_splits(tmp_path / "s.json", changed)


@pytest.mark.parametrize("damage", ["{", "[]", '{"format_version": 1}', '{"format_version": 2}', "null"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "s.json").write_text(damage)
    with pytest.raises(RunError):
        read_splits(tmp_path / "s.json", dataset_with([0, 1] * 20))


def test_missing_file_and_missing_names(tmp_path: Path) -> None:
    dataset = dataset_with([0, 1] * 20)
    with pytest.raises(RunError, match="found none"):
        read_splits(tmp_path / "s.json", dataset)
    write_splits(tmp_path / "s.json", dataset, split_of(dataset))
    value = json.loads((tmp_path / "s.json").read_text())
    value["parts"][2]["images"].pop()
    (tmp_path / "s.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match="every image in one part"):
        read_splits(tmp_path / "s.json", dataset)
