import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def memory_folder() -> Iterator[Path]:
    """In memory where there is such a place: a simulated ledger forces thousands of lines to disk."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def folder(memory_folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=memory_folder))
