"""The study in a real PostgreSQL server, which tests start for themselves where Debian's package is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bloodauto.config.settings import SearchSettings, resolve_settings
from bloodauto.errors import RunError
from bloodauto.report.dashboard import serve_dashboard
from bloodauto.report.read import read_run
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_text
from bloodauto.run.yaml_files import dump_yaml
from bloodauto.testing.simulated_search import Search
from bloodauto.workflows.session import open_study

try:
    import psycopg
except ImportError:
    psycopg = None

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
#: The server refuses to run for root.
SERVER_USER = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}

pytestmark = [
    pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed (Debian: postgresql)"),
    pytest.mark.skipif(psycopg is None, reason="psycopg is not installed (pip install 'bloodauto[postgresql]')"),
]


def program(name: str, *arguments: object) -> None:
    done = subprocess.run(
        [PROGRAMS[-1] / name, *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=name != "pg_ctl", text=True, timeout=120, check=False, cwd="/",
        **SERVER_USER,
    )  # fmt: skip
    assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """The folder of the socket of a server with an empty database ``postgres``, which listens to nothing else."""
    folder = Path(tempfile.mkdtemp(prefix="bloodauto-postgresql-", dir="/tmp"))
    try:
        if SERVER_USER:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        program("initdb", "--pgdata", data, "--username", "searcher", "--auth", "trust", "--no-sync")
        settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        program("pg_ctl", "--pgdata", data, "--wait", "--log", folder / "log", "--options", settings, "start")
        try:
            yield folder
        finally:
            program("pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server: Path) -> str:
    return f"postgresql+psycopg://searcher:secret@/postgres?host={server}"


@dataclass
class Stored(Search):
    """A search whose study is opened anew for every session, as a search does."""

    run: RunDirectory | None = None
    asked: SearchSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.run is not None
        assert self.asked is not None
        self.study = open_study(self.run, self.asked)

    def session(self, **how: Any) -> Any:
        assert self.run is not None
        assert self.asked is not None
        self.study = open_study(self.run, self.asked)
        return super().session(**how)


def stored(root: Path, url: str) -> Stored:
    run = RunDirectory(root)
    root.mkdir(parents=True)
    asked = resolve_settings({"budget": "40cpu-min", "storage": url})
    write_text(run.settings, dump_yaml({"storage": url}))
    return Stored(root, budget_device_seconds=1500.0, run=run, asked=asked).with_settings(workers=1, max_trials=6)


def parameters(search: Search) -> list[dict[str, object]]:
    return [trial.params for trial in search.study.get_trials(deepcopy=False)]


def test_a_killed_search_resumes_from_the_server_study(url: str, tmp_path: Path) -> None:
    whole, parts = stored(tmp_path / "whole", url), stored(tmp_path / "parts", url)
    whole.session()
    assert parts.session(stop_at=100.0, kill=True).interrupted
    assert [trial.state.name for trial in parts.study.get_trials(deepcopy=False)].count("RUNNING") == 1
    parts.session()
    assert parameters(parts) == parameters(whole)
    assert parts.outcomes() == whole.outcomes()
    assert len(parts.outcomes()) >= 6


def test_runs_on_one_server_are_separate_and_each_is_reported(url: str, tmp_path: Path) -> None:
    first, second = stored(tmp_path / "first", url), stored(tmp_path / "second", url)
    first.session()
    assert second.study.get_trials(deepcopy=False) == []
    for search in (first, second):
        told = read_run(search.folder).trials
        assert [trial.number for trial in told] == [one.number for one in search.study.get_trials(deepcopy=False)]
    shown = serve_dashboard(first.folder, port=0, once=True)
    assert shown is not None
    assert shown.trials == len(first.study.get_trials(deepcopy=False))


def test_storage_errors_hide_the_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunError) as said:
        stored(tmp_path / "run", url.replace("/postgres?", "/nowhere?"))
    assert "nowhere" in str(said.value)
    assert "--storage postgresql+psycopg://searcher:***@" in str(said.value)
    assert "secret" not in str(said.value)
