"""Atomic writes and strict reads of text, JSON and arrays."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bloodauto.errors import RunError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder that replaces ``path`` when the block ends without an error.

    A reader sees the old file or the new one, never a part; after a crash no half-written file lies at ``path``.
    """
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


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; a value that is not finite is an error, since JSON has no word for it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        RunError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path}: expected JSON, got something else ({error}). Restore the file or start a new run."
        ) from None


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
