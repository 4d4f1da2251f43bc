"""Downloads against a real HTTP server on this machine."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from bloodauto.data import download
from bloodauto.data.download import fetch, fetch_medmnist
from bloodauto.errors import DataError

BODY = np.random.default_rng(0).bytes(3_500_000)
BODY_MD5 = hashlib.md5(BODY).hexdigest()


@dataclass
class Behaviour:
    """What the server does, and which ranges were requested."""

    knows_ranges: bool = True
    breaks_after_bytes: int | None = None
    sends_wrong_range: bool = False
    ranges: list[str | None] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    behaviour: Behaviour

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.npz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        behaviour = self.server.behaviour
        requested = self.headers.get("Range")
        behaviour.ranges.append(requested)
        if self.path != "/file.npz":
            self.send_error(404)
            return
        start = 0
        if requested is not None and behaviour.knows_ranges:
            start = int(requested.removeprefix("bytes=").rstrip("-"))
            if start >= len(BODY):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(BODY)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            first = 0 if behaviour.sends_wrong_range else start
            self.send_header("Content-Range", f"bytes {first}-{len(BODY) - 1}/{len(BODY)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        stop = len(BODY) if behaviour.breaks_after_bytes is None else start + behaviour.breaks_after_bytes
        self.wfile.write(BODY[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    running.behaviour = Behaviour()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def test_downloads_reports_progress_and_does_not_request_twice(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "file.npz"
    assert fetch(server.url, BODY_MD5, target, lambda size, expected: seen.append((size, expected))) == target
    assert target.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert [size for size, _ in seen] == sorted(size for size, _ in seen)
    assert len(seen) > 1
    fetch(server.url, BODY_MD5, target)
    assert server.behaviour.ranges == [None]
    assert [file.name for file in target.parent.iterdir()] == ["file.npz"]


def test_interrupted_in_the_middle_then_resumed_with_a_range(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.npz"
    server.behaviour.breaks_after_bytes = 1_300_000
    with pytest.raises(DataError, match=r"1,300,000 bytes are kept.*run again"):
        fetch(server.url, BODY_MD5, target)
    assert not target.exists()
    with pytest.raises(DataError, match="2,600,000 bytes are kept"):
        fetch(server.url, BODY_MD5, target)
    server.behaviour.breaks_after_bytes = None
    fetch(server.url, BODY_MD5, target)
    assert target.read_bytes() == BODY
    assert server.behaviour.ranges == [None, "bytes=1300000-", "bytes=2600000-"]


def test_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.npz"
    server.behaviour = Behaviour(knows_ranges=False)
    target.with_name("file.npz.partial").write_bytes(b"x" * 1000)
    fetch(server.url, BODY_MD5, target)
    assert target.read_bytes() == BODY
    assert server.behaviour.ranges == ["bytes=1000-"]


def test_wrong_range_is_refused_and_the_partial_file_stays(server: Server, tmp_path: Path) -> None:
    partial = tmp_path / "file.npz.partial"
    partial.write_bytes(BODY[:1000])
    server.behaviour.sends_wrong_range = True
    with pytest.raises(DataError, match="requested bytes from 1000"):
        fetch(server.url, BODY_MD5, tmp_path / "file.npz")
    assert partial.read_bytes() == BODY[:1000]


def test_partial_file_that_is_complete_already(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.npz.partial").write_bytes(BODY)
    assert fetch(server.url, BODY_MD5, tmp_path / "file.npz").read_bytes() == BODY


def test_wrong_checksum_removes_the_file_and_says_both_sums(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"expected a file with MD5 {'0' * 32}, got 3,500,000 bytes with {BODY_MD5}"):
        fetch(server.url, "0" * 32, tmp_path / "file.npz")
    assert list(tmp_path.iterdir()) == []


def test_stale_partial_file_ends_as_a_wrong_checksum_and_the_next_try_succeeds(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.npz.partial").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="MD5"):
        fetch(server.url, BODY_MD5, tmp_path / "file.npz")
    assert fetch(server.url, BODY_MD5, tmp_path / "file.npz").read_bytes() == BODY


def test_another_file_of_that_name_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.npz"
    target.write_bytes(b"mine")
    with pytest.raises(DataError, match="Move it away"):
        fetch(server.url, BODY_MD5, target)
    assert target.read_bytes() == b"mine"


def test_absent_on_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"answered 404 .*/bloodmnist_64\.npz by hand"):
        fetch_medmnist("bloodmnist", 64, tmp_path, base_url=server.url.removesuffix("/file.npz"))
    assert list(tmp_path.iterdir()) == []


def test_no_connection_names_url_and_what_to_do_by_hand(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(DataError, match=rf"http://127.0.0.1:{port}/bloodmnist.npz.*by hand.*{tmp_path.name}"):
        fetch_medmnist("bloodmnist", 28, tmp_path, base_url=f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(("name", "size"), [("bloodmnist", 96), ("pathmnist", 28)])
def test_unknown_file(name: str, size: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bloodmnist 224 px, got"):
        fetch_medmnist(name, size, tmp_path)


def test_public_files_have_names_by_size_and_different_checksums() -> None:
    files = download._PUBLIC_FILES
    assert [files["bloodmnist", size].file_name for size in (28, 64, 128, 224)] == [
        "bloodmnist.npz",
        "bloodmnist_64.npz",
        "bloodmnist_128.npz",
        "bloodmnist_224.npz",
    ]
    assert len({public.md5 for public in files.values()}) == 4
    assert all(len(bytes.fromhex(public.md5)) == 16 for public in files.values())
