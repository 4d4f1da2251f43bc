"""What docs/augmentation.md says of the operations is what the code does."""

from __future__ import annotations

from pathlib import Path

from bloodauto.augment import OPERATIONS
from bloodauto.augment.operations import Spread

PAGE = Path(__file__).parents[2] / "docs" / "augmentation.md"


def test_the_page_lists_every_operation_with_its_range():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for operation in OPERATIONS.values():
        limit = "-" if operation.spread is Spread.ALWAYS else f"{operation.limit:g} {operation.unit}"
        cells = (
            operation.name,
            operation.kind.value,
            operation.spread.value,
            limit,
            operation.meaning,
            operation.source,
        )
        assert f"| {' | '.join(cells)} |" in rows
