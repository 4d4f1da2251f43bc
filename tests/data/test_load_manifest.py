"""Cells from a CSV manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bloodauto.data.load import load_dataset
from bloodauto.errors import DataError
from tests.data.image_files import picture, write_class_folders


def test_manifest(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "images")
    (tmp_path / "m.csv").write_text(
        "\ufeffPath, label,group,site,split\n"
        "images/blast/0.png,B,p1,A,train\n"
        "images/ring/0.png,A,p1,A,Valid\n"
        "images/blast/1.png,B,,A,test\n"
        "images/ring/2.png,A,p2,,\n",
        encoding="utf-8",
    )
    dataset = load_dataset(tmp_path / "m.csv")
    assert dataset.class_names == ("A", "B")
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert dataset.groups.tolist() == ["p1", "p1", "", "p2"]
    assert dataset.sites.tolist() == ["A", "A", "A", ""]
    assert dataset.predefined_splits.tolist() == ["train", "validation", "test", ""]
    np.testing.assert_array_equal(dataset.images[3], picture(12))


def test_manifest_with_numbers_names_no_classes(tmp_path: Path) -> None:
    write_class_folders(tmp_path, tuple("abcdefgh"), each=2)
    rows = [f"{name}/{n}.png,{label}" for label, name in enumerate("abcdefgh") for n in range(2)]
    (tmp_path / "m.csv").write_text("path,label\n" + "\n".join(rows))
    dataset = load_dataset(tmp_path / "m.csv")
    assert dataset.class_names == tuple(f"class_{label}" for label in range(8))
    assert dataset.labels.tolist() == [label for label in range(8) for _ in range(2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paths,label\na.png,x\n", r"found \['paths', 'label'\]. Rename 'paths' to 'path'"),
        ("path,labels\na.png,x\n", "Rename 'labels' to 'label'"),
        ("path;label\na.png;x\n", "Separate the columns by commas"),
        ("path,label,label\na.png,x,y\n", "each column once"),
        ("path,label,lab,site\na.png,x,y,z\n", "one of 'site' and its synonym 'lab', found both"),
        ("path,label,lab,laboratory\na.png,x,y,z\n", "found both"),
        ("path,label\n", "only the header"),
        ("", r"found \[\]"),
        ("path,label\nblast/0.png,\n", r"m.csv:2: expected a path and a label, got 'blast/0.png' and ''"),
        ("path,label\nblast/0.png,a,b\n", "m.csv:2: expected as many values"),
        ("path,label,split\nblast/0.png,a,holdout\n", "expected split train, validation, test or empty, got 'holdout'"),
        (
            "path,label\nblast/0.png,a\nno1.png,a\nno2.png,b\n",
            r"expected 3 files, 2 of them are not there or may not be read, first \['no1.png', 'no2.png'\]",
        ),
        ("path,label\nblast/0.png,1\nblast/1.png,2\n", "no image has label 0. Do they count from 1"),
        ("path,label\n" + 2 * "blast/0.png,a\nblast/1.png,b\n", r"occur twice: \['blast/0.png', 'blast/1.png'\]"),
    ],
)
def test_manifest_errors(tmp_path: Path, text: str, message: str) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "m.csv")


def test_manifest_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(DataError, match="UTF-8"):
        load_dataset(tmp_path / "m.csv")


@pytest.mark.parametrize("name", ["site", "lab", "Laboratory"])
def test_synonyms_of_the_column_site_are_read(tmp_path: Path, name: str) -> None:
    write_class_folders(tmp_path)
    rows = [f"{folder}/{number}.png,{folder},lyon" for folder in ("blast", "ring") for number in range(2)]
    (tmp_path / "m.csv").write_text(f"path,label,{name}\n" + "\n".join(rows))
    assert load_dataset(tmp_path / "m.csv").sites.tolist() == ["lyon"] * 4
