"""Every benchmark imports what exists, and its help says what it does."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.locations import ROOT

FOLDER = ROOT / "benchmarks"
#: The others are modules that benchmarks import.
COMMANDS = sorted(path for path in FOLDER.glob("*.py") if "ArgumentParser" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_a_benchmark_explains_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    module = importlib.import_module(path.stem)
    document = module.__doc__ or ""
    assert f"python benchmarks/{path.name}" in document, "the docstring has the command"
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert " ".join(document.splitlines()[0].split()) in " ".join(capsys.readouterr().out.split())
