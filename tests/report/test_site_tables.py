"""Named laboratories, target images and the front, from a run's files to the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.report import site_tables as places
from bloodauto.report.html import write_report
from bloodauto.report.read import read_run
from bloodauto.run.files import write_json
from bloodauto.testing.run_factory import build_run

LABS = [{"site": "Basel <1>", "images": 120, "accuracy": 0.75, "balanced_accuracy": 0.5}]
TARGET = {"images": 256, "accuracy": 0.625, "confidence": 0.875, "agreement": 0.5}
FRONT = {
    "objectives": ["shift", "latency", "parameters"],
    "trials": [{"trial": 3, "backbone": "mobilenet_1.0", "values": {"shift": 0.8, "latency": 1.25, "parameters": 3e6}}],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = build_run(tmp_path / "run", trials=8).root
    write_json(root / "site_scores.json", LABS)
    write_json(root / "target.json", TARGET)
    write_json(root / "pareto_front.json", FRONT)
    return root


def test_the_files_are_read(run: Path) -> None:
    info = read_run(run)
    assert [(one.site, one.images, one.accuracy) for one in info.sites] == [("Basel <1>", 120, 0.75)]
    assert info.target is not None
    assert (info.target.accuracy, info.target.agreement) == (0.625, 0.5)
    assert dict(info.pareto_front[0].values) == {"shift": 0.8, "latency": 1.25, "parameters": 3e6}
    assert not [note for note in info.notes if note.source in ("site_scores.json", "target.json", "pareto_front.json")]


def test_the_page_shows_them_with_units_and_escaped(run: Path) -> None:
    page = write_report(run, None).read_text(encoding="utf-8")
    assert "Basel &lt;1&gt;" in page
    assert "Basel <1>" not in page
    assert "1.25 ms" in page
    assert "3,000,000" in page
    assert "62.5" in page


def test_broken_files_are_noted_and_left_out(run: Path) -> None:
    (run / "site_scores.json").write_text('{"lab": 1}', encoding="utf-8")
    (run / "target.json").write_text("[", encoding="utf-8")
    (run / "pareto_front.json").write_text('{"trials": [{"values": {"shift": "high"}}]}', encoding="utf-8")
    info = read_run(run)
    assert (info.sites, info.target, info.pareto_front) == ((), None, ())
    assert {"site_scores.json", "target.json", "pareto_front.json"} <= {note.source for note in info.notes}


def test_without_such_files_there_is_nothing_to_show() -> None:
    assert places.pareto_table(()) is None
    assert places.site_table(()) is None
    assert places.target_text(None) is None
