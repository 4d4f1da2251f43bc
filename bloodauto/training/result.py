"""What a training gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bloodauto.config.objectives import Cost, Objective, Objectives
from bloodauto.evaluation.evaluator import Evaluation
from bloodauto.evaluation.metrics import validation_figures
from bloodauto.run import artifacts
from bloodauto.run.artifacts import EpochReport


@dataclass(frozen=True)
class AveragedEpochs:
    """The average of the weights after the last epochs, beside the weights that were kept so far.

    Attributes:
        epochs: how many were averaged.
        objective, kept_objective: of the average, and of the kept epoch, on the part that is judged after every epoch, 0-1.
        taken: whether it was better, and took their place.
    """

    epochs: int
    objective: float
    kept_objective: float
    adopted: bool


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
        averaged_epochs: None where the recipe averages itself, too few epochs were in the last quarter, or it did not finish.
    """

    finished: bool
    objective: float
    evaluation: Evaluation
    history: tuple[EpochReport, ...]
    parameters: int
    seconds: float
    averaged_epochs: AveragedEpochs | None = None

    def secondary_values(self, objectives: Objectives) -> tuple[float, ...]:
        """The values of all objectives but the primary one, in their order."""
        return tuple(self._value_of(name) for name in objectives.secondary)

    def _value_of(self, name: Objective | Cost) -> float:
        if name == "latency":
            assert self.evaluation.latency_ms is not None, "the final evaluation measures the latency"
            return self.evaluation.latency_ms
        if name == "parameters":
            return float(self.parameters)
        return self.evaluation.score if name == "shift" else float(getattr(self.evaluation.clean, name))

    def to_artifact(self) -> artifacts.TrialResult:
        """What ``result.json`` holds."""
        predictions = self.evaluation.predictions
        return artifacts.TrialResult(
            finished=self.finished,
            objective=self.objective,
            metrics=self.evaluation.clean,
            shift=self.evaluation.score,
            latency_ms=self.evaluation.latency_ms,
            target_estimate=self.evaluation.target_estimate,
            epochs=len(self.history),
            parameters=self.parameters,
            seconds=self.seconds,
            averaged_epochs=None
            if self.averaged_epochs is None
            else artifacts.AveragedEpochs(**asdict(self.averaged_epochs)),
            data_wait_fraction=self.data_wait_fraction,
            validation=validation_figures(predictions.labels, predictions.clean),
        )

    @property
    def data_wait_fraction(self) -> float:
        """Fraction of all training time that was spent waiting for images, 0-1."""
        training = sum(report.seconds - report.evaluation_seconds for report in self.history)
        waited = sum(
            report.data_wait_fraction * (report.seconds - report.evaluation_seconds) for report in self.history
        )
        return waited / training if training > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The scores and costs as plain values, for the command line's JSON."""
        metrics = {**self.evaluation.clean.model_dump(), "shift": self.evaluation.score}
        return {
            "finished": self.finished,
            "objective": self.objective,
            "metrics": metrics,
            "parameters": self.parameters,
            "latency_ms": self.evaluation.latency_ms,
            "target_estimate": self.evaluation.target_estimate,
            "seconds": self.seconds,
            "averaged_epochs": None if self.averaged_epochs is None else asdict(self.averaged_epochs),
            "data_wait_fraction": self.data_wait_fraction,
        }


def objective_of(evaluation: Evaluation, objective: Objective) -> float:
    """The one number a search maximises, 0-1; with unlabelled target images, half of ``shift`` is what they say."""
    if objective != "shift":
        return float(getattr(evaluation.clean, objective))
    if evaluation.target_estimate is None:
        return evaluation.score
    return (evaluation.score + evaluation.target_estimate) / 2
