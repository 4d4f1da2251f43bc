"""What tests and doctests share. Doctests of the package run with the tests; the slow ones are marked here."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.doctest import DoctestItem

pytest_plugins = ["tests.search_fixtures"]

#: Doctests that train, or that read a finished search.
SLOW_DOCTESTS = (
    "bloodauto.export.model.",
    "bloodauto.report.html.write_report",
    "bloodauto.workflows.adapt.adapt",
    "bloodauto.workflows.compare.ablate",
    "bloodauto.workflows.evaluate.evaluate",
    "bloodauto.workflows.explain.explain",
    "bloodauto.workflows.export.",
    "bloodauto.workflows.search.SearchResult",
    "bloodauto.workflows.search.resume_search",
    "bloodauto.workflows.search.search",
    "bloodauto.workflows.train.",
)
RECIPE = """
input: {size_px: 32}
backbone: {name: own_cnn, weights: none, width: 8, blocks: 3}
augmentation: {orientation: true}
batch_size: 32
stages:
  - epochs: 2
    optimizer: {name: adamw, learning_rate: 5.0e-3}
    schedule: {name: constant}
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks slow doctests; keeps the tests of a file on one worker, and what reads the finished search as well.

    Whole searches come first: the short tests then fill the time until the last of them ends.
    """
    for item in items:
        if isinstance(item, DoctestItem) and item.name.startswith(SLOW_DOCTESTS):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(900))
            item.add_marker(pytest.mark.xdist_group("finished_search"))
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
    items.sort(key=lambda item: "integration" not in item.path.parts and not item.name.startswith(SLOW_DOCTESTS))


def _process_state() -> dict[str, Any]:
    """What a call of the package may not leave changed."""
    return {
        "environment": {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "warning filters": list(warnings.filters),
        "log levels": {name: logging.getLogger(name).level for name in ("", "bloodauto", "optuna", "ray", "ray.tune")},
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
    }


@pytest.fixture(autouse=True)
def _doctest_folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs a doctest in an empty folder; a slow one finds data, a recipe, a space and a finished search there.

    A workflow's doctest also checks that the process is left as it was.
    """
    if not isinstance(request.node, DoctestItem):
        yield
        return
    folder: Path = request.getfixturevalue("tmp_path")
    monkeypatch.chdir(folder)
    if request.node.get_closest_marker("slow") is None:
        yield
        return
    _fill(folder, request)
    import bloodauto

    # The first use of a name imports libraries, which set up their loggers.
    assert bloodauto.search
    before = _process_state()
    yield
    # Others import libraries at their first call, which add filters of their own.
    if request.node.name.startswith("bloodauto.workflows."):
        after = _process_state()
        # A library that is imported late adds filters of its own; none of the earlier ones may be lost.
        after["warning filters"] = [entry for entry in after["warning filters"] if entry in before["warning filters"]]
        assert after == before


def _fill(folder: Path, request: pytest.FixtureRequest) -> None:
    from bloodauto.data.load import load_dataset

    inputs, finished = request.getfixturevalue("inputs"), request.getfixturevalue("finished_search")
    shutil.copy(inputs.dataset, folder / "cells.npz")
    shutil.copy(inputs.short_space, folder / "space.yaml")
    (folder / "recipe.yaml").write_text(RECIPE)
    np.save(folder / "new_cells.npy", load_dataset(inputs.dataset).images[:24])
    shutil.copytree(finished.run.root, folder / "runs" / "first")
