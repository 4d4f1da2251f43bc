"""Optuna's dashboard on a run, beside a running search.

The dashboard opens its database for writing: it makes tables, and every note, rename or deletion in the browser is a
write. Two writers on one SQLite file lock each other out, which has ended searches. So it is given a private copy of the
study, renewed from the search's file when that has changed, and requests that would write are refused: they would be
lost with the next renewal. A database server has no such trouble and is served directly, read-only all the same. Notes,
pictures and constraints come from the run's files (``annotations``), not from the study.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import signal
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna_dashboard import wsgi

from bloodauto.config.settings import read_settings
from bloodauto.errors import RunError
from bloodauto.monitor.annotations import AnnotatedStorage, Annotations
from bloodauto.report.read import require_run
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_reader import (
    mask_passwords,
    modification_stamp,
    open_storage,
    snapshot,
    sqlite_path,
    sqlite_url,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_LOG = logging.getLogger(__name__)

HOST = "127.0.0.1"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class DashboardCheck:
    """What ``once`` saw: where, the trials the dashboard's API tells of, and bytes of the program it loads."""

    url: str
    trials: int
    script_bytes: int


def serve_dashboard(
    root: Path,
    port: int,
    *,
    once: bool = False,
    refresh_seconds: float = 2.0,
    announce: Callable[[str], None] = _LOG.info,
) -> DashboardCheck | None:
    """Serves the dashboard of a run on ``http://127.0.0.1:port`` until interrupted (Ctrl-C, SIGTERM).

    Args:
        root: the run; its search may be running.
        port: 0 takes any free one.
        once: asks for the page, its script and the study's API over HTTP, checks the answers and returns.
        refresh_seconds: how old the copy of the study may be; it is renewed only when the study has changed. The
            dashboard itself keeps trials for another 2 to 10 seconds, the longer the more there are.
        announce: is told, in a sentence, where the dashboard is and what it shows.

    Raises:
        RunError: no run, no study yet, port taken (the message names a free one), or a check of ``once`` failed.
    """
    require_run(Path(root))
    with _application(Path(root), refresh_seconds) as (application, shown), _server(application, port) as server:
        url = f"http://{HOST}:{server.server_port}"
        announce(f"Dashboard: {url} ({shown})")
        if once:
            with _in_background(server):
                run = RunDirectory(Path(root))
                return _check(url, run.study_name(_storage_url(run)))
        with _sigterm_as_interrupt(), contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
    return None


@contextlib.contextmanager
def _application(root: Path, refresh_seconds: float) -> Iterator[tuple[WSGIApplication, str]]:
    """The dashboard as a WSGI application, and what it shows, in words."""
    run = RunDirectory(root)
    settings = read_settings(run) if run.settings.is_file() else None
    url = None if settings is None else settings.storage
    path = run.study if url is None else sqlite_path(url, root)
    annotations = Annotations(run, settings)
    make = functools.partial(AnnotatedStorage, annotations=annotations, study_name=run.study_name(url))
    if path is None:
        assert url is not None
        storage = open_storage(url, make)
        try:
            yield _ReadOnly(wsgi(storage, annotations), lambda: None), f"read-only, directly on {mask_passwords(url)}"
        finally:
            storage.engine.dispose()
        return
    with tempfile.TemporaryDirectory(prefix="bloodauto-dashboard-") as folder:
        copy = StudyCopy(path, Path(folder) / path.name, refresh_seconds)
        storage = open_storage(sqlite_url(copy.target), make)
        try:
            yield (
                _ReadOnly(wsgi(storage, annotations), copy.refresh),
                "read-only, on a copy that follows the run's study",
            )
        finally:
            storage.engine.dispose()


def _storage_url(run: RunDirectory) -> str | None:
    if not run.settings.is_file():
        return None
    return read_settings(run).storage


class StudyCopy:
    """A private copy of a study's SQLite file, renewed on request when it is old and the source has changed.

    Args:
        source: The study's file.
        target: The copy.
        max_age_seconds: A younger copy is not renewed.

    Raises:
        RunError: The source cannot be read when the copy is first made. Later failures leave the copy as it is.
    """

    def __init__(self, source: Path, target: Path, max_age_seconds: float) -> None:
        self.source = source
        self.target = target
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._mark = modification_stamp(source)
        self._checked_at = time.monotonic()
        snapshot(source, target)

    def refresh(self) -> None:
        """Renews the copy if it is old and the source has changed."""
        with self._lock:
            if time.monotonic() - self._checked_at < self._max_age_seconds:
                return
            # Taken before the copy: a commit that comes in between is copied once more, never missed.
            mark = modification_stamp(self.source)
            if mark != self._mark:
                try:
                    snapshot(self.source, self.target)
                    self._mark = mark
                except RunError as error:
                    _LOG.warning("The dashboard goes on showing the last copy of the study: %s", error)
            self._checked_at = time.monotonic()


class _ReadOnly:
    """Lets reading requests through, after ``before``, and answers all others with 403 and the reason."""

    def __init__(self, application: WSGIApplication, before: Callable[[], None]) -> None:
        self._application = application
        self._before = before

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in _SAFE_METHODS:
            start_response("403 Forbidden", [("Content-Type", "application/json")])
            return [json.dumps({"reason": "This dashboard is read-only: the search alone writes the study."}).encode()]
        if environ["PATH_INFO"].startswith("/api/"):
            self._before()
        return self._application(environ, start_response)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        _LOG.debug(format, *args)


@contextlib.contextmanager
def _server(application: WSGIApplication, port: int) -> Iterator[WSGIServer]:
    if not 0 <= port <= 65535:
        raise RunError(f"--port: expected 0 to 65535, got {port}.")
    try:
        server = make_server(HOST, port, application, server_class=_Server, handler_class=_QuietHandler)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else "needs special rights"
        raise RunError(f"Port {port} {why}. Try a free one: --port {_free_port()}") from None
    with server:
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _in_background(server: WSGIServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that the private copy is removed. In another thread it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(url: str, name: str) -> DashboardCheck:
    page = _get(f"{url}/dashboard").decode()
    if "/static/bundle.js" not in page and "static/bundle.js" not in page:
        raise RunError(
            f"{url}/dashboard: expected the dashboard's page, got something else; reinstall optuna-dashboard."
        )
    script = _get(f"{url}/static/bundle.js")
    studies = json.loads(_get(f"{url}/api/studies"))["study_summaries"]
    ours = [study for study in studies if study["study_name"] == name]
    if not ours:
        raise RunError(f"{url}: expected a study named {name!r}, the dashboard found none. Has the search begun?")
    detail = json.loads(_get(f"{url}/api/studies/{ours[0]['study_id']}"))
    return DashboardCheck(url, len(detail["trials"]), len(script))


def _get(url: str) -> bytes:
    # Proxies of the environment must not come between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=30) as response:
            return bytes(response.read())
    except (urllib.error.URLError, TimeoutError) as error:
        raise RunError(f"{url}: the dashboard does not answer as it should ({error}).") from None
