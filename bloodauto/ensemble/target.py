"""What to expect of an ensemble in the laboratory it is meant for, from unlabelled images of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from bloodauto.ensemble.record import Ensemble
from bloodauto.files import RunDirectory, read_arrays, write_json
from bloodauto.shift.target import estimate_by_threshold, mean_agreement, mean_confidence

TARGET_FILE = "target.json"


@dataclass(frozen=True)
class TargetEstimate:
    """What unlabelled target images say; all 0-1.

    Attributes:
        images: how many there were.
        accuracy: estimated by average thresholded confidence (arXiv:2201.04234); the mean over the members by weight.
        confidence: the mean of the ensemble's highest probability, before calibration.
        agreement: how often two of its networks give the same answer; None for one network.
    """

    images: int
    accuracy: float
    confidence: float
    agreement: float | None


def estimate_target(ensemble: Ensemble) -> TargetEstimate:
    """Estimates from what the members' networks answered when they were trained.

    Raises:
        RunError: a member's predictions are missing or damaged.
    """
    accuracies, weights, answers = [], [], []
    for member in ensemble.members:
        for one in member.networks:
            arrays = read_arrays(one.folder / "predictions.npz")
            labels = np.concatenate([arrays["labels"], arrays["view_labels"]])
            known = np.concatenate([arrays["clean"], arrays["shifted"]])
            accuracies.append(estimate_by_threshold(labels, known, arrays["target"]))
            weights.append(member.weight / len(member.networks))
            answers.append(arrays["target"])
    together = np.average(answers, axis=0, weights=weights)
    return TargetEstimate(
        images=len(together),
        accuracy=float(np.average(accuracies, weights=weights)),
        confidence=mean_confidence(together),
        agreement=float(mean_agreement(answers).mean()) if len(answers) > 1 else None,
    )


def write_target(run: RunDirectory, estimate: TargetEstimate) -> None:
    """Writes ``target.json``."""
    write_json(run.root / TARGET_FILE, asdict(estimate))
