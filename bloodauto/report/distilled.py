"""Untrusted plain values of ``distilled.json`` -> what a report says of the network that learnt from the ensemble."""

from __future__ import annotations

from typing import Any

from bloodauto.report.info_sites import StudentInfo
from bloodauto.report.labels import percent
from bloodauto.report.markup import Markup, join, table, tag
from bloodauto.report.parse import integer, mapping, number, scores, text


def student(value: Any) -> StudentInfo:
    """Raises ValueError: a value of another kind than was written."""
    fields = mapping(value, "distilled")
    both = mapping(fields.get("comparison"), "comparison")
    return StudentInfo(
        network=text(fields.get("network")),
        parameters=integer(fields.get("parameters"), "parameters"),
        teacher_parameters=integer(fields.get("teacher_parameters"), "teacher_parameters"),
        scores=scores(both.get("scores"), "comparison.scores"),
        teacher_scores=scores(both.get("teacher_scores"), "comparison.teacher_scores"),
        agreement=number(both.get("agreement"), "comparison.agreement"),
        agreement_shifted=number(both.get("agreement_shifted"), "comparison.agreement_shifted"),
    )


def student_table(info: StudentInfo | None) -> Markup | None:
    """The student beside its ensemble."""
    if info is None:
        return None

    def row(name: str, parameters: int | None, own: tuple[tuple[str, float | None], ...]) -> tuple[str, ...]:
        size = "–" if parameters is None else f"{parameters:,}"
        return (name, size, *("–" if value is None else _score(key, value) for key, value in own))

    rows = [
        row(f"student, {info.network}", info.parameters, info.scores),
        row("its ensemble", info.teacher_parameters, info.teacher_scores),
    ]
    headings = ("", "weights", *(name.replace("_", " ") for name, _ in info.scores))
    words = (
        "A network that learnt to answer as the ensemble does, on images that it did not learn from; both give the same "
        f"answer for {percent(info.agreement)} of them and {percent(info.agreement_shifted)} of shifted views."
    )
    return join([table(headings, rows, numeric=range(1, len(headings))), tag("p", words, class_="hint")])


def _score(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "loss" else percent(value)
