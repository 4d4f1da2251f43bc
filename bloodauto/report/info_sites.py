"""What a report says of named laboratories, of the one that is meant, and of trials that none other beats."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SiteScores:
    """The ensemble's scores, 0-1, on the images of a laboratory that its networks did not learn from."""

    site: str
    images: int | None
    accuracy: float | None
    balanced_accuracy: float | None


@dataclass(frozen=True)
class TargetInfo:
    """What unlabelled images of the target laboratory say of the ensemble, 0-1; ``agreement`` of its networks."""

    images: int | None
    accuracy: float | None
    confidence: float | None
    agreement: float | None


@dataclass(frozen=True)
class StudentInfo:
    """A network that learnt the ensemble's answers; its scores by name, and the ensemble's, on images it did not learn from."""

    network: str
    parameters: int | None
    teacher_parameters: int | None
    scores: tuple[tuple[str, float | None], ...]
    teacher_scores: tuple[tuple[str, float | None], ...]
    agreement: float | None
    agreement_shifted: float | None


@dataclass(frozen=True)
class ParetoTrial:
    """A trial that no other dominates; ``values`` by the objective's name."""

    trial: int | None
    backbone: str
    values: tuple[tuple[str, float | None], ...]
