"""The formats that a model is exported in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bloodauto.config.validation import did_you_mean
from bloodauto.errors import UserError
from bloodauto.export.formats.codabench import CodabenchExporter
from bloodauto.export.formats.exporter import Exporter
from bloodauto.export.formats.keras_model import KerasExporter

#: Every format by its name, in the order in which they are written: what is needed most comes first.
EXPORTERS: Mapping[str, Exporter] = {exporter.name: exporter for exporter in (KerasExporter(), CodabenchExporter())}


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Checks the names of formats.

    Returns:
        Each format once, in the order in which they are written.

    Raises:
        UserError: an unknown format, with the nearest known one, or no format at all.

    Example:
        >>> check_formats(["codabench", "keras", "codabench"])
        ('keras', 'codabench')
    """
    for name in names:
        if name not in EXPORTERS:
            raise UserError(f"format: expected a known one, got {name!r}; {did_you_mean(name, EXPORTERS)}")
    if not names:
        raise UserError(f"format: expected at least one of {', '.join(EXPORTERS)}, got none.")
    return tuple(name for name in EXPORTERS if name in names)
