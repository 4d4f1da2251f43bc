from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.run.directory import RunDirectory
from bloodauto.testing.run_factory import build_run


@pytest.fixture
def own_run(tmp_path: Path) -> RunDirectory:
    """A finished run that a test may break."""
    return build_run(tmp_path / "blood")
