"""What a training gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bloodauto.trial.checkpoint import EpochReport
from bloodauto.trial.material import Judgement


@dataclass(frozen=True)
class TrialResult:
    """What a training gave.

    Attributes:
        finished: it ran its course (all stages, or ended by its own patience); False when it was told to stop.
        objective: of the kept weights on all validation images, 0-1.
        judgement: all their scores.
        history: every epoch's report.
        parameters: of the whole network.
        seconds: training and evaluation, start-up excluded.
    """

    finished: bool
    objective: float
    judgement: Judgement
    history: tuple[EpochReport, ...]
    parameters: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """What ``result.json`` holds; ``data_wait_fraction`` is the share of all training time spent waiting for images."""
        metrics = {**asdict(self.judgement.metrics), "shift": self.judgement.shift}
        training = sum(report.seconds - report.evaluation_seconds for report in self.history)
        waited = sum(one.data_wait_fraction * (one.seconds - one.evaluation_seconds) for one in self.history)
        return {
            "finished": self.finished,
            "objective": self.objective,
            "metrics": metrics,
            "parameters": self.parameters,
            "latency_ms": self.judgement.latency_ms,
            "target_estimate": self.judgement.target_estimate,
            "seconds": self.seconds,
            "data_wait_fraction": waited / training if training > 0 else 0.0,
        }
