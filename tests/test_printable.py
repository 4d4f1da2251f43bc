"""Text from outside is shown, not obeyed."""

from __future__ import annotations

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.printable import csv_cell, csv_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lymphocyte", "lymphocyte"),
        ("eosinófilo 嗜酸", "eosinófilo 嗜酸"),
        (b"Mu\xf1oz.png", r"Mu\xf1oz.png"),
        ("a\nb\tc", r"a\x0ab\x09c"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("cell\u202egnp.exe", r"cell\u202egnp.exe"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_lines_of_a_message_stay() -> None:
    assert printable("one\ntwo\x07", keep_lines=True) == "one\ntwo\\x07"


@given(st.binary())
def test_any_file_name_becomes_text_of_one_line(name: bytes) -> None:
    shown = printable(os.fsdecode(name))
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown


@given(st.text())
def test_cells_are_no_formulas_and_can_be_read_back(text: str) -> None:
    cell = csv_cell(text)
    assert csv_text(cell) == text
    assert not cell.startswith(("=", "@", "\t", "\r"))
    stream = io.StringIO(newline="")
    csv.writer(stream).writerow([cell])
    assert next(csv.reader(io.StringIO(stream.getvalue(), newline=""))) == [cell]
