"""The exhaustive plan is the product of families, severities and images."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from bloodauto.shift.corruptions import FAMILIES
from bloodauto.shift.suite import ShiftSuite
from tests.locations import ROOT


def test_every_family_at_every_severity_on_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    exhaustive_plan = importlib.import_module("exhaustive_plan").exhaustive_plan
    plan = exhaustive_plan(ShiftSuite(seed=0, num_images=10), np.arange(24) % 4, (2, 3, 4))
    assert len(plan) == 10 * len(FAMILIES) * 3
    rows = set(zip(plan.family_index.tolist(), plan.severities.tolist(), plan.image_index.tolist(), strict=True))
    assert len(rows) == len(plan)
    assert set(plan.severities.tolist()) == {2, 3, 4}
    assert plan.num_validation_images == 24
