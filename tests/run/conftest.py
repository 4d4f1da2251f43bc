from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bloodauto.run.directory import RunDirectory
from bloodauto.testing.run_factory import build_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Thirty trials of all outcomes, ensemble, held-out test. Shared: not to be changed."""
    return build_run(tmp_path_factory.mktemp("runs") / "blood")


@pytest.fixture
def own_run(finished_run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the finished run that a test may break."""
    shutil.copytree(finished_run.root, tmp_path / "blood")
    return RunDirectory(tmp_path / "blood")
