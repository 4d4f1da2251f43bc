from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset

from .runs import SPACE


@dataclass(frozen=True)
class Material:
    """Four hundred small synthetic cells, and spaces of one network that learns them within seconds."""

    dataset: Path
    short: Path
    long: Path


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("material")
    write_dataset(synthesize(400, site="lab_a", seed=3, image_size_px=48), folder / "cells.npz")
    for name, epochs in (("short", 3), ("long", 12)):
        (folder / f"{name}.yaml").write_text(SPACE.format(epochs=epochs))
    return Material(folder / "cells.npz", folder / "short.yaml", folder / "long.yaml")
