"""Loading from folders, manifests and arrays, and what is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from bloodauto.data import decode
from bloodauto.data.dataset import COMPETITION_CLASSES, CellDataset
from bloodauto.data.load import load_dataset, load_images
from bloodauto.errors import DataError
from tests.data.image_files import encoded, picture, save, write_class_folders
from tests.locations import SHARED

PBC96 = SHARED / "data" / "pbc96"


def images_of(count: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


# ---- folders


def test_folder_names_order_pixels_and_names(tmp_path: Path) -> None:
    write_class_folders(tmp_path, ("ring", "blast"))
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ("blast", "ring")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.names.tolist() == [f"{name}/{number}.png" for name in ("blast", "ring") for number in range(3)]
    np.testing.assert_array_equal(dataset.images[0], picture(10))
    np.testing.assert_array_equal(dataset.images[3], picture(0))
    assert dataset.problems == ()
    assert set(dataset.predefined_splits.tolist()) == {""}


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".tif", ".tiff", ".bmp"])
def test_every_format(tmp_path: Path, suffix: str) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "blast" / f"extra{suffix}").write_bytes(encoded(picture(0), suffix))
    dataset = load_dataset(tmp_path)
    loaded = dataset.images[dataset.names.tolist().index(f"blast/extra{suffix}")].astype(int)
    assert np.abs(loaded - picture(0)).mean() < (4 if "jp" in suffix.lower() else 0.01)
    assert dataset.problems == ()


def test_default_size_is_the_commonest_and_a_given_size_shrinks_by_area(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "ring" / "large.png").write_bytes(encoded(picture(5, 48, 48), ".png"))
    assert load_dataset(tmp_path).images.shape == (7, 24, 24, 3)
    small = load_dataset(tmp_path, image_size_px=12)
    np.testing.assert_array_equal(small.images[0], cv2.resize(picture(0), (12, 12), interpolation=cv2.INTER_AREA))


def test_split_folders_become_given_splits(tmp_path: Path) -> None:
    for split in ("TRAIN", "val", "Test"):
        write_class_folders(tmp_path / split)
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ("blast", "ring")
    assert [dataset.predefined_splits.tolist().count(split) for split in ("train", "validation", "test")] == [6, 6, 6]
    assert dataset.names[0] == "TRAIN/blast/0.png"


def test_clutter_empty_and_nested_folders(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "zzz_empty").mkdir()
    (tmp_path / "blast" / "patient1").mkdir()
    for name in ("Thumbs.db", ".DS_Store", "._0.png"):
        (tmp_path / "blast" / name).write_bytes(b"x")
    (tmp_path / "blast" / "notes.txt").write_text("hello")
    (tmp_path / "stray.png").write_bytes(encoded(picture(0), ".png"))
    (tmp_path / ".cache").mkdir()
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ("blast", "ring")
    assert len(dataset) == 6
    assert {(problem.name, problem.finding) for problem in dataset.problems} == {
        ("zzz_empty", "empty_class_folder"),
        ("blast/patient1", "nested_folder"),
        ("blast/notes.txt", "not_an_image"),
        ("stray.png", "no_label"),
    }
    assert {problem.action for problem in dataset.problems} == {"excluded"}


def test_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path)
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match="none of 6 files"):
        load_dataset(tmp_path, image_size_px=8)


def test_broken_files_in_a_folder_are_excluded_with_a_note(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "blast" / "9.jpg").write_bytes(encoded(picture(0), ".jpg")[:-400])
    (tmp_path / "ring" / "9.png").write_bytes(b"")
    (tmp_path / "ring" / "8.png").write_bytes(encoded(picture(0)[:, :, 0], ".png"))
    dataset = load_dataset(tmp_path)
    assert len(dataset) == 7
    assert {(problem.name, problem.finding, problem.action) for problem in dataset.problems} == {
        ("blast/9.jpg", "truncated", "excluded"),
        ("ring/9.png", "unreadable", "excluded"),
        ("ring/8.png", "grey", "converted"),
    }
    assert dataset.labels[dataset.names == "ring/8.png"].tolist() == [1]


# ---- arrays


@pytest.mark.parametrize("shape", [(16,), (16, 1)])
def test_npz_of_the_competition(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = images_of(16)
    labels = np.arange(16) % 8
    dataset = load_dataset(save(tmp_path / "c.npz", images=images, labels=labels.reshape(shape).astype(np.uint8)))
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.labels.dtype == np.int64
    assert dataset.class_names == tuple(f"class_{label}" for label in range(8)), "the data do not say what they are"
    assert dataset.names[3] == "images/00003"


def test_npz_with_all_columns_and_other_dtypes(tmp_path: Path) -> None:
    images = images_of(4)
    dataset = load_dataset(
        save(
            tmp_path / "c.npz",
            images=images.astype(np.float32),
            labels=np.array([0.0, 1, 0, 1]),
            class_names=np.array(["x", "y"]),
            names=np.array([b"a", b"b", b"c", b"d"]),
            groups=np.array([7, 7, 8, 9]),
            sites=np.array(["L", "L", "M", "M"]),
        ),
        image_size_px=4,
    )
    assert dataset.images.shape == (4, 4, 4, 3)
    assert dataset.class_names == ("x", "y")
    assert dataset.names.tolist() == list("abcd")
    assert dataset.groups.tolist() == ["7", "7", "8", "9"]
    assert dataset.sites.tolist() == ["L", "L", "M", "M"]


def test_npz_with_three_unnamed_classes_and_with_words(tmp_path: Path) -> None:
    assert load_dataset(save(tmp_path / "a.npz", images=images_of(6), labels=np.arange(6) % 3)).class_names == (
        "class_0",
        "class_1",
        "class_2",
    )
    named = load_dataset(save(tmp_path / "b.npz", images=images_of(4), labels=np.array(["ring", "blast"] * 2)))
    assert named.class_names == ("blast", "ring")
    assert named.labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("is_grey", [False, True])
def test_medmnist_keeps_its_splits(tmp_path: Path, side: int, is_grey: bool) -> None:
    arrays = {}
    for split, count in (("train", 16), ("val", 8), ("test", 8)):
        images = images_of(count, side)
        arrays[f"{split}_images"] = images[..., 0] if is_grey else images
        arrays[f"{split}_labels"] = (np.arange(count) % 8)[:, np.newaxis].astype(np.uint8)
    dataset = load_dataset(save(tmp_path / "bloodmnist.npz", **arrays))
    assert dataset.images.shape == (32, side, side, 3)
    assert [dataset.predefined_splits.tolist().count(split) for split in ("train", "validation", "test")] == [16, 8, 8]
    assert dataset.names[[0, 16, 24]].tolist() == ["train/00000", "validation/00000", "test/00000"]
    assert dataset.class_names == COMPETITION_CLASSES
    if is_grey:
        np.testing.assert_array_equal(dataset.images[:16, :, :, 2], arrays["train_images"])


def _arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": images_of(4), "labels": np.array([0, 1, 0, 1]), **changes}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3), "y": np.zeros(3)}, "expected arrays images and labels.*found x, y"),
        (_arrays(images=images_of(4) / 255.0), r"got float64 from 0 to 1.*images \* 255"),
        (_arrays(images=np.zeros((4, 8, 8, 3))), "got float64 from 0 to 0.*fractions of full brightness"),
        (_arrays(images=images_of(4) - 127.5), "got float64 from -127.5 to 127.5. Undo the scaling"),
        (_arrays(images=images_of(4) * 0.5), "expected whole pixel values"),
        (_arrays(images=images_of(4).astype(int) * 2), "got int64 from 0 to 510"),
        (_arrays(images=np.full((4, 8, 8, 3), np.nan)), "not finite"),
        (_arrays(images=images_of(4) > 5), "got bool"),
        (_arrays(images=images_of(4).transpose(0, 3, 1, 2)), r"save images.transpose\(0, 2, 3, 1\)"),
        (_arrays(images=np.zeros((4, 8, 8, 4), np.uint8)), "Drop the alpha channel"),
        (_arrays(images=np.zeros((4, 64), np.uint8)), r"got \(4, 64\)"),
        (_arrays(images=np.zeros((0, 8, 8, 3), np.uint8), labels=np.zeros(0, int)), "at least one image"),
        (_arrays(labels=np.array([0, 1, 0])), "one label for each of the 4 images, got 3 labels"),
        (_arrays(labels=np.array([0, 1, 0, -1])), "got -1 at index 3"),
        (_arrays(labels=np.array([0, 1, 0, 0.5])), "expected whole numbers, got 0.5 at index 3"),
        (_arrays(labels=np.array([0, 1, 0, np.nan])), "got nan at index 3"),
        (_arrays(labels=np.array([1, 2, 1, 2])), "no image has label 0. Do they count from 1"),
        (_arrays(labels=np.array([0, 2, 0, 2])), "no image has label 1. Renumber"),
        (_arrays(labels=np.eye(4, dtype=int)), r"got \(4, 4\). One column per class"),
        (_arrays(labels=np.zeros(4, int)), r"at least two classes, got only \['class_0'\]"),
        (_arrays(labels=np.array([0, 0, 0, 1])), r"too few of class_1 \(1\)"),
        (
            _arrays(class_names=np.array(["a"]), labels=np.array([0, 1, 0, 1])),
            r"labels in 0..0 for 1 class names, got 1",
        ),
        (_arrays(class_names=np.array(["a", "a"])), "differ"),
        (_arrays(class_names=np.array(["a", "b", "c"])), r"too few of c \(0\)"),
        (_arrays(names=np.array(["a", "b", "c", "c"])), r"occur twice: \['c'\]"),
        (_arrays(names=np.array(["a"])), "one value for each of the 4 images"),
        (_arrays(groups=np.array([0.5, 1, 2, 3])), "expected text or whole numbers, got float64"),
        (_arrays(labels=np.array(["a", "b", "a", "z"]), class_names=np.array(["a", "b"])), r"got \['z'\]"),
    ],
)
def test_npz_errors(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(save(tmp_path / "c.npz", **arrays))


class _Trap:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("trap_was_sprung"),)  # type: ignore[return-value]


def test_object_arrays_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trapped = np.array([_Trap()], dtype=object)
    save(tmp_path / "c.npz", images=trapped, labels=np.array([0, 1]))
    with pytest.raises(DataError, match="never unpickled"):
        load_dataset(tmp_path / "c.npz")
    np.save(tmp_path / "c.npy", trapped)
    with pytest.raises(DataError, match="never unpickled"):
        load_images(tmp_path / "c.npy", 8)
    assert not (tmp_path / "trap_was_sprung").exists()


def test_damaged_archives(tmp_path: Path) -> None:
    path = save(tmp_path / "c.npz", **_arrays())
    data = bytearray(path.read_bytes())
    (tmp_path / "half.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    data[len(data) // 3] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(data)
    for name in ("half", "text", "empty", "flipped"):
        with pytest.raises(DataError, match="damaged"):
            load_dataset(tmp_path / f"{name}.npz")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("images.npy", b"not an array")
        archive.writestr("labels.npy", b"not an array")
    with pytest.raises(DataError, match=r"zip.npz: images: "):
        load_dataset(tmp_path / "zip.npz")


def test_array_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "c.npz", **_arrays(images=np.zeros((4, 600, 600, 3), np.uint8)))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr("bloodauto.data.arrays.available_memory_bytes", lambda: 1_000_000)
    with pytest.raises(DataError, match="GiB of memory are free"):
        load_dataset(path)


def test_synonyms_of_the_array_sites_are_read(tmp_path: Path) -> None:
    for name in ("labs", "laboratories"):
        arrays = _arrays(**{name: np.array(["berlin", "berlin", "lyon", "lyon"])})
        assert load_dataset(save(tmp_path / f"{name}.npz", **arrays)).sites.tolist() == ["berlin"] * 2 + ["lyon"] * 2
    both = _arrays(labs=np.array(["a"] * 4), sites=np.array(["b"] * 4))
    with pytest.raises(DataError, match="one of 'sites' and its synonym 'labs', found both"):
        load_dataset(save(tmp_path / "both.npz", **both))


# ---- wrong paths


def test_missing_path_names_the_nearest(tmp_path: Path) -> None:
    save(tmp_path / "cells.npz", **_arrays())
    with pytest.raises(DataError, match=r"found nothing there. Did you mean .*cells.npz\?"):
        load_dataset(tmp_path / "cell.npz")
    with pytest.raises(DataError, match="found nothing there"):
        load_dataset(tmp_path / "no" / "such" / "thing")


def test_unusable_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected one folder per class.*found no images"):
        load_dataset(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(picture(0), ".png"))
    with pytest.raises(DataError, match="found 1 images that lie directly in it"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match=r"got '.png'"):
        load_dataset(tmp_path / "a.png")
    write_class_folders(tmp_path / "single", ("blast",))
    with pytest.raises(DataError, match=r"at least two classes, got only \['blast'\]"):
        load_dataset(tmp_path / "single")
    with pytest.raises(DataError, match="image_size_px: expected at least 1, got 0"):
        load_dataset(tmp_path / "single", image_size_px=0)
    assert DataError.exit_code == 2


def test_class_whose_files_are_all_broken_is_an_error(tmp_path: Path) -> None:
    write_class_folders(tmp_path, ("a", "b", "c"))
    for file in (tmp_path / "c").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"too few of c \(0\). 3 files could not be used"):
        load_dataset(tmp_path)


# ---- images without labels


def test_unlabelled_folder_file_and_arrays(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "f")
    (tmp_path / "f" / "top.jpg").write_bytes(encoded(picture(9), ".jpg"))
    images, names = load_images(tmp_path / "f", 16)
    assert images.shape == (7, 16, 16, 3)
    assert names.tolist()[:2] == ["blast/0.png", "blast/1.png"]
    assert names.tolist()[-1] == "top.jpg"
    single, name = load_images(tmp_path / "f" / "blast" / "0.png", 24)
    np.testing.assert_array_equal(single[0], picture(0))
    assert name.tolist() == ["0.png"]
    np.save(tmp_path / "a.npy", images)
    for path in (tmp_path / "a.npy", save(tmp_path / "a.npz", images=images)):
        again, names = load_images(path, 16)
        np.testing.assert_array_equal(again, images)
        assert names[-1] == "images/00006"


def test_unlabelled_errors_and_the_warning_for_lost_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none"):
        load_images(tmp_path, 16)
    with pytest.raises(DataError, match="found nothing there"):
        load_images(tmp_path / "x.png", 16)
    with pytest.raises(DataError, match="found labels"):
        load_images(save(tmp_path / "l.npz", labels=np.zeros(3)), 16)
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(DataError, match="none of 1 files can be read"):
        load_images(tmp_path, 16)
    (tmp_path / "good.png").write_bytes(encoded(picture(0), ".png"))
    with pytest.warns(UserWarning, match="1 of 2 files excluded: bad.png"):
        _, names = load_images(tmp_path, 16)
    assert names.tolist() == ["good.png"]


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.skipif(not PBC96.is_dir(), reason="the real cells are not beside the project")
def test_real_cells_load_whole() -> None:
    dataset: CellDataset = load_dataset(PBC96)
    assert dataset.class_names == COMPETITION_CLASSES
    assert len(dataset) == sum(1 for _ in PBC96.glob("*/*.jpg"))
    assert dataset.images.shape[1:] == (96, 96, 3)
    assert dataset.problems == ()
    # Stained smears: pinkish light background, so red is the brightest channel and blue not the darkest by far.
    assert dataset.images[..., 0].mean() > dataset.images[..., 1].mean()
