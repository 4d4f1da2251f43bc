from __future__ import annotations

import pytest

from bloodauto.testing.conformance import sample_cells
from bloodauto.types import Images


@pytest.fixture(scope="session")
def cells() -> Images:
    """uint8 (24, 96, 96, 3)."""
    return sample_cells(24)
