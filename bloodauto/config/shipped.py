"""The search spaces and recipes that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bloodauto.errors import UserError


def shipped_folder(kind: Literal["search_spaces", "trials"]) -> Path:
    """The folder of declared spaces or recipes that came with the package.

    A wheel carries them inside the package; an editable install or a checkout has them beside it. This is the one
    place that knows both.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "_shipped" / kind, package.parent / kind):
        if candidate.is_dir():
            return candidate
    raise UserError(
        f"{kind}: not found in {package}/_shipped or beside it; the installation is incomplete, reinstall bloodauto."
    )
