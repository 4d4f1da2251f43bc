"""Readers of what users bring, fed with anything: they read it or raise an error of the user's, and never another one."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import load_space
from bloodauto.data.decode import decode_image
from bloodauto.data.load import load_dataset, load_images
from bloodauto.errors import UserError
from bloodauto.run.yaml_files import read_yaml
from tests.data.image_files import encoded, picture, write_class_folders

SPACE = (shipped_folder("search_spaces") / "tiny.yaml").read_text()
FUZZED = settings(
    max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        write_class_folders(Path(name))
        yield Path(name)


def check_message(error: UserError, part: str) -> None:
    assert part in str(error)


def check_labelled(path: Path) -> None:
    try:
        dataset = load_dataset(path)
    except UserError as error:
        check_message(error, "expected")
        return
    assert len(dataset.labels) == len(dataset) >= 4
    assert dataset.images.dtype == np.uint8


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@FUZZED
@given(
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | YAML_VALUES.map(lambda value: repr(value).encode())
)
def test_yaml_is_read_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "any.yaml"
    path.write_bytes(content)
    try:
        read_yaml(path)
    except UserError as error:
        check_message(error, str(path))


@FUZZED
@given(line=st.integers(0, len(SPACE.splitlines()) - 1), text=st.text(max_size=30), keep=st.integers(0, 30))
def test_a_space_with_any_line_changed_is_read_or_refused(folder: Path, line: int, text: str, keep: int) -> None:
    lines = SPACE.splitlines()
    lines[line] = lines[line][:keep] + text
    path = folder / "space.yaml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        load_space(path)
    except UserError as error:
        check_message(error, str(path))


CELLS = st.sampled_from(
    ["blast/0.png", "ring/1.png", "nowhere.png", "", "a", "b", "0", "1", "99999999999999999999", '"', "\x00"]
)


@FUZZED
@given(
    header=st.lists(st.sampled_from(["path", "label", "site", "lab", "group", "split", "x", ""]), max_size=5),
    rows=st.lists(st.lists(CELLS | st.text(max_size=6), max_size=5), max_size=6),
    mark=st.sampled_from([",", ";", "\t"]),
)
def test_manifests_are_read_or_refused(folder: Path, header: list[str], rows: list[list[str]], mark: str) -> None:
    path = folder / "any.csv"
    text = "\n".join(mark.join(row) for row in (header, *rows))
    path.write_text(text, encoding="utf-8", errors="replace")
    check_labelled(path)


ARRAYS = npst.arrays(
    st.sampled_from(
        [np.dtype(kind) for kind in ("u1", "i1", "u2", "i8", "u8", "f2", "f8", "c16", "?", "S3", "U3", "M8[s]")]
    ),
    npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


@FUZZED
@given(
    images=ARRAYS,
    labels=ARRAYS,
    other=ARRAYS,
    name=st.sampled_from(["class_names", "names", "groups", "sites", "labs", "x"]),
)
def test_archives_are_read_or_refused(
    folder: Path, images: np.ndarray, labels: np.ndarray, other: np.ndarray, name: str
) -> None:
    path = folder / "any.npz"
    arrays: dict[str, Any] = {"images": images, "labels": labels, name: other}
    np.savez(path, **arrays)
    check_labelled(path)


@FUZZED
@given(
    labels=npst.arrays(st.sampled_from([np.dtype("i8"), np.dtype("f8"), np.dtype("U2"), np.dtype("S2")]), 8),
    other=ARRAYS,
)
def test_any_labels_of_good_images_are_read_or_refused(folder: Path, labels: np.ndarray, other: np.ndarray) -> None:
    path = folder / "labels.npz"
    np.savez(path, images=np.zeros((8, 20, 20, 3), np.uint8), labels=labels, class_names=other)
    check_labelled(path)


def _good_archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4) % 2)
    return file.getvalue()


@FUZZED
@given(position=st.integers(0, len(_good_archive()) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_archive_is_read_or_refused(folder: Path, position: int, byte: int, cut: bool) -> None:
    content = _good_archive()
    damaged = content[:position] if cut else content[:position] + bytes([byte]) + content[position + 1 :]
    path = folder / "damaged.npz"
    path.write_bytes(damaged)
    check_labelled(path)


@FUZZED
@given(
    suffix=st.sampled_from([".png", ".jpg", ".tif", ".bmp"]),
    position=st.integers(0, 3000),
    bytes_=st.binary(max_size=8),
)
def test_damaged_images_are_decoded_or_noted(suffix: str, position: int, bytes_: bytes) -> None:
    content = encoded(picture(0), suffix)
    position %= len(content)
    decoded = decode_image(content[:position] + bytes_ + content[position + len(bytes_) :], "a", 16)
    assert (decoded.image is not None) or decoded.problems[0].action == "excluded"


@FUZZED
@given(array=ARRAYS, stored=st.sampled_from([".npy", ".npz", ".png"]))
def test_images_to_predict_are_read_or_refused(folder: Path, array: np.ndarray, stored: str) -> None:
    path = folder / f"predict{stored}"
    if stored == ".npz":
        with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w") as stream:
            np.save(stream, array)
    else:
        with path.open("wb") as stream:
            np.save(stream, array)
    try:
        images, names = load_images(path, 16)
    except UserError as error:
        check_message(error, "predict")
        return
    assert images.shape == (len(names), 16, 16, 3)
