"""Atomic writes of text and arrays, and strict reads of arrays."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bloodauto.errors import UserError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder that replaces ``path`` when the block ends without an error.

    A reader sees the old file or the new one, never a part; after a crash no half-written file lies at ``path``. A symbolic
    link stays a link: what it points to is replaced. A pipe or a device receives the finished bytes.

    Args:
        path: The file.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
            finished = Path(folder) / f"file{path.suffix}"
            finished.touch()
            yield finished
            with finished.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
        return
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp: its files are private, and a run directory is shared as any other is.
    temporary = path.with_name(f".{path.stem[:64]}-{secrets.token_hex(8)}{path.suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_output_file(path: Path, option: str = "--output") -> None:
    """Checks, before long work, that a file can be written; leaves nothing behind.

    Args:
        path: The file. Its folder may not exist yet.
        option: Names the path in the message.

    Raises:
        UserError: A folder stands there, its parent is no folder, or nothing can be created there.
    """
    if path.is_dir():
        raise UserError(f"{option} {path}: expected the name of a file, got a folder. Add a file name.")
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{option} {path}: expected a file that can be replaced, got: {os.strerror(errno.EACCES)}.")
    if path.exists() and not path.is_file():
        return
    _check_parent(path.resolve() if path.is_symlink() else path, option)


def check_output_folder(path: Path, option: str = "--output") -> None:
    """Checks, before long work, that files can be written to a folder; leaves nothing behind.

    Args:
        path: The folder. It may not exist yet.
        option: Names the path in the message.

    Raises:
        UserError: A file stands there, or nothing can be created there.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{option} {path}: expected the name of a folder, got a file. Take another name.")
    _check_parent(path / "file", option)


def _check_parent(path: Path, option: str) -> None:
    """Creates and removes a file in the nearest folder above ``path`` that exists: permissions alone do not tell."""
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise UserError(
            f"{option} {path}: expected a location that can be written to, got {parent}: {error.strerror}. Take another path."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes named arrays as one compressed ``.npz`` atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


#: What numpy raises for an archive that is damaged, cut short, or something else.
ARRAY_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)


def append_line(path: Path, line: str) -> None:
    """Appends one line of text and forces it to disk, so that what it records survives a kill right after.

    What an earlier kill left of a line is cut off, so that it does not spoil this one.
    """
    with path.open("a+b") as stream:
        size = stream.tell()
        if size > 0:
            stream.seek(size - 1)
            if stream.read() != b"\n":
                stream.truncate(path.read_bytes().rfind(b"\n") + 1)
        stream.write(line.rstrip("\n").encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
