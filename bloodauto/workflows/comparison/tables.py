"""The rows of a comparison as plain text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bloodauto.evaluation.intervals import Interval
from bloodauto.workflows.comparison.results import ComparisonRow, RankCorrelations, ScoresWithIntervals

_EMPTY = "-"


def headings(published_metric: str) -> tuple[str, ...]:
    """The headings of ``cells``; ``published_metric`` says what the published figures are, or is empty."""
    published = f"published: {published_metric.replace('_', ' ')}" if published_metric else "published"
    return (
        "variant",
        published,
        "accuracy, in-domain",
        "shift score",
        "difference from first",
        "with TTA",
        "epochs",
        "device-s",
    )


def cells(row: ComparisonRow) -> tuple[str, ...]:
    """One row as text: scores in per cent with 95 % intervals, the difference of shift scores in percentage points."""
    training = row.training
    if training is not None and training.failure:
        return (row.name, _number(row.published), f"failed: {training.failure}", *[_EMPTY] * 5)
    with_tta = _EMPTY
    if row.with_tta is not None:
        with_tta = f"{_percent(row.with_tta.accuracy)}, {_percent(row.with_tta.shift)} ({row.forward_passes} passes)"
    return (
        row.name,
        _number(row.published),
        _EMPTY if row.scored is None else _with_interval(row.scored.accuracy, row.scored.accuracy_interval),
        _EMPTY if row.scored is None else _with_interval(row.scored.shift, row.scored.shift_interval),
        _EMPTY if row.shift_gain is None else f"{100 * row.shift_gain.low:+.1f} to {100 * row.shift_gain.high:+.1f}",
        with_tta,
        _EMPTY if training is None else f"{training.epochs}{'' if training.finished else ' (cut)'}",
        _EMPTY if training is None else f"{training.device_seconds:.0f}",
    )


def _number(value: float | None) -> str:
    return _EMPTY if value is None else f"{value:g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _with_interval(value: float, interval: Interval) -> str:
    return f"{_percent(value)} ({_percent(interval.low)}-{_percent(interval.high)})"


def notes(rows: Sequence[ComparisonRow], correlations: RankCorrelations | None, *, images: int) -> tuple[str, ...]:
    """What a reader must know about the figures.

    Args:
        rows: The rows.
        correlations: Rank correlations with the published figures; None where there are none.
        images: Number of validation images.

    Returns:
        Paragraphs.
    """
    lines = [
        f"Per cent, on {images} validation images; 95 % intervals: Wilson's for accuracy, a bootstrap over images for the "
        "shift score and for its difference from the first variant (same resamples). They say what other images would "
        "change, not what another seed would: each variant was trained once.",
    ]
    if any(row.with_tta is not None for row in rows):
        lines.append(
            "With TTA: accuracy and shift score of the predictions averaged over the recipe's test-time transforms."
        )
    if correlations is not None:
        lines.append(
            f"Rank correlation with the published figures, {correlations.variants} variants: of the shift scores Spearman "
            f"{correlations.spearman:.2f}, Kendall {correlations.kendall:.2f}; of the accuracies Spearman "
            f"{correlations.accuracy_spearman:.2f}, Kendall {correlations.accuracy_kendall:.2f}."
        )
    return tuple(lines)


def plain(rows: Sequence[ComparisonRow], published_metric: str) -> str:
    """Columns of text for a terminal or a log, one line for each row."""
    lines = [headings(published_metric), *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(rows: Sequence[ComparisonRow], published_metric: str, note_lines: Sequence[str]) -> str:
    """A Markdown table and the notes under it."""
    head = headings(published_metric)
    lines = [head, ["---"] * len(head), *map(cells, rows)]
    table = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
    return table + "\n\n" + "\n\n".join(note_lines) + "\n"


def as_csv(rows: Sequence[ComparisonRow]) -> str:
    """All figures, unrounded, one line for each row."""
    records = [_flat(row) for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def _flat(row: ComparisonRow) -> dict[str, Any]:
    def scores(prefix: str, scored: ScoresWithIntervals | None) -> dict[str, Any]:
        names = ("accuracy", "accuracy_low", "accuracy_high", "shift", "shift_low", "shift_high")
        values: tuple[Any, ...] = ("",) * len(names)
        if scored is not None:
            accuracy, shift = scored.accuracy_interval, scored.shift_interval
            values = (scored.accuracy, accuracy.low, accuracy.high, scored.shift, shift.low, shift.high)
        return {prefix + name: value for name, value in zip(names, values, strict=True)}

    training, shift_gain = row.training, row.shift_gain
    return {
        "name": row.name,
        "backbone": row.backbone,
        "published": "" if row.published is None else row.published,
        **scores("", row.scored),
        **scores("with_tta_", row.with_tta),
        "forward_passes": row.forward_passes,
        "shift_gain_low": "" if shift_gain is None else shift_gain.low,
        "shift_gain_high": "" if shift_gain is None else shift_gain.high,
        "epochs": "" if training is None else training.epochs,
        "parameters": "" if training is None else training.parameters,
        "device_seconds": "" if training is None else round(training.device_seconds, 3),
        "finished": "" if training is None else training.finished,
        "failure": "" if training is None else training.failure,
    }


def as_json(rows: Sequence[ComparisonRow], correlations: RankCorrelations | None) -> dict[str, Any]:
    """Plain values for ``--json``; what is not known is null."""
    return {
        "variants": [{name: None if value == "" else value for name, value in _flat(row).items()} for row in rows],
        "rank_correlations": None if correlations is None else asdict(correlations),
    }
