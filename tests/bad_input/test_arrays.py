"""Arrays that cannot be used: ``.npz`` and ``.npy`` files as other programs, accidents and attackers write them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bad_input.refusal import refused

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), np.uint8)
LABELS = np.arange(12) % 3


def changed(**arrays: Any) -> dict[str, Any]:
    """A good file's arrays with other values for some; None leaves one out."""
    return {name: value for name, value in {"images": IMAGES, "labels": LABELS, **arrays}.items() if value is not None}


ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": (changed(labels=None), "expected arrays images and labels"),
    "no images": (changed(images=None), "expected arrays images and labels"),
    "nothing": ({}, "found nothing"),
    "keras style": ({"x_train": IMAGES, "y_train": LABELS}, "found x_train, y_train"),
    "fractions of one": (changed(images=(IMAGES / 255).astype(np.float32)), "(images * 255).round()"),
    "standardised": (changed(images=IMAGES / 64.0 - 2), "Undo the scaling"),
    "fractional pixels": (changed(images=IMAGES + 0.5 * (IMAGES < 255)), "whole pixel values"),
    "nan pixels": (changed(images=np.where(IMAGES == 3, np.nan, IMAGES)), "not finite"),
    "infinite pixels": (changed(images=np.where(IMAGES == 3, np.inf, IMAGES)), "not finite"),
    "sixteen bits": (changed(images=IMAGES.astype(np.uint16) * 257), "got uint16 from"),
    "signed bytes": (changed(images=IMAGES.astype(np.int8)), "got int8 from"),
    "complex pixels": (changed(images=IMAGES.astype(complex)), "got complex128"),
    "bool pixels": (changed(images=IMAGES > 9), "got bool"),
    "text pixels": (changed(images=IMAGES.astype(str)), "as uint8"),
    "dates for pixels": (changed(images=IMAGES.astype("datetime64[s]")), "got datetime64"),
    "channels first": (changed(images=IMAGES.transpose(0, 3, 1, 2)), "transpose(0, 2, 3, 1)"),
    "alpha": (changed(images=np.concatenate([IMAGES, IMAGES[..., :1]], 3)), "alpha channel"),
    "two channels": (changed(images=IMAGES[..., :2]), "(12, 20, 20, 2)"),
    "volumes": (changed(images=np.stack([IMAGES] * 2)), "expected images of shape"),
    "flat pixels": (changed(images=IMAGES.reshape(12, -1)), "expected images of shape"),
    "one number": (changed(images=np.array(7)), "expected images of shape"),
    "no image": (changed(images=IMAGES[:0], labels=LABELS[:0]), "at least one image"),
    "no pixels": (changed(images=IMAGES[:, :0]), "at least one pixel"),
    "too few labels": (changed(labels=LABELS[:-1]), "one label for each of the 12 images"),
    "too many labels": (changed(labels=np.append(LABELS, 1)), "got 13 labels"),
    "one-hot": (changed(labels=np.eye(3)[LABELS]), "labels.argmax(axis=1)"),
    "several labels": (changed(labels=np.ones((12, 5), int)), "Several labels for an image are not supported"),
    "labels in a volume": (changed(labels=LABELS.reshape(12, 1, 1)), "labels of shape"),
    "one label for all": (changed(labels=np.array(1)), "labels of shape"),
    "fractional labels": (changed(labels=LABELS + 0.5), "whole numbers, got 0.5"),
    "nan labels": (changed(labels=np.where(LABELS == 2, np.nan, LABELS)), "got nan"),
    "infinite labels": (changed(labels=np.where(LABELS == 2, np.inf, LABELS)), "got inf"),
    "negative labels": (changed(labels=LABELS - 1), "labels from 0 upwards, got -1"),
    "labels from one": (changed(labels=LABELS + 1), "Do they count from 1"),
    "a gap in the labels": (changed(labels=LABELS * 2), "no image has label 1"),
    "huge labels": (changed(labels=np.where(LABELS == 2, 2**62, LABELS)), "expected labels from 0 to"),
    "huge unsigned labels": (changed(labels=np.where(LABELS == 2, 2**64 - 1, LABELS).astype(np.uint64)), "from 0 to"),
    "huge float labels": (changed(labels=np.where(LABELS == 2, 1e300, LABELS)), "from 0 to"),
    "complex labels": (changed(labels=LABELS.astype(complex)), "got complex128"),
    "one class": (changed(labels=LABELS * 0), "at least two classes"),
    "a class of one image": (changed(labels=np.array([0] * 11 + [1])), "class_1 (1)"),
    "latin-1 labels": (changed(labels=np.array([b"a", b"b", b"\xf1"])[LABELS]), "text in UTF-8"),
    "empty label": (changed(labels=np.array(["a", "b", ""])[LABELS]), "not empty"),
    "latin-1 class names": (changed(class_names=np.array([b"a", b"b", b"\xf1"])), "text in UTF-8"),
    "too few class names": (changed(class_names=np.array(["a", "b"])), "labels in 0..1"),
    "repeated class names": (changed(class_names=np.array(["a", "b", "a"])), "class names that differ"),
    "empty class name": (changed(class_names=np.array(["a", "b", " "])), "class names that differ"),
    "a class without images": (changed(class_names=np.array(["a", "b", "c", "d"])), "d (0)"),
    "class names as fractions": (changed(class_names=np.array([0.5, 1, 2])), "class_names: expected text"),
    "too few names": (changed(names=np.array(["a", "b"])), "names: expected one value for each"),
    "repeated names": (changed(names=np.array(["a"] * 12)), "a different name for each image"),
    "groups as fractions": (changed(groups=LABELS / 2), "groups: expected text or whole numbers"),
    "groups in a table": (changed(groups=np.ones((12, 2), int)), "groups: expected one value"),
    "sites twice": (changed(sites=LABELS, labs=LABELS), "one of 'sites' and its synonym 'labs'"),
    "objects for images": (changed(images=np.array([*IMAGES, None], object)[:12]), "never unpickled"),
    "objects for labels": (changed(labels=np.array(["a", "b", "c"], object)[LABELS]), "never unpickled"),
    "records": (changed(labels=np.zeros(12, [("a", int), ("b", float)])), "expected whole numbers"),
    "medmnist, sizes": (
        {"train_images": IMAGES, "train_labels": LABELS, "val_images": IMAGES[:, :9, :9], "val_labels": LABELS},
        "one image size",
    ),
    "medmnist, half": ({"train_images": IMAGES, "val_labels": LABELS}, "expected arrays images and labels"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(tmp_path: Path, case: str) -> None:
    arrays, message = ARRAYS[case]
    np.savez(tmp_path / "c.npz", **arrays)
    ended = refused(tmp_path, "data", "inspect", "--data", tmp_path / "c.npz")
    assert message in ended.err
    assert "c.npz" in ended.err
    assert "expected" in ended.err


def stored(name: str, content: bytes, claimed_bytes: int | None = None) -> bytes:
    """A zip archive of one member beside good labels."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        labels = io.BytesIO()
        np.save(labels, LABELS)
        archive.writestr("labels.npy", labels.getvalue())
    return file.getvalue()


def npy(shape: str, dtype: str = "|u1", content: bytes = b"") -> bytes:
    """An ``.npy`` whose header claims a shape."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def good() -> bytes:
    file = io.BytesIO()
    np.savez(file, images=IMAGES, labels=LABELS)
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"no archive",
    "html": lambda: b"<html>404 not found</html>",
    "cut in half": lambda: good()[: len(good()) // 2],
    "end cut off": lambda: good()[:-10],
    "a flipped byte": lambda: good()[:3000] + bytes([good()[3000] ^ 0xFF]) + good()[3001:],
    "a plain npy": lambda: npy("(2, 2)", content=bytes(4)),
    "a header that promises a terabyte": lambda: stored("images.npy", npy("(12, 300000, 300000, 3)")),
    "a header that promises more than there is": lambda: stored("images.npy", npy("(12, 20, 20, 3)", content=bytes(9))),
    "a negative shape": lambda: stored("images.npy", npy("(-1, 20, 20, 3)", content=bytes(9))),
    "a shape that is code": lambda: stored("images.npy", npy("__import__('os').abort()")),
    "a broken header": lambda: stored("images.npy", b"\x93NUMPY\x01\x00\xff\xff{"),
    "a member that is no array": lambda: stored("images.npy", b"hello"),
    "a pickle": lambda: stored("images.npy", b"\x80\x04\x95\x00\x00\x00."),
    "a bomb of zeros": lambda: stored("images.npy", npy("(12, 40000, 40000, 3)", content=bytes(60_000_000))),
    "a path out of the archive": lambda: stored("../../images.npy", npy("(1,)", content=b"1")),
}


@pytest.mark.parametrize("case", FILES)
def test_archives(tmp_path: Path, case: str) -> None:
    (tmp_path / "c.npz").write_bytes(FILES[case]())
    ended = refused(tmp_path, "data", "inspect", "--data", tmp_path / "c.npz")
    assert "c.npz" in ended.err
    assert not (tmp_path.parent / "images.npy").exists()
