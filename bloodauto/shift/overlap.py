"""The overlap of training augmentation and the shift suite: which families training covers, and up to which severity.

A network that was trained on a corruption shows little of its robustness by its accuracy there. What the recipes of a search
may train on therefore counts less in the score of all of them (``suite.ShiftSuite``). The registry of image operations says
which operation covers which family (``Operation.covers``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bloodauto.shift.corruptions import FAMILIES
from bloodauto.transforms import OPERATIONS, Policy
from bloodauto.transforms.policies import largest_strengths


@dataclass(frozen=True)
class TrainingCoverage:
    """How much of a family training covers.

    Attributes:
        family: The family's name.
        severity: The highest severity that is covered, above 0; may lie between two of the family's severities.
    """

    family: str
    severity: float


def training_coverage(policies: Iterable[Policy]) -> tuple[TrainingCoverage, ...]:
    """How much of each family any of several policies covers.

    ``combined_shift`` is never covered: whether robustness to single shift factors holds when all act at once is what it
    measures.

    Args:
        policies: Everything that training does to images.

    Returns:
        The families that are covered, in the order of ``FAMILIES``.
    """
    severities = {family.name: 0.0 for family in FAMILIES}
    families = {family.name: family for family in FAMILIES}
    for name, strength in largest_strengths(policy.max_strengths() for policy in policies).items():
        if strength > 0:
            for family, level_of_strength in OPERATIONS[name].covers.items():
                severity = families[family].severity_at(level_of_strength(strength))
                severities[family] = max(severities[family], severity)
    return tuple(TrainingCoverage(name, severity) for name, severity in severities.items() if severity > 0)
