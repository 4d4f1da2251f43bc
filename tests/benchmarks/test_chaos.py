"""The short form of ``benchmarks/chaos.py``: one search that is killed with its whole process group and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_that_is_killed_and_resumed_keeps_every_promise(slowness: float) -> None:
    """Faults of other kinds, at many moments, are for the long form: ``--minutes``."""
    command = [
        sys.executable, str(ROOT / "benchmarks" / "chaos.py"), "--rounds", "1", "--sessions", "1", "--seed", "3",
        "--faults", "group", "--budget", str(round(60 * slowness)), "--json",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert (summary["searches"], summary["violated"]) == (1, 0)
