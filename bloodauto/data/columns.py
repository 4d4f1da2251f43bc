"""What the columns of a CSV manifest and the arrays of an ``.npz`` are called, and what else users call them."""

from __future__ import annotations

from collections.abc import Sequence

from bloodauto.errors import DataError

#: Columns of a CSV manifest; ``path`` and ``label`` must be there.
MANIFEST_COLUMNS = ("path", "label", "group", "site", "split")
#: Arrays of an ``.npz``; ``images`` and ``labels`` must be there.
ARRAY_NAMES = ("images", "labels", "class_names", "names", "groups", "sites")
#: Synonym -> name. In the laboratory a site is called just that.
SYNONYMS = {"lab": "site", "laboratory": "site", "labs": "sites", "laboratories": "sites"}


def standard_names(names: Sequence[str], where: str) -> list[str]:
    """Replaces every synonym by the name it stands for.

    Args:
        names: as they stand in the file.
        where: the file, for the message.

    Returns:
        The names in the same order; names that are no synonym stay as they are.

    Raises:
        DataError: a name and its synonym stand side by side.
    """
    for synonym, name in SYNONYMS.items():
        if synonym in names and any(SYNONYMS.get(other, other) == name for other in names if other != synonym):
            raise DataError(f"{where}: expected one of {name!r} and its synonym {synonym!r}, found both. Remove one.")
    return [SYNONYMS.get(name, name) for name in names]
