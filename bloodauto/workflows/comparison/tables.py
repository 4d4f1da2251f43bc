"""An experiment's rows as plain text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bloodauto.workflows.comparison.results import Agreement, Interval, Row, Scored

_EMPTY = "-"


def headings(published_figure: str) -> tuple[str, ...]:
    """Of ``cells``."""
    published = f"published: {published_figure.replace('_', ' ')}" if published_figure else "published"
    return (
        "variant",
        published,
        "accuracy, same lab",
        "shift score",
        "difference from first",
        "over views",
        "epochs",
        "device-s",
    )


def cells(row: Row) -> tuple[str, ...]:
    """One row as text: scores in per cent with 95 % intervals; the difference of shift scores in points."""
    training = row.training
    if training is not None and training.failure:
        return (row.name, _number(row.published), f"failed: {training.failure}", *[_EMPTY] * 5)
    over_views = _EMPTY
    if row.over_views is not None:
        over_views = f"{_percent(row.over_views.accuracy)}, {_percent(row.over_views.shift)} ({row.passes} passes)"
    return (
        row.name,
        _number(row.published),
        _EMPTY if row.scored is None else _with(row.scored.accuracy, row.scored.accuracy_interval),
        _EMPTY if row.scored is None else _with(row.scored.shift, row.scored.shift_interval),
        _EMPTY if row.gain is None else f"{100 * row.gain.low:+.1f} to {100 * row.gain.high:+.1f}",
        over_views,
        _EMPTY if training is None else f"{training.epochs}{'' if training.finished else ' (cut)'}",
        _EMPTY if training is None else f"{training.device_seconds:.0f}",
    )


def _number(value: float | None) -> str:
    return _EMPTY if value is None else f"{value:g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _with(value: float, interval: Interval) -> str:
    return f"{_percent(value)} ({_percent(interval.low)}-{_percent(interval.high)})"


def notes(rows: Sequence[Row], agreed: Agreement | None, *, images: int) -> tuple[str, ...]:
    """What a reader must know of the figures."""
    lines = [
        f"Per cent, on {images} validation images; 95 % intervals: Wilson's for accuracy, a bootstrap over images for the "
        "shift score and for its difference from the first variant (same draws). They say what other images would change, "
        "not what another seed would: each variant was trained once.",
    ]
    if any(row.over_views is not None for row in rows):
        lines.append(
            "Over views: accuracy and shift score when the answers for the recipe's test-time views are averaged."
        )
    if agreed is not None:
        lines.append(
            f"Order against the published one, {agreed.variants} variants: of the shift scores Spearman "
            f"{agreed.spearman:.2f}, Kendall {agreed.kendall:.2f}; of the accuracies Spearman "
            f"{agreed.accuracy_spearman:.2f}, Kendall {agreed.accuracy_kendall:.2f}."
        )
    return tuple(lines)


def plain(rows: Sequence[Row], published_figure: str) -> str:
    """Columns of text, for a terminal or a log; its lines are not broken."""
    lines = [headings(published_figure), *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(rows: Sequence[Row], published_figure: str, told: Sequence[str]) -> str:
    """A Markdown table and the notes under it."""
    head = headings(published_figure)
    lines = [head, ["---"] * len(head), *map(cells, rows)]
    table = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
    return table + "\n\n" + "\n\n".join(told) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """All figures, unrounded, one row a line."""
    flat = [_flat(row) for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    def scores(prefix: str, scored: Scored | None) -> dict[str, Any]:
        names = ("accuracy", "accuracy_low", "accuracy_high", "shift", "shift_low", "shift_high")
        values: tuple[Any, ...] = ("",) * len(names)
        if scored is not None:
            accuracy, shift = scored.accuracy_interval, scored.shift_interval
            values = (scored.accuracy, accuracy.low, accuracy.high, scored.shift, shift.low, shift.high)
        return {prefix + name: value for name, value in zip(names, values, strict=True)}

    training, gain = row.training, row.gain
    return {
        "name": row.name,
        "backbone": row.backbone,
        "published": "" if row.published is None else row.published,
        **scores("", row.scored),
        **scores("over_views_", row.over_views),
        "passes": row.passes,
        "shift_gain_low": "" if gain is None else gain.low,
        "shift_gain_high": "" if gain is None else gain.high,
        "epochs": "" if training is None else training.epochs,
        "parameters": "" if training is None else training.parameters,
        "device_seconds": "" if training is None else round(training.device_seconds, 3),
        "finished": "" if training is None else training.finished,
        "failure": "" if training is None else training.failure,
    }


def as_json(rows: Sequence[Row], agreed: Agreement | None) -> dict[str, Any]:
    """For ``--json``: nothing is not a number."""
    return {
        "variants": [{name: None if value == "" else value for name, value in _flat(row).items()} for row in rows],
        "agreement": None if agreed is None else asdict(agreed),
    }
