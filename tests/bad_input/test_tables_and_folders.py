"""Manifests and folders that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.refusal import refused
from tests.data.image_files import encoded, picture, write_class_folders

ROWS = "blast/0.png,blast\nblast/1.png,blast\nring/0.png,ring\nring/1.png,ring\n"
GOOD = f"path,label\n{ROWS}"

MANIFESTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "expected the columns path and label"),
    "a header alone": ("path,label\n", "only the header"),
    "no header": (ROWS, "expected the columns path and label"),
    "another column": ("file,label\n" + ROWS, "expected the columns path and label"),
    "misspelt columns": ("paths,labels\n" + ROWS, "Rename"),
    "semicolons": (GOOD.replace(",", ";"), "Separate the columns by commas"),
    "tabs": (GOOD.replace(",", "\t"), "Separate the columns by commas"),
    "a column twice": ("path,label,label\n" + ROWS.replace("\n", ",x\n"), "each column once"),
    "a column and its synonym": ("path,label,lab,site\n" + ROWS.replace("\n", ",x,y\n"), "found both"),
    "no label": (GOOD + "ring/2.png,\n", "m.csv:6: expected a path and a label"),
    "no path": (GOOD + ",ring\n", "m.csv:6: expected a path and a label"),
    "a blank label": (GOOD + "ring/2.png,  \n", "m.csv:6"),
    "a short line": (GOOD + "ring/2.png\n", "m.csv:6"),
    "a long line": (GOOD + "ring/2.png,ring,more\n", "as many values as columns"),
    "an unknown split": ("path,label,split\n" + ROWS.replace("\n", ",holdout\n"), "got 'holdout'"),
    "a missing file": (GOOD + "ring/9.png,ring\n", "expected 5 files, 1 of them are not there"),
    "a folder for a file": (GOOD + "ring,ring\n", "are not there"),
    "a file twice": (GOOD + "ring/1.png,ring\n", "occur twice"),
    "a zero byte": (GOOD + "ring/\0.png,ring\n", "m.csv"),
    "a name that is too long": (GOOD + "x" * 300 + ".png,ring\n", "are not there"),
    "one class": ("path,label\nblast/0.png,a\nblast/1.png,a\n", "at least two classes"),
    "a class of one image": (GOOD + "blast/2.png,odd\n", "odd (1)"),
    "numbers from one": ("path,label\nblast/0.png,1\nblast/1.png,1\nring/0.png,2\nring/1.png,2\n", "count from 1"),
    "a gap in the numbers": ("path,label\nblast/0.png,0\nblast/1.png,0\nring/0.png,2\nring/1.png,2\n", "label 1"),
    "a patient's number for a class": ("path,label\nblast/0.png,0\nring/0.png,20260101\n", "expected labels from 0 to"),
    "no images": ("path,label\nnotes.txt,a\nnotes.txt,b\n", "can be read"),
    "latin-1": ("path,label\nblast/0.png,Mu\u00f1oz\n".encode("latin-1"), "CSV table in UTF-8"),
    "utf-16": (GOOD.encode("utf-16"), "CSV table in UTF-8"),
    "an open quote": (GOOD + '"ring/2.png,ring\n', "m.csv"),
    "an image": (encoded(picture(0), ".png"), "CSV table in UTF-8"),
    "json": ('{"path": "blast/0.png"}', "expected the columns path and label"),
    "a field of a megabyte": (GOOD + "x" * 1_000_000 + ",ring\n", "m.csv"),
    "an escape in a label": (GOOD + "blast/2.png,\x1b[31mred\n", r"\x1b[31mred (1)"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(tmp_path: Path, case: str) -> None:
    content, message = MANIFESTS[case]
    write_class_folders(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    path = tmp_path / "m.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    ended = refused(tmp_path, "data", "inspect", "--data", path)
    assert message in ended.err
    assert "m.csv" in ended.err
    assert "expected" in ended.err


def loose_images(root: Path) -> None:
    (root / "a.png").write_bytes(encoded(picture(0), ".png"))


def one_class(root: Path) -> None:
    write_class_folders(root, ("blast",))


def nested_class(root: Path) -> None:
    write_class_folders(root)
    write_class_folders(root / "deep", ("one",))


def split_and_figures(root: Path) -> None:
    for name in ("train", "test"):
        write_class_folders(root / name)
    write_class_folders(root, ("figures",))


def one_split_twice(root: Path) -> None:
    for name in ("val", "Valid"):
        write_class_folders(root / name)


def split_with_a_nested_class(root: Path) -> None:
    write_class_folders(root / "train")
    write_class_folders(root / "train" / "deep", ("one",))


def split_of_one_class(root: Path) -> None:
    write_class_folders(root / "train", ("blast",))
    write_class_folders(root / "test", ("blast",))


def broken_images(root: Path) -> None:
    for name in ("blast", "ring"):
        (root / name).mkdir(parents=True)
        for index in range(3):
            (root / name / f"{index}.png").write_bytes(b"no image")


def a_class_of_broken_images(root: Path) -> None:
    write_class_folders(root)
    (root / "odd").mkdir()
    for index in range(3):
        (root / "odd" / f"{index}.jpg").write_bytes(b"\xff\xd8\xff\xe0junk")


def other_formats(root: Path) -> None:
    for name in ("blast", "ring"):
        (root / name).mkdir(parents=True)
        (root / name / "a.gif").write_bytes(b"GIF89a")


def empty_classes(root: Path) -> None:
    for name in ("blast", "ring"):
        (root / name).mkdir(parents=True)


def hidden_classes(root: Path) -> None:
    write_class_folders(root, (".blast", "__MACOSX"))


def a_circle_of_links(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "again").symlink_to(root)


def pipes(root: Path) -> None:
    for name in ("blast", "ring"):
        (root / name).mkdir(parents=True)
        os.mkfifo(root / name / "a.png")


def links_to_nothing(root: Path) -> None:
    for name in ("blast", "ring"):
        (root / name).mkdir(parents=True)
        (root / name / "a.png").symlink_to("nowhere.png")


def bombs(root: Path) -> None:
    """Headers that claim 4 gigapixels each."""
    header = encoded(picture(0), ".png")
    claimed = header[:16] + (65535).to_bytes(4, "big") * 2 + header[24:]
    for name in ("blast", "ring"):
        (root / name).mkdir(parents=True)
        for index in range(2):
            (root / name / f"{index}.png").write_bytes(claimed)


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda root: root.mkdir(exist_ok=True), "found no images"),
    "loose images": (loose_images, "1 images that lie directly in it"),
    "one class": (one_class, "at least two classes"),
    "a class one folder deeper": (nested_class, "one folder deeper"),
    "splits beside figures": (split_and_figures, "beside ['figures']"),
    "one split twice": (one_split_twice, "one folder for each split"),
    "a nested class in a split": (split_with_a_nested_class, "one folder deeper"),
    "splits of one class": (split_of_one_class, "at least two classes"),
    "broken images": (broken_images, "can be read"),
    "a class of broken images": (a_class_of_broken_images, "odd (0)"),
    "other formats": (other_formats, "found no images"),
    "empty classes": (empty_classes, "found no images"),
    "hidden classes": (hidden_classes, "found no images"),
    "a circle of links": (a_circle_of_links, "found no images"),
    "pipes": (pipes, "found no images"),
    "links to nothing": (links_to_nothing, "found no images"),
    "images that claim gigapixels": (bombs, "can be read"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders(tmp_path: Path, case: str) -> None:
    build, message = FOLDERS[case]
    root = tmp_path / "cells"
    root.mkdir()
    build(root)
    ended = refused(tmp_path, "data", "inspect", "--data", root)
    assert message in ended.err
    assert "cells" in ended.err
    assert "expected" in ended.err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "found nothing there"),
        ("nowhere.npz", "found nothing there"),
        ("nowhere.csv", "found nothing there"),
        ("~nobody-of-that-name/cells", "found nothing there"),
        ("x" * 300, "File name too long"),
        ("notes.txt", "got '.txt'"),
        ("notes", "got ''"),
        ("notes.txt/deeper", "found nothing there"),
        ("pipe.npz", "found nothing there"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    ],
)
def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no data")
    Path("notes").write_text("no data")
    os.mkfifo("pipe.npz")
    assert message in refused(tmp_path, "data", "inspect", "--data", path).err
