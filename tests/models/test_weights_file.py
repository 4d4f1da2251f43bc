"""Files of weights are opened before anything relies on them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from bloodauto.errors import WeightsError
from bloodauto.models.weights_file import check_weights_file


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    path = tmp_path / "whole.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv/vars/0"] = np.zeros((64, 64), np.float32)
    return path


def test_a_whole_file_passes(weights_file: Path) -> None:
    assert check_weights_file(weights_file) == weights_file


def external_link(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["layers/conv/vars/1"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["layers/conv/vars/1"] = h5py.SoftLink("/layers")


def external_storage(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/conv/vars/1", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def git_lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:7\nsize 9\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (external_link, "refers to another file at /layers/conv/vars/1"),
        (soft_link, "refers to another file at /layers/conv/vars/1"),
        (external_storage, "refers to another file at /layers/conv/vars/1"),
        (cut_short, "could not open it"),
        (git_lfs_pointer, "got a Git LFS pointer"),
        (lambda path: path.write_text(""), "could not open it"),
        (lambda path: path.write_text("<html>404</html>"), "could not open it"),
    ],
)
def test_what_is_no_whole_file_of_its_own_weights_is_refused(weights_file: Path, damage, message: str) -> None:
    damage(weights_file)
    with pytest.raises(WeightsError, match=message):
        check_weights_file(weights_file)
