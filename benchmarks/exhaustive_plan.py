"""A plan of the shift suite with every family at every severity, which benchmarks evaluate on and trials do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bloodauto.shift.suite import ShiftPlan, ShiftSuite
from bloodauto.types import Labels


def exhaustive_plan(suite: ShiftSuite, labels: Labels, severities: Sequence[int]) -> ShiftPlan:
    """Every family at every severity on the whole subsample.

    Args:
        suite: Its seed, families and number of images.
        labels: int (n,), of all validation images.
        severities: Of 1 to 5.

    Returns:
        The plan, family by family and severity by severity.
    """
    images = suite.subsample(labels, suite.num_images)
    combinations = [(index, severity) for index in range(len(suite.families)) for severity in severities]
    rows = [np.column_stack([np.tile(combination, (len(images), 1)), images]) for combination in combinations]
    return suite.plan_of(np.concatenate(rows), len(labels))
