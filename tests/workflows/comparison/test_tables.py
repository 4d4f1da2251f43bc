"""How an experiment is told: by eye, and by machine."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bloodauto.evaluation.intervals import Interval
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.workflows.comparison.results import ComparisonRow, ScoresWithIntervals, rank_correlations
from bloodauto.workflows.comparison.runner import VariantResult
from bloodauto.workflows.comparison.tables import as_csv, as_json, cells, headings, markdown, notes, plain


def row(
    name: str, published: float | None, shift: float, *, accuracy: float = 0.9, tta_shift: float | None = None
) -> ComparisonRow:
    def scored(value: float) -> ScoresWithIntervals:
        return ScoresWithIntervals(
            accuracy, Interval(accuracy - 0.03, accuracy + 0.02), value, Interval(value - 0.05, value + 0.05)
        )

    training = VariantResult(name, TrainingDirectory(Path(name)), True, "", 4, 1234, 61.25)
    with_tta = None if tta_shift is None else scored(tta_shift)
    return ComparisonRow(name, "densenet121", published, training, scored(shift), with_tta, 7, Interval(-0.012, 0.034))


FAILED = ComparisonRow(
    "f",
    "vgg16",
    0.5,
    VariantResult("f", TrainingDirectory(Path("f")), False, "the loss is nan", 0, 0, 3.0),
    None,
    None,
    1,
    None,
)
ROWS = [row("a", 0.6, 0.5), row("b", 0.8, 0.7, tta_shift=0.75), row("c", 0.9, 0.6), FAILED]


def test_a_row_shows_what_was_measured() -> None:
    assert dict(zip(headings("hidden_accuracy"), cells(ROWS[1]), strict=True)) == {
        "variant": "b",
        "published: hidden accuracy": "0.8",
        "accuracy, in-domain": "90.0 (87.0-92.0)",
        "shift score": "70.0 (65.0-75.0)",
        "difference from first": "-1.2 to +3.4",
        "with TTA": "90.0, 75.0 (7 passes)",
        "epochs": "4",
        "device-s": "61",
    }
    assert cells(FAILED)[:3] == ("f", "0.5", "failed: the loss is nan")
    assert len(cells(FAILED)) == len(headings(""))


def test_rank_correlations_need_three_variants_with_both_scores() -> None:
    correlations = rank_correlations(ROWS)
    # All accuracies are equal: no order of theirs to compare.
    assert correlations is None
    rows = [row(name, published, shift, accuracy=accuracy) for name, published, shift, accuracy in (
        ("a", 0.6, 0.5, 0.99), ("b", 0.8, 0.7, 0.98), ("c", 0.9, 0.6, 0.97), ("d", None, 0.1, 0.5),
    )]  # fmt: skip
    correlations = rank_correlations([*rows, FAILED])
    assert correlations is not None
    assert correlations.variants == 3
    # By hand: ranks 1 2 3 against 1 3 2; of three pairs two agree and one does not.
    assert correlations.spearman == pytest.approx(0.5)
    assert correlations.kendall == pytest.approx(1 / 3)
    assert (correlations.accuracy_spearman, correlations.accuracy_kendall) == pytest.approx((-1.0, -1.0))
    assert rank_correlations(rows[:2]) is None
    note_lines = notes(rows, correlations, images=500)
    assert "Spearman 0.50, Kendall 0.33; of the accuracies Spearman -1.00" in note_lines[-1]


def test_scores_with_tta_are_those_compared() -> None:
    rows = [
        row("a", 0.6, 0.5, accuracy=0.8),
        row("b", 0.8, 0.7, accuracy=0.9),
        row("c", 0.9, 0.6, accuracy=0.95, tta_shift=0.9),
    ]
    correlations = rank_correlations(rows)
    assert correlations is not None
    assert correlations.spearman == pytest.approx(1.0)


def test_text_markdown_csv_and_json_hold_the_same_rows() -> None:
    lines = plain(ROWS, "hidden_accuracy").splitlines()
    assert len(lines) == 1 + len(ROWS)
    starts = [line.index("accuracy, in-domain") for line in lines[:1]] + [
        line.index("90.0 (87.0") for line in lines[1:4]
    ]
    assert len(set(starts)) == 1, "columns stand under their headings"
    table = markdown(ROWS, "hidden_accuracy", notes(ROWS, None, images=500))
    assert table.count("\n| ") == 1 + len(ROWS)
    assert "not what another seed would" in table
    flat = list(csv.DictReader(io.StringIO(as_csv(ROWS))))
    assert [record["name"] for record in flat] == ["a", "b", "c", "f"]
    assert float(flat[1]["with_tta_shift"]) == 0.75
    assert flat[3]["failure"] == "the loss is nan"
    variants = as_json(ROWS, None)["variants"]
    assert variants[3]["shift"] is None
    assert variants[0]["failure"] is None
    assert variants[1]["shift_gain_high"] == 0.034
