"""Folders as people have them: nothing in them vanishes without a line, and nothing that is no image is taken for one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bloodauto.data.load import load_dataset, load_images
from bloodauto.errors import DataError
from tests.data.image_files import encoded, picture, save, write_class_folders


def findings(folder: Path) -> dict[str, str]:
    return {problem.name: problem.finding for problem in load_dataset(folder).problems}


@pytest.mark.parametrize("root", ["", "train"])
def test_a_class_whose_images_lie_deeper_is_an_error_that_names_them(tmp_path: Path, root: str) -> None:
    write_class_folders(tmp_path / root)
    write_class_folders(tmp_path / root / "lymphocyte", ("small", "large"))
    with pytest.raises(DataError, match=r"lymphocyte: .* one folder deeper, in \['large', 'small'\]"):
        load_dataset(tmp_path)


def test_folders_beside_splits_are_an_error_that_names_both(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train")
    write_class_folders(tmp_path / "val")
    write_class_folders(tmp_path, ("figures",))
    with pytest.raises(DataError, match=r"the splits \['train', 'val'\] beside \['figures'\]"):
        load_dataset(tmp_path)
    shutil.rmtree(tmp_path / "figures")
    (tmp_path / "docs").mkdir()
    assert len(load_dataset(tmp_path)) == 12


def test_two_folders_for_one_split_are_an_error(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "val")
    write_class_folders(tmp_path / "valid")
    with pytest.raises(DataError, match="one folder for each split"):
        load_dataset(tmp_path)


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    write_class_folders(tmp_path, ("blast", "test"))
    assert load_dataset(tmp_path).class_names == ("blast", "test")


def test_what_lies_deeper_in_a_class_with_images_is_counted(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    write_class_folders(tmp_path / "ring", ("old",), each=2)
    (problem,) = load_dataset(tmp_path).problems
    assert (problem.name, problem.finding) == ("ring/old", "nested_folder")
    assert "2 images" in problem.detail


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", ".thumbnails"])
def test_hidden_folders_are_passed_over(tmp_path: Path, hidden: str) -> None:
    write_class_folders(tmp_path)
    write_class_folders(tmp_path / hidden, ("blast",))
    write_class_folders(tmp_path / "ring" / hidden, ("blast",))
    assert len(load_images(tmp_path, 24)[0]) == 6
    assert len(load_dataset(tmp_path)) == 6


def test_linked_folders_are_read_said_and_never_walked_in_circles(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "real")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("blast", "ring"):
        (linked / name).symlink_to(tmp_path / "real" / name)
    dataset = load_dataset(linked)
    assert len(dataset) == 6
    assert "6 of the files lie outside of" in dataset.notes[0]
    (tmp_path / "real" / "ring" / "again").symlink_to(tmp_path / "real")
    assert len(load_images(linked, 24)[0]) == 6
    assert load_dataset(tmp_path / "real").notes == ()


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_no_utf8_are_escaped_and_classes_named_so_are_reported(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "ring").rename(tmp_path / os.fsdecode(b"Mu\xf1oz"))
    dataset = load_dataset(tmp_path)
    assert r"Mu\xf1oz" in dataset.class_names
    assert dataset.problems[0].finding == "class_name_escaped"
    assert dataset.digest()
    assert r"Mu\xf1oz/0.png" in load_images(tmp_path, 24)[1].tolist()


def test_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    os.mkfifo(tmp_path / "ring" / "pipe.png")
    assert findings(tmp_path) == {"ring/pipe.png": "not_an_image"}
    assert len(load_images(tmp_path, 24)[0]) == 6


def test_the_size_is_the_median_and_is_said(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    for index, side in enumerate((20, 26, 200)):
        (tmp_path / "ring" / f"of_{side}.png").write_bytes(encoded(picture(index, side, side), ".png"))
    dataset = load_dataset(tmp_path)
    assert dataset.images.shape[1:3] == (24, 24)
    assert "4 sizes, 20 x 20 to 200 x 200 px: all are resized to 24 px" in dataset.notes[0]


def test_more_images_than_memory_holds_are_refused_with_a_size_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_class_folders(tmp_path)
    monkeypatch.setattr("bloodauto.data.decode.available_memory_bytes", lambda: 9000)
    with pytest.raises(DataError, match=r"6 of 24 x 24 px.*--image-size-px 20 or less"):
        load_dataset(tmp_path)
    assert len(load_dataset(tmp_path, image_size_px=20)) == 6


@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 64), (64, 64, 1)])
def test_one_picture_in_an_array_file_is_one_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "one.npy", np.zeros(shape, np.uint8))
    assert load_images(tmp_path / "one.npy", 32)[0].shape == (1, 32, 32, 3)


def test_class_names_do_not_depend_on_the_case_of_a_suffix(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    rows = "path,label\n" + "".join(
        f"{name}/{n}.png,{k}\n" for k, name in enumerate(("blast", "ring")) for n in range(3)
    )
    for name in ("m.csv", "m2.CSV"):
        (tmp_path / name).write_text(rows)
        assert load_dataset(tmp_path / name).class_names == ("class_0", "class_1")


def test_zero_padded_labels_stay_words(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "m.csv").write_text("path,label\nblast/0.png,0\nblast/1.png,0\nring/0.png,00\nring/1.png,00\n")
    assert load_dataset(tmp_path / "m.csv").class_names == ("0", "00")


def test_eight_numbers_are_named_only_where_the_data_say_so(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (16, 24, 24), np.uint8), np.arange(16) % 8
    medmnist = {"train_images": images, "train_labels": labels}
    assert load_dataset(save(tmp_path / "tissuemnist.npz", **medmnist)).class_names[0] == "class_0"
    assert load_dataset(save(tmp_path / "bloodmnist_64.npz", **medmnist)).class_names[0] == "basophil"


def test_arrays_that_are_not_used_are_said(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (8, 24, 24), np.uint8), np.arange(8) % 2 > 0
    dataset = load_dataset(
        save(tmp_path / "c.npz", images=images, labels=labels, labs=labels.astype(int), patient=labels)
    )
    assert dataset.notes == ("arrays that are not used: patient",)
    assert dataset.class_names == ("class_0", "class_1")
