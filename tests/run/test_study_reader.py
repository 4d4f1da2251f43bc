from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import file_digest
from bloodauto.run.study_reader import (
    frozen_trials,
    mask_passwords,
    modification_stamp,
    open_storage,
    snapshot,
    sqlite_path,
    sqlite_url,
)


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM trials").fetchone()[0]


def test_a_snapshot_holds_what_is_committed_and_leaves_the_source_alone(own_run: RunDirectory, tmp_path: Path) -> None:
    before = file_digest(own_run.study), own_run.study.stat().st_mtime_ns
    snapshot(own_run.study, tmp_path / "copy.db")
    assert rows(tmp_path / "copy.db") == 30
    assert (file_digest(own_run.study), own_run.study.stat().st_mtime_ns) == before


def test_a_snapshot_beside_an_open_transaction_shows_the_state_before_it(own_run: RunDirectory, tmp_path: Path) -> None:
    with closing(sqlite3.connect(own_run.study, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trials")
        snapshot(own_run.study, tmp_path / "copy.db")
        writer.execute("COMMIT")
    assert rows(tmp_path / "copy.db") == 30
    snapshot(own_run.study, tmp_path / "copy.db")
    assert rows(tmp_path / "copy.db") == 0


def test_a_source_locked_for_good_is_given_up(own_run: RunDirectory, tmp_path: Path) -> None:
    with closing(sqlite3.connect(own_run.study, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(RunError, match="locked"):
            snapshot(own_run.study, tmp_path / "copy.db", timeout_seconds=0.3)
        assert time.monotonic() - began < 5


def test_a_database_killed_in_a_commit_is_rolled_back_in_the_copy_only(own_run: RunDirectory, tmp_path: Path) -> None:
    """A process dies with a spilled transaction: pages of it are in the file, the old ones in the journal."""
    program = """
        import os, sqlite3, sys
        writer = sqlite3.connect(sys.argv[1], isolation_level=None)
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("PRAGMA cache_spill = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE ballast (text TEXT)")
        writer.execute("DELETE FROM trials")
        writer.executemany("INSERT INTO ballast VALUES (?)", [("x" * 3000,)] * 300)
        os._exit(9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(own_run.study)], check=False, timeout=30)
    journal = own_run.study.with_name("study.db-journal")
    assert journal.is_file()
    assert own_run.study.stat().st_size > 900_000
    before = file_digest(own_run.study), file_digest(journal)
    snapshot(own_run.study, tmp_path / "copy.db")
    assert rows(tmp_path / "copy.db") == 30
    assert (file_digest(own_run.study), file_digest(journal)) == before


def test_write_ahead_logs_are_read(own_run: RunDirectory, tmp_path: Path) -> None:
    with closing(sqlite3.connect(own_run.study)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        mark = modification_stamp(own_run.study)
        writer.execute("UPDATE studies SET study_name = 'renamed'")
        writer.commit()
        assert modification_stamp(own_run.study) != mark
        snapshot(own_run.study, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("SELECT study_name FROM studies").fetchone() == ("renamed",)


def test_what_is_no_database_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="found nothing there"):
        snapshot(tmp_path / "study.db", tmp_path / "copy.db")
    (tmp_path / "study.db").write_text("no database at all, but long enough to have a header" * 50)
    with pytest.raises(RunError, match="expected a SQLite database"):
        snapshot(tmp_path / "study.db", tmp_path / "copy.db")


def test_paths_with_marks_of_their_own_meaning(own_run: RunDirectory, tmp_path: Path) -> None:
    strange = tmp_path / "a?b#c%20d"
    strange.mkdir()
    shutil.copy(own_run.study, strange / "study.db")
    snapshot(strange / "study.db", tmp_path / "copy.db")
    assert rows(tmp_path / "copy.db") == 30


def test_an_empty_file_is_no_study_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "study.db"
    source.touch()
    with pytest.raises(RunError, match=r"study\.db: expected a SQLite database with the study, got an empty one"):
        snapshot(source, tmp_path / "copy.db")


def test_a_writer_is_never_locked_out_by_snapshots(tmp_path: Path) -> None:
    """Copies follow each other without a pause; a writer that gives up after two seconds never has to."""
    path = tmp_path / "study.db"
    program = """
        import sys, time
        sys.path[:0] = sys.argv[2:]
        from pathlib import Path
        from bloodauto.run.study_reader import snapshot
        until = time.monotonic() + 2
        done = 0
        while time.monotonic() < until:
            snapshot(Path(sys.argv[1]), Path(sys.argv[1] + ".copy"))
            done += 1
        print(done)
    """
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 2.0}})
    study = optuna.create_study(storage=storage, study_name="bloodauto", direction="maximize")
    reader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(path), *sys.path], stdout=subprocess.PIPE, text=True
    )
    written = 0
    while reader.poll() is None:
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        trial.report(0.5, 1)
        study.tell(trial, 0.5)
        written += 1
    assert reader.stdout is not None
    assert int(reader.stdout.read()) > 10
    assert written >= 5
    assert len(study.get_trials()) == written
    storage.engine.dispose()


def test_trials_of_a_database_that_is_no_study(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(RunError, match="expected an Optuna study"):
        open_storage(f"sqlite:///{tmp_path / 'empty.db'}")
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("other",)], "opening must not make Optuna's tables"


def test_frozen_trials_come_by_number(own_run: RunDirectory, tmp_path: Path) -> None:
    shutil.copy(own_run.study, tmp_path / "copy.db")
    assert [trial.number for trial in frozen_trials(f"sqlite:///{tmp_path / 'copy.db'}", "bloodauto")] == list(
        range(30)
    )


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://ada:pw@host:5432/db", "postgresql://ada:***@host:5432/db"),
        ("postgresql+psycopg://ada:p%40w@host/db", "postgresql+psycopg://ada:***@host/db"),
        ("postgresql://ada@host/db", "postgresql://ada@host/db"),
        ("see https://host/a:b@c", "see https://host/a:b@c"),
    ],
)
def test_passwords_are_masked(text: str, masked: str) -> None:
    assert mask_passwords(text) == masked


def test_sqlite_urls_are_told_from_others(tmp_path: Path) -> None:
    assert sqlite_path("sqlite:///runs.db", tmp_path) == tmp_path / "runs.db"
    assert sqlite_path("sqlite:////data/runs.db", tmp_path) == Path("/data/runs.db")
    assert sqlite_path("postgresql://host/db", tmp_path) is None
    with pytest.raises(RunError, match="the setting storage: expected a database URL"):
        sqlite_path("not a url", tmp_path)


@pytest.mark.parametrize(
    "name", ["which stain?", "acc 98%25", "try [v2]", "my #first run", "a{b}&c=d", "Zürich", "a?mode=memory"]
)
def test_a_study_lies_where_its_run_does_whatever_the_runs_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "study.db"
    path.parent.mkdir()
    optuna.create_study(storage=sqlite_url(path), study_name="bloodauto")
    assert path.is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert frozen_trials(sqlite_url(path), "bloodauto") == []
