"""What every refusal has in common, whatever was wrong."""

from __future__ import annotations

import os
from pathlib import Path

from tests.command_line import Completed, bloodauto_here


def snapshot(folder: Path) -> dict[str, int]:
    """Every file, folder and link below a folder with its time of change; the root of what a command may have written."""
    return {os.fsencode(path).decode("latin-1"): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def refused(folder: Path, *arguments: object) -> Completed:
    """Runs a command that has to be refused: exit code 2, one error, no traceback, nothing written."""
    before = snapshot(folder)
    ended = bloodauto_here(*arguments)
    assert ended.code == 2, f"exit code {ended.code}: {ended.err[-600:]}"
    assert ended.err.startswith("error: "), ended.err[:300]
    assert "Traceback" not in ended.err
    assert not ended.err.startswith("error: unexpected")
    assert snapshot(folder) == before
    assert all(character.isprintable() or character == "\n" for character in ended.err), (
        "nothing for a terminal to obey"
    )
    return ended
