"""A process that ends what is left of Ray when the search's own process has gone, however it went.

Ray's agents look every few seconds whether their raylet lives, and workers finish what they compute; killed with its whole
process group, a search would leave them on the machine's cores for half a minute. The guard is a session of its own and waits
for the end of a pipe, which the operating system closes with the process that holds it. Run as a program, this file needs
nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

#: How long processes are looked for; one that is being started when its parent is killed appears a moment later.
_SWEEP_SECONDS = 6.0
_POLL_SECONDS = 0.1
#: So many sweeps in a row must find nothing.
_EMPTY_SWEEPS = 5


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Ends the processes of a folder when the block or this process ends, and deletes the folder.

    Args:
        folder: The temporary folder that Ray and its workers get as ``TMPDIR`` and nobody else has.
    """
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    try:
        yield
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.wait(timeout=2 * _SWEEP_SECONDS)


def processes_of(folder: str, proc: Path = Path("/proc")) -> list[int]:
    """Ids of the processes that were started with a folder as ``TMPDIR``; never this one.

    Args:
        folder: The folder's path.
        proc: Where Linux lists processes.
    """
    variable = b"TMPDIR=" + os.fsencode(folder)
    matches = []
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # Processes end while they are looked at, and those of others cannot be read.
        with contextlib.suppress(OSError):
            if variable in (entry / "environ").read_bytes().split(b"\0"):
                matches.append(int(entry.name))
    return matches


def sweep(folder: str) -> None:
    """Kills the processes of a folder until none appears any more, and deletes it.

    Args:
        folder: The folder's path.
    """
    until, quiet = time.monotonic() + _SWEEP_SECONDS, 0
    while quiet < _EMPTY_SWEEPS and time.monotonic() < until:
        matches = processes_of(folder)
        quiet = 0 if matches else quiet + 1
        for pid in matches:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(sys.argv[1])
