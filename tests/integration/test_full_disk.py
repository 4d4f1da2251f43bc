"""A disk that takes no more: a clear error, and the files that were written before can still be used."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bloodauto.run.directory import RunDirectory
from tests.command_line import Started, bloodauto, bloodauto_here
from tests.search_fixtures import Inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_BLOCK_BYTES = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 60 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fills the disk to the last block; what else is written there meanwhile makes no difference."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(_BLOCK_BYTES))
    try:
        yield
    finally:
        filler.unlink()


def test_a_file_that_does_not_fit_leaves_nothing_half_written(disk: Path) -> None:
    with filled(disk):
        ended = bloodauto_here("data", "synth", "--images", 300, "--output", disk / "cells.npz")
        assert {path.name for path in disk.iterdir()} == {"filler"}
    assert ended.code == 2
    assert "expected room to write" in ended.err
    assert "Traceback" not in ended.err


def test_a_search_whose_disk_is_full_can_be_resumed(disk: Path, inputs: Inputs, slowness: float) -> None:
    """The disk fills up once a trial has completed, so however slow the machine is there is something to export."""
    run = RunDirectory(disk / "run")
    with Started(
        "search", "--run", run.root, "--data", inputs.dataset, "--space", inputs.short_space,
        "--budget", f"{round(90 * slowness)}cpu-s", "--workers", 2,
    ) as search:  # fmt: skip
        search.wait_until(lambda: run.trial(0).result.exists or run.trial(1).result.exists, "the end of a trial")
        with filled(disk):
            ended = search.wait()
    assert ended.code == 2, (ended.out[-3000:], ended.err[-3000:])
    assert "Traceback" not in ended.err
    resumed = bloodauto("search", "--resume", "--run", run.root)
    assert resumed.code == 0, (resumed.out[-3000:], resumed.err[-3000:])
    # Where the rest of the budget did not suffice for the export, a later command writes it.
    exported = bloodauto_here("export-best", "--run", run.root, "--output", disk / "best")
    assert exported.code == 0, exported.err[-3000:]
    assert (disk / "best" / "model.keras").is_file()
