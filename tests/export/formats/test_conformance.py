"""Every export format keeps what formats promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bloodauto.errors import UserError
from bloodauto.export.formats import EXPORTERS, check_formats
from bloodauto.export.formats.exporter import Exporter
from bloodauto.testing.conformance.exporters import EXPORTER_CHECKS


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=EXPORTERS.keys())
@pytest.mark.parametrize("check", EXPORTER_CHECKS, ids=lambda check: check.__name__)
def test_every_format_keeps_its_promises(
    check: Callable[[Exporter, Path], None], exporter: Exporter, tmp_path: Path
) -> None:
    check(exporter, tmp_path)


def test_formats_are_checked_and_written_in_a_fixed_order() -> None:
    assert check_formats(["codabench", "keras", "codabench"]) == ("keras", "codabench")
    with pytest.raises(UserError, match="did you mean 'codabench'"):
        check_formats(["keras", "codabanch"])
    with pytest.raises(UserError, match="at least one"):
        check_formats([])


def test_no_two_formats_write_the_same_file() -> None:
    assert len({exporter.file_name for exporter in EXPORTERS.values()}) == len(EXPORTERS)
