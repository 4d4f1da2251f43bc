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

import optuna
import pytest

from bloodauto.config.objectives import Objectives
from bloodauto.config.settings import resolve_settings, write_settings
from bloodauto.errors import RunError
from bloodauto.monitor.dashboard import serve_dashboard
from bloodauto.report.read import read_run
from bloodauto.run.directory import RunDirectory
from bloodauto.testing.simulated_search import SimulatedSearch, tiny_space
from bloodauto.tuning.executors.simulated import SimulatedSession
from bloodauto.tuning.study import StudyRecord

try:
    import psycopg
except ImportError:
    psycopg = None

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
#: The server refuses to run for root.
SERVER_USER: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}

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


OBJECTIVES = Objectives()


@dataclass
class ServerSearch(SimulatedSearch):
    """A search whose study is opened anew for every session, as a real search does."""

    def open_study(self) -> optuna.Study:
        run = RunDirectory(self.folder)
        StudyRecord.open(run, tiny_space(), OBJECTIVES, storage=self.storage)
        return optuna.load_study(study_name=run.study_name(self.storage), storage=self.storage)

    def session(self, *, stop_at: float | None = None, kill: bool = False) -> SimulatedSession:
        self.study = self.open_study()
        return super().session(stop_at=stop_at, kill=kill)


def server_search(root: Path, url: str) -> ServerSearch:
    root.mkdir(parents=True)
    settings = resolve_settings({"budget": "40cpu-min", "storage": url, "workers": 1})
    write_settings(RunDirectory(root), settings)
    search = ServerSearch(root, budget_device_seconds=2500.0, storage=url)
    return search.with_settings(workers=1, max_trials=6)


def parameters(search: SimulatedSearch) -> list[dict[str, object]]:
    return [trial.params for trial in search.study.get_trials(deepcopy=False)]


def test_a_killed_search_resumes_from_the_server_study(url: str, tmp_path: Path) -> None:
    uninterrupted, interrupted = (
        server_search(tmp_path / "uninterrupted", url),
        server_search(tmp_path / "interrupted", url),
    )
    uninterrupted.session()
    assert interrupted.session(stop_at=100.0, kill=True).interrupted
    assert [trial.state.name for trial in interrupted.study.get_trials(deepcopy=False)].count("RUNNING") == 1
    interrupted.session()
    assert parameters(interrupted) == parameters(uninterrupted)
    assert interrupted.outcomes() == uninterrupted.outcomes()
    assert len(interrupted.outcomes()) >= 6


def test_runs_on_one_server_are_separate_and_each_is_reported(url: str, tmp_path: Path) -> None:
    first, second = server_search(tmp_path / "first", url), server_search(tmp_path / "second", url)
    first.session()
    assert second.study.get_trials(deepcopy=False) == []
    for search in (first, second):
        numbers = [trial.number for trial in search.study.get_trials(deepcopy=False)]
        assert [trial.number for trial in read_run(search.folder).trials] == numbers
    summary = serve_dashboard(first.folder, port=0, once=True)
    assert summary is not None
    assert summary.trials == len(first.study.get_trials(deepcopy=False))


def test_storage_errors_hide_the_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        server_search(tmp_path / "run", url.replace("/postgres?", "/nowhere?"))
    assert "nowhere" in str(raised.value)
    assert "--storage postgresql+psycopg://searcher:***@" in str(raised.value)
    assert "secret" not in str(raised.value)
