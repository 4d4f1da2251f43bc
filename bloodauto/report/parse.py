"""Untrusted plain values (from JSON, CSV, YAML) -> the frozen values of ``info``.

These files come from a program that may have been killed, or from a person's editor. A field of the wrong type raises
``ValueError`` with its name; the caller turns that into a note of the report.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bloodauto.data.split import EXCLUDED, HELD_OUT_TEST
from bloodauto.report.info import (
    CleaningInfo,
    CleaningRow,
    EpochInfo,
    Fingerprint,
    LedgerEntry,
    Scores,
)

#: Numbers of parts in ``splits.json`` that are not trained on.
_PART_NAMES = {0: "validation", HELD_OUT_TEST: "held-out test", EXCLUDED: "left out"}
#: Findings that mean "nothing was found", and actions that mean "kept as it is".
_NO_FINDING = {"", "none", "ok", "keep", "kept", "clean"}


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected a mapping, got {type(value).__name__}")
    return value


def items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list, got {type(value).__name__}")
    return value


def number(value: Any, where: str) -> float | None:
    """A finite float; ``None`` stays ``None``, and so becomes what is not finite, which no figure can show."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: expected a number, got {value!r}")
    return float(value) if math.isfinite(value) else None


def integer(value: Any, where: str) -> int | None:
    parsed = number(value, where)
    return None if parsed is None else int(parsed)


def text(value: Any) -> str:
    return "" if value is None else str(value)


def scores(value: Any, where: str) -> Scores:
    """The numbers of a mapping; other values in it (lists, nested mappings) are not scores and are left out."""
    return tuple(
        (str(name), float(score))
        for name, score in mapping(value if value is not None else {}, where).items()
        if isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    )


def counts(value: Any, where: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, int(count)) for name, count in scores(value, where))


def fingerprint(value: Any) -> Fingerprint:
    fields = mapping(value, "fingerprint")
    classes = counts(fields.get("classes"), "classes")
    images = integer(fields.get("images"), "images")
    return Fingerprint(
        source=text(fields.get("source")),
        images=sum(count for _, count in classes) if images is None else images,
        height_px=integer(fields.get("height_px"), "height_px"),
        width_px=integer(fields.get("width_px"), "width_px"),
        classes=classes,
        sites=counts(fields.get("sites"), "sites"),
        excluded=integer(fields.get("excluded"), "excluded"),
        digest=text(fields.get("digest")),
    )


def cleaning(rows: Iterable[Mapping[str, str | None]]) -> CleaningInfo:
    images = 0
    found: list[CleaningRow] = []
    for row in rows:
        images += 1
        entry = CleaningRow(*(text(row.get(key)) for key in ("name", "label", "finding", "action", "reason")))
        if entry.finding.lower() not in _NO_FINDING or entry.action.lower() not in _NO_FINDING:
            found.append(entry)
    tally = Counter((row.finding, row.action) for row in found)
    return CleaningInfo(images, tuple((*pair, count) for pair, count in tally.most_common()), tuple(found))


def splits(value: Any) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    """(part, images) and the notes. Fold 0 is what the search validates on, the other folds are what it trains on."""
    fields = mapping(value, "splits")
    sizes: Counter[str] = Counter()
    for index, entry in enumerate(items(fields.get("parts"), "parts")):
        part = mapping(entry, f"parts.{index}")
        at = integer(part.get("part"), f"parts.{index}.part")
        if at is None:
            raise ValueError(f"parts.{index}.part: expected a number")
        name = _PART_NAMES.get(at, "train")
        sizes[name] += len(items(part.get("images"), f"parts.{index}.images"))
    order = ("train", *_PART_NAMES.values())
    notes = tuple(text(note) for note in items(fields.get("notes") or [], "notes"))
    return tuple((name, sizes[name]) for name in order if sizes[name]), notes


def ledger_entry(value: Any) -> LedgerEntry:
    fields = mapping(value, "ledger entry")
    charged = number(fields.get("device_seconds"), "device_seconds")
    spent = number(fields.get("spent_device_seconds"), "spent_device_seconds")
    if charged is None or spent is None:
        raise ValueError("device_seconds and spent_device_seconds: expected numbers")
    return LedgerEntry(text(fields.get("phase")), charged, spent)


def epoch(value: Any) -> EpochInfo:
    fields = mapping(value, "epoch")
    at = integer(fields.get("epoch"), "epoch")
    if at is None:
        raise ValueError("epoch: expected a number")
    return EpochInfo(
        epoch=at,
        stage=text(fields.get("stage")),
        **{key: number(fields.get(key), key) for key in ("train_accuracy", "accuracy", "shift", "objective")},
    )
