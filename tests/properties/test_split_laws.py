"""Laws of splitting: every image in one part, nothing that belongs together apart, classes in proportion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.data.clean import Cleaning
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import EXCLUDED, HELD_OUT_TEST, make_splits
from bloodauto.data.stratified_groups import stratified_group_split
from bloodauto.errors import DataError


@dataclass(frozen=True)
class Case:
    dataset: CellDataset
    cleaning: Cleaning
    seed: int
    num_folds: int
    test_fraction: float


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(0, 130).map(lambda more: 150 - more))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(2, 4))
    labels = rng.choice(classes, count, p=rng.dirichlet(np.full(classes, 4.0)))
    grouped = draw(st.sampled_from([0.0, 0.3, 1.0]))
    groups = np.where(rng.random(count) < grouped, np.char.add("p", rng.integers(0, 25, count).astype(str)), "")
    clusters = np.where(rng.random(count) < 0.2, rng.integers(0, count, count), np.arange(count))
    choices = draw(
        st.sampled_from([[""], ["train", "validation", "test"], ["train", "test", ""], ["train", "validation"]])
    )
    dataset = CellDataset(
        images=np.zeros((count, 1, 1, 3), np.uint8),
        labels=labels.astype(np.int64),
        class_names=tuple(f"class_{label}" for label in range(classes)),
        names=np.arange(count).astype(str),
        groups=groups,
        sites=rng.choice(["", "A", "B"], count),
        predefined_splits=rng.choice(choices, count),
        source="law",
    )
    keep = rng.random(count) < draw(st.sampled_from([1.0, 0.8]))
    text = np.full(count, "")
    cleaning = Cleaning(keep, clusters, text, text, text, is_enabled=True)
    return Case(
        dataset, cleaning, draw(st.integers(0, 9)), draw(st.integers(2, 6)), draw(st.sampled_from([0.0, 0.15, 0.4]))
    )


@settings(max_examples=150)
@given(case=cases())
def test_parts_are_whole_and_hold_together_what_belongs_together(case: Case) -> None:
    dataset, cleaning = case.dataset, case.cleaning
    options = {"seed": case.seed, "num_folds": case.num_folds, "test_fraction": case.test_fraction}
    try:
        splits = make_splits(dataset, cleaning, **options)  # type: ignore[arg-type]
    except DataError:
        return
    fold = splits.fold
    np.testing.assert_array_equal(fold, make_splits(dataset, cleaning, **options).fold)  # type: ignore[arg-type]

    everything = [splits.test_index(), *(splits.validation_index(number) for number in range(case.num_folds))]
    everything.append(np.flatnonzero(fold == EXCLUDED))
    assert sorted(np.concatenate(everything).tolist()) == list(range(len(dataset)))
    assert (fold[~cleaning.keep] == EXCLUDED).all()

    used = fold != EXCLUDED
    for key in {*cleaning.clusters[used].tolist()}:
        assert len(set(fold[used & (cleaning.clusters == key)].tolist())) == 1
    for site, group in {*zip(dataset.sites.tolist(), dataset.groups.tolist(), strict=True)}:
        if group:
            assert len(set(fold[used & (dataset.groups == group) & (dataset.sites == site)].tolist())) <= 1

    assert set(dataset.labels[splits.train_index()].tolist()) == set(range(len(dataset.class_names)))
    assert len(splits.validation_index()) > 0
    is_test, is_validation = (dataset.predefined_splits == word for word in ("test", "validation"))
    assert (fold[used & is_test] == HELD_OUT_TEST).all()
    assert (fold[used & is_validation] == 0).all()
    if case.test_fraction == 0 and not is_test.any():
        assert len(splits.test_index()) == 0


@settings(max_examples=150)
@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any),
    fractions=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=6),
    seed=st.integers(0, 99),
)
def test_single_images_are_assigned_in_exact_proportion(counts: list[int], fractions: list[float], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = stratified_group_split(labels, np.arange(len(labels)), fractions, len(counts), np.random.default_rng(seed))
    for label, count in enumerate(counts):
        assigned = np.bincount(parts[labels == label], minlength=len(fractions))
        assert assigned.sum() == count
        if count >= len(fractions):
            assert (np.abs(assigned - count * np.array(fractions) / sum(fractions)) < 1 + 1e-6).all()
        else:
            # Too few for a proportion: one each to the first parts.
            assert assigned.tolist() == [1] * count + [0] * (len(fractions) - count)


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 8), min_size=30, max_size=80),
    classes=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_groups_stay_together_and_parts_are_near_their_proportion(sizes: list[int], classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group_ids = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.integers(0, classes, len(group_ids))
    fractions = np.array([0.2, 0.4, 0.4])
    parts = stratified_group_split(labels, group_ids, fractions.tolist(), classes, rng)
    for group in range(len(sizes)):
        assert len(set(parts[group_ids == group].tolist())) == 1
    totals = np.bincount(parts, minlength=3)
    # No part misses its size by more than the largest group for each class.
    assert (np.abs(totals - fractions * len(group_ids)) <= max(sizes) * classes + 1).all()
