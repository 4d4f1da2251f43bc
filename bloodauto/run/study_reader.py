"""Reads the study of a run so that the search that writes it never waits.

SQLite allows one writer, and a reader that holds its lock makes that writer wait or fail. So nothing here reads the live
file at leisure, writes to it, or lets Optuna open it (Optuna creates tables and checks versions when it opens a database):
the committed state is copied in one step and the copy is read.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bloodauto.errors import RunError

_JOURNAL_SUFFIXES = ("-journal", "-wal")
#: SQLite's own waits are short: the copying loop waits instead, and can be stopped.
_SQLITE_WAIT_SECONDS = 0.05


def snapshot(source: Path, target: Path, *, timeout_seconds: float = 20.0) -> None:
    """Copies the committed state of a SQLite file, into a file that readers may have open.

    ``source`` is opened read-only and locked (shared, so that other readers are not delayed) only while its pages are copied.
    A database that was killed in the middle of a commit has a journal to be rolled back, which a read-only connection cannot
    do; that happens in a private copy instead.

    Args:
        source: the database.
        target: the copy.
        timeout_seconds: how long to wait for a lock.

    Raises:
        RunError: absent, empty, no SQLite database, or locked for ``timeout_seconds``.
    """
    if not source.is_file():
        raise RunError(f"{source}: expected the study's SQLite file, found nothing there. Has the search begun?")
    try:
        try:
            _backup(source, target, timeout_seconds)
        except sqlite3.OperationalError:
            with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
                copy = Path(folder) / source.name
                shutil.copyfile(source, copy)
                for suffix in _JOURNAL_SUFFIXES:
                    journal = source.with_name(source.name + suffix)
                    if journal.is_file():
                        shutil.copyfile(journal, copy.with_name(copy.name + suffix))
                _backup(copy, target, timeout_seconds, mode="rw")
        with closing(sqlite3.connect(target)) as copied:
            (tables,) = copied.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.Error, OSError) as error:
        raise RunError(
            f"{source}: expected a SQLite database, could not read it ({error}). "
            "If the disk is sound, start a new run; the trials' own directories are still readable."
        ) from error
    if tables == 0:
        raise RunError(
            f"{source}: expected a SQLite database with the study, got an empty one. If the search has not just begun, "
            "start a new run; the trials' own directories are still readable."
        )


def _backup(source: Path, target: Path, timeout_seconds: float, mode: str = "ro") -> None:
    deadline = time.monotonic() + timeout_seconds

    def stop_when_late(status: int, _remaining: int, _total: int) -> None:
        # Without this the backup of a source that stays locked would be tried again for ever.
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > deadline:
            raise RunError(f"{source}: still locked after {timeout_seconds:.0f} s by the process that writes it.")

    uri = f"{source.resolve().as_uri()}?mode={mode}"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=_SQLITE_WAIT_SECONDS)) as reading,
        closing(sqlite3.connect(target, timeout=_SQLITE_WAIT_SECONDS)) as writing,
    ):
        reading.backup(writing, progress=stop_when_late, sleep=_SQLITE_WAIT_SECONDS)


def modification_stamp(source: Path) -> tuple[tuple[int, int], ...]:
    """Size and time of a database and its journals: differs after every commit, and needs no lock.

    Args:
        source: the SQLite file.

    Returns:
        (bytes, nanoseconds) of each file; zeros for one that is absent.
    """
    stamps = []
    for path in (source, *(source.with_name(source.name + suffix) for suffix in _JOURNAL_SUFFIXES)):
        try:
            state = path.stat()
            stamps.append((state.st_size, state.st_mtime_ns))
        except FileNotFoundError:
            stamps.append((0, 0))
    return tuple(stamps)


def sqlite_path(storage_url: str, root: Path) -> Path | None:
    """The file of a ``sqlite:///...`` URL; None for any other storage.

    Args:
        storage_url: of an Optuna storage.
        root: the run directory, to which a relative path is relative.

    Raises:
        RunError: it is no database URL.

    Example:
        >>> sqlite_path("sqlite:///other.db", Path("runs/first")).as_posix()
        'runs/first/other.db'
    """
    try:
        url = make_url(storage_url)
    except ArgumentError as error:
        raise RunError(
            "the setting storage: expected a database URL such as postgresql://user@host/name, "
            f"got {mask_passwords(storage_url)!r}."
        ) from error
    return root / url.database if url.get_backend_name() == "sqlite" and url.database else None


def sqlite_url(path: Path) -> str:
    """The database URL of a file, whatever characters its path has.

    Args:
        path: Of the SQLite file.

    Example:
        >>> make_url(sqlite_url(Path("/runs/first/study.db"))).database
        'file:/runs/first/study.db'
    """
    # SQLite decodes the path of a file: URI; SQLAlchemy and Optuna, which read ?, % and {} otherwise, pass it on as it is.
    database = f"file:{quote(os.fsencode(path.resolve()))}"
    return URL.create("sqlite", database=database, query={"uri": "true"}).render_as_string(hide_password=False)


def mask_passwords(text: str) -> str:
    """Replaces the password in every URL of a text, and whatever a URL's query calls a password or a token.

    Example:
        >>> mask_passwords("postgresql://ada:secret@host/studies")
        'postgresql://ada:***@host/studies'
    """
    # Up to the last @: a password that was not quoted may hold one, or a slash.
    masked = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&](?:password|passwd|pwd|token|secret)=)[^&\s]*", r"\1***", masked, flags=re.IGNORECASE)


def has_password(url: str) -> bool:
    """Whether a URL holds what ``mask_passwords`` replaces.

    Example:
        >>> has_password("postgresql://ada@host/studies"), has_password("postgresql://ada:secret@host/studies")
        (False, True)
    """
    return mask_passwords(url) != url


def open_storage(url: str, make: Callable[..., RDBStorage] = RDBStorage) -> RDBStorage:
    """Opens an existing Optuna database without creating tables in it.

    Args:
        url: of the database.
        make: the class of the storage.

    Raises:
        RunError: no driver for it, unreachable, or of another Optuna version.
    """
    try:
        return make(url, skip_table_creation=True)
    except (ImportError, SQLAlchemyError, OptunaError, RuntimeError) as error:
        raise RunError(
            f"{mask_passwords(url)}: expected an Optuna study there, could not open it "
            f"({mask_passwords(str(error)).splitlines()[0]}). Is the server reachable, and is its driver installed "
            "(pip install 'bloodauto[postgresql]')?"
        ) from error


def frozen_trials(url: str, name: str) -> Sequence[FrozenTrial]:
    """All trials of a study, by number.

    Args:
        url: of the database.
        name: of the study; see ``RunDirectory.study_name``.

    Raises:
        RunError: the database cannot be opened or read, or holds no such study.
    """
    storage = open_storage(url)
    try:
        study_id = storage.get_study_id_from_name(name)
        return sorted(storage.get_all_trials(study_id, deepcopy=True), key=lambda trial: trial.number)
    except KeyError as error:
        raise RunError(f"expected a study named {name!r} in the database, found none of that name.") from error
    except (SQLAlchemyError, OptunaError, ValueError) as error:
        raise RunError(f"the study could not be read ({mask_passwords(str(error)).splitlines()[0]}).") from error
    finally:
        storage.remove_session()
        storage.engine.dispose()
