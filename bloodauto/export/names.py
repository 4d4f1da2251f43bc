"""Helping with names that were meant to be others."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """`` Did you mean 'x'?`` with a leading space, or nothing when no known name is near."""
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
