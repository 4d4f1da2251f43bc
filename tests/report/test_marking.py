"""What the exported rule for marking images does, from the run's file to the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.report import sections
from bloodauto.report.figures import risk_coverage as risk
from bloodauto.report.html import write_report
from bloodauto.report.read import read_run
from bloodauto.run.files import write_json
from bloodauto.testing.run_factory import build_run

CURVE = {"coverage": [0.5, 0.95, 1.0], "risk": [0.0, 0.01, 0.04], "aurc": 0.01}
RULE = {
    "in_domain": {"images": 512, "coverage": 0.95, "accuracy": 0.99, "curve": CURVE},
    "external": {"images": 384, "coverage": 0.64, "accuracy": None, "curve": CURVE},
    "synthetic_ood": [{"kind": "pictures <of> nothing", "images": 128, "flagged": 0.97, "auroc": 0.99}],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = build_run(tmp_path / "run", trials=8).root
    write_json(root / "ood.json", RULE)
    return root


def test_the_exported_rule_is_drawn_where_there_is_one(run: Path) -> None:
    info = risk.risk_coverage_info(read_run(run))
    assert isinstance(info, risk.RiskCoverageInfo)
    assert [name for name, _ in info.parts] == ["own images", "simulated sites"]
    figure = risk.draw_risk_coverage(info)
    figure.to_json()
    assert [trace.x[0] for trace in figure.data if trace.mode == "markers"] == [0.95]
    assert list(figure.data[0].y) == [0.0, 0.01, 0.04]


def test_the_page_says_what_it_marks_escaped(run: Path) -> None:
    words = sections.abstention_text(read_run(run))
    assert "answers 95.0\u202f% of 512 images held out, and 64.0\u202f% of 384" in words
    page = write_report(run, None).read_text(encoding="utf-8")
    assert "97\u202f% of pictures &lt;of&gt; nothing" in page
    assert "pictures <of> nothing" not in page


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"own": {"answered": 1}}', '{"own": null, "elsewhere": null, "found": []}']
)
def test_a_broken_file_is_noted_and_left_out(run: Path, text: str) -> None:
    (run / "ood.json").write_text(text, encoding="utf-8")
    info = read_run(run)
    assert info.ood is None
    assert "ood.json" in {note.source for note in info.notes}
    assert isinstance(risk.risk_coverage_info(info), risk.RiskCoverageInfo), (
        "the line for answers alone is shown instead"
    )
