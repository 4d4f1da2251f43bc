"""Text from outside (file names, labels, columns) in a form that terminals, logs and spreadsheets show and do not obey."""

from __future__ import annotations

import os
import shlex
import unicodedata

#: Unicode categories of what a terminal or an editor acts upon: control characters, lone surrogates, line and paragraph breaks.
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: Characters that change the direction in which a line is read, so that a name shows as another.
_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
#: A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str | bytes | os.PathLike[str], *, keep_lines: bool = False) -> str:
    r"""Text on one line that can be printed, stored as UTF-8 and read back.

    Control characters, ANSI escapes and marks of direction become backslash escapes, as do the bytes of a file name that is not
    UTF-8.

    Args:
        text: Text, bytes, or a path.
        keep_lines: Whether line breaks stay as they are; for messages of several lines.

    Example:
        >>> print(printable("a\x1b[31m.png"), printable(b"Mu\xf1oz.png"))
        a\x1b[31m.png Mu\xf1oz.png
    """
    characters = os.fsdecode(text)
    if characters.isascii() and characters.isprintable():
        return characters
    return "".join(character if keep_lines and character == "\n" else _escaped(character) for character in characters)


def _escaped(character: str) -> str:
    if character not in _DIRECTION_MARKS and unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    code = ord(character)
    # Python stands for the byte 0xf1 of a file name that is no UTF-8 by the lone surrogate 0xdcf1.
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shell_word(path: str | os.PathLike[str]) -> str:
    """A path as one word of a command that people copy into a shell.

    Args:
        path: The path.

    Example:
        >>> print("bloodauto report --run", shell_word("runs/try [v2]"))
        bloodauto report --run 'runs/try [v2]'
    """
    return shlex.quote(os.fspath(path))


def csv_cell(text: str) -> str:
    """Text for a cell of a CSV that people open in a spreadsheet: an apostrophe goes before what would be a formula.

    Args:
        text: The text; a number stays as it is.

    Example:
        >>> csv_cell("=HYPERLINK(1)"), csv_cell("-1.5"), csv_cell("lymphocyte")
        ("'=HYPERLINK(1)", '-1.5', 'lymphocyte')
    """
    # An apostrophe of the text's own gets another, so that the text can be restored.
    return f"'{text}" if text.startswith((*_FORMULA_MARKS, "'")) and not _is_number(text) else text


def csv_text(cell: str) -> str:
    """The text that ``csv_cell`` made a cell of.

    Args:
        cell: What stands in the file.

    Example:
        >>> csv_text("'=HYPERLINK(1)")
        '=HYPERLINK(1)'
    """
    return cell.removeprefix("'")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
