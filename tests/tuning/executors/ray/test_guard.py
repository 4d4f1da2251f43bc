"""Whatever ends a search, the processes that it started for its workers end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bloodauto.tuning.executors.ray.guard import guarded, processes_of

_DRIVER = """
import os, subprocess, sys
from pathlib import Path
from bloodauto.tuning.executors.ray.guard import guarded
folder = Path(sys.argv[1])
with guarded(folder):
    sleep = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    for is_of_own_session in (True, False):
        subprocess.Popen(sleep, env={**os.environ, "TMPDIR": str(folder)}, start_new_session=is_of_own_session)
    print("started", flush=True)
    signal = sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["leaves", "is killed", "its group is killed"])
def test_the_processes_of_a_search_go_when_it_does(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    (folder / "socket").touch()
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    assert driver.stdout.readline() == b"started\n"
    until = time.monotonic() + 10
    while len(processes_of(str(folder))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(processes_of(str(folder))) == 2
    if how == "leaves":
        driver.stdin.close()
    elif how == "is killed":
        driver.kill()
    else:
        os.killpg(driver.pid, signal.SIGKILL)
    driver.wait(timeout=20)
    until = time.monotonic() + 10
    while (processes_of(str(folder)) or folder.exists()) and time.monotonic() < until:
        time.sleep(0.05)
    assert processes_of(str(folder)) == []
    assert not folder.exists()


def test_processes_of_others_are_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        try:
            folder = tmp_path / "ray"
            folder.mkdir()
            with guarded(folder):
                pass
            assert other.poll() is None
        finally:
            other.kill()
