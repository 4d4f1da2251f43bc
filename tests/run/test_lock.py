"""One process at a time works in a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.lock import run_lock

HOLD = """
import sys, time
from pathlib import Path
from bloodauto.run.directory import RunDirectory
from bloodauto.run.lock import run_lock
with run_lock(RunDirectory(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_held_by_one_process_and_a_kill_leaves_no_lock_behind(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run.root)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another search is running in it"), run_lock(run):
            pass
        holder.kill()
        holder.wait()
    with run_lock(run):
        pass


def test_a_lock_is_free_after_its_block_and_after_an_error(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(ValueError, match="a fault"), run_lock(run):
        raise ValueError("a fault")
    with run_lock(run):
        pass


def test_a_folder_that_cannot_be_written_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    expected = r"expected a folder that a run can be written to, got: .*Take another --run"
    with pytest.raises(RunError, match=expected), run_lock(RunDirectory(tmp_path / "run")):
        pass
