"""A disk that takes no more: a clear error, and what was written before is still of use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Resize = Callable[[int], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A small disk of its own, and what changes its size in MB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not mount("-o", "size=1m"):
        pytest.skip("a small disk cannot be mounted here: that takes root")

    def resize(size_mb: int) -> None:
        assert mount("-o", f"remount,size={size_mb}m")

    yield folder, resize
    subprocess.run(["umount", "-l", str(folder)], check=True)


def ended(*arguments: str) -> tuple[int, str]:
    code = "from bloodauto.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_file_that_does_not_fit_leaves_nothing_half_written(disk: tuple[Path, Resize]) -> None:
    folder, _ = disk
    code, said = ended("data", "synth", "--images", "300", "--output", str(folder / "cells.npz"))
    assert code == 2
    assert "expected room to write" in said
    assert "Traceback" not in said
    assert not list(folder.iterdir())


def test_a_search_whose_disk_is_full_can_be_gone_on_with(disk: tuple[Path, Resize]) -> None:
    folder, resize = disk
    resize(6)
    run = folder / "run"
    code, said = ended("search", "--data", "synthetic", "--space", "tiny", "--budget", "100cpu-s", "--run", str(run))
    assert code == 2
    assert "Traceback" not in said
    resize(60)
    if (run / "ensemble.json").is_file():
        code, said = ended("export-best", "--run", str(run), "--output", str(folder / "best"))
        assert code == 0, said
        assert (folder / "best" / "model.keras").is_file()
    else:
        code, said = ended("search", "--resume", "--run", str(run))
        assert code == 0, said
        assert (run / "export" / "model.keras").is_file()
