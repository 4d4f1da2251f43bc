"""The data set as a value: what it refuses, its digest, joining."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bloodauto.data.dataset import CellDataset, concatenate
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.errors import DataError


@pytest.fixture(scope="module")
def forty() -> CellDataset:
    return synthesize(40, seed=1, image_size_px=48)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((40, 8, 8, 3), np.float32),
        np.zeros((40, 8, 8), np.uint8),
        np.zeros((40, 8, 8, 4), np.uint8),
        np.zeros((40, 0, 8, 3), np.uint8),
        [[0]],
    ],
)
def test_arrays_that_are_no_images_are_refused(forty: CellDataset, images: Any) -> None:
    with pytest.raises(
        DataError, match=r"synthetic images .*: expected images as a uint8 array \(n, height, width, 3\)"
    ):
        replace(forty, images=images)


@pytest.mark.parametrize("label", [-1, 8])
def test_labels_without_a_class_are_refused(forty: CellDataset, label: int) -> None:
    with pytest.raises(DataError, match=r"expected labels in 0\.\.7 \(8 classes\)"):
        replace(forty, labels=np.where(np.arange(40) == 3, label, forty.labels))


def test_the_digest_changes_with_everything_that_training_sees(forty: CellDataset) -> None:
    images = forty.images.copy()
    images[0, 0, 0, 0] ^= 1
    changed = [
        replace(forty, images=images),
        replace(forty, labels=forty.labels[::-1].copy()),
        replace(forty, class_names=tuple(f"class_{label}" for label in range(8))),
        replace(forty, sites=np.full(40, "lyon")),
        replace(forty, groups=np.full(40, "p1")),
        replace(forty, predefined_splits=np.full(40, "train")),
    ]
    digests = {dataset.digest() for dataset in (forty, *changed)}
    assert len(digests) == 1 + len(changed)
    assert replace(forty, source="elsewhere").digest() == forty.digest()


def test_counts_and_subsets_take_numbers_and_masks(forty: CellDataset) -> None:
    rows = np.flatnonzero(forty.labels == 2)
    for index in (rows, forty.labels == 2):
        assert forty.class_counts(index).tolist() == [0, 0, len(rows), 0, 0, 0, 0, 0]
        assert forty.subset(index).names.tolist() == forty.names[rows].tolist()


def test_joining_refuses_what_does_not_fit(forty: CellDataset) -> None:
    with pytest.raises(DataError, match="at least one"):
        concatenate([])
    with pytest.raises(DataError, match="unique names"):
        concatenate([forty, forty])
    with pytest.raises(DataError, match="expected"):
        concatenate([forty, synthesize(2, seed=9, image_size_px=32)])


def test_joined_data_sets_keep_their_sites() -> None:
    parts = [synthesize(3, site=name, image_size_px=32) for name in ("lab_a", "lab_b")]
    joined = concatenate(parts)
    assert joined.sites.tolist() == ["lab_a"] * 3 + ["lab_b"] * 3
    assert (joined.images[3:] == parts[1].images).all()
