"""What to expect of an ensemble in the laboratory it is meant for, from unlabelled images of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from bloodauto.ensemble.record import Ensemble
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_arrays, write_json
from bloodauto.shift.target_estimators import estimate_by_transport, mean_agreement

TARGET_FILE = "target.json"


@dataclass(frozen=True)
class TargetEstimate:
    """What unlabelled target images say; all 0-1.

    Attributes:
        images: how many there were.
        accuracy: estimated by confidence optimal transport; see ``shift.target.estimate_by_transport``.
        confidence: the mean of the ensemble's highest probability, before calibration.
        agreement: how often two of its networks give the same answer; None for one network.
    """

    images: int
    accuracy: float
    confidence: float
    agreement: float | None


def estimate_target(ensemble: Ensemble, class_fractions: np.ndarray) -> TargetEstimate:
    """Estimates from what the members' networks answered when they were trained.

    Args:
        class_fractions: float (classes,), how often each class is expected in the target laboratory.

    Raises:
        RunError: a member's predictions are missing or damaged.
    """
    weights, answers = [], []
    for member in ensemble.members:
        for one in member.networks:
            weights.append(member.weight / len(member.networks))
            answers.append(read_arrays(one.folder / "predictions.npz")["target"])
    together = np.average(answers, axis=0, weights=weights)
    return TargetEstimate(
        images=len(together),
        accuracy=estimate_by_transport(together, class_fractions),
        confidence=float(together.max(axis=1).mean()),
        agreement=mean_agreement(answers) if len(answers) > 1 else None,
    )


def write_target(run: RunDirectory, estimate: TargetEstimate) -> None:
    """Writes ``target.json``."""
    write_json(run.root / TARGET_FILE, asdict(estimate))
