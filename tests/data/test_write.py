"""Written data sets are read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_dataset
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.errors import DataError


@pytest.fixture(scope="module")
def forty() -> CellDataset:
    return synthesize(40, seed=1, image_size_px=32)


@pytest.mark.parametrize("suffix", [".npz", ""])
def test_written_sets_are_read_back(forty: CellDataset, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cells{suffix}"
    write_dataset(forty, path)
    read = load_dataset(path)
    by_image = {image.tobytes(): read.class_names[label] for image, label in zip(read.images, read.labels, strict=True)}
    assert len(read) == 40
    for image, label in zip(forty.images, forty.labels, strict=True):
        assert by_image[image.tobytes()] == forty.class_names[label]
    if suffix:
        assert read.names.tolist() == forty.names.tolist()
        assert read.sites.tolist() == forty.sites.tolist()
        assert read.class_names == forty.class_names


def test_file_holds_plain_arrays_only(forty: CellDataset, tmp_path: Path) -> None:
    write_dataset(forty, tmp_path / "cells.npz")
    with np.load(tmp_path / "cells.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["class_names", "groups", "images", "labels", "names", "sites"]
        assert all(archive[name].dtype != object for name in archive.files)


def test_folder_keeps_rgb_order(forty: CellDataset, tmp_path: Path) -> None:
    write_dataset(forty.subset(np.arange(1)), tmp_path / "cells")
    (file,) = (path for path in (tmp_path / "cells").rglob("*") if path.is_file())
    assert [folder.name for folder in (tmp_path / "cells").iterdir()] == [forty.class_names[forty.labels[0]]]
    assert file.parent.parent == tmp_path / "cells"
    assert (np.asarray(cv2.imread(str(file)))[..., ::-1] == forty.images[0]).all()


def test_folder_is_never_mixed_with_what_was_there(forty: CellDataset, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(DataError, match="empty"):
        write_dataset(forty, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_names_that_would_become_one_file_are_refused(forty: CellDataset, tmp_path: Path) -> None:
    pair = forty.subset(np.array([0, 0]))
    clash = replace(pair, names=np.array(["a/b", "a_b"]))
    with pytest.raises(DataError, match="same file"):
        write_dataset(clash, tmp_path / "cells")
    assert not (tmp_path / "cells").exists()
