"""What a training returns."""

from __future__ import annotations

from dataclasses import dataclass

from bloodauto.evaluation.evaluator import Evaluation
from bloodauto.evaluation.metrics import validation_figures
from bloodauto.run.artifacts import AveragedEpochs, EpochReport, Objective, TrainingResult


@dataclass(frozen=True)
class TrialResult:
    """What a training returns.

    Attributes:
        finished: it completed all stages or ended by early stopping; False when it was told to stop.
        objective: of the kept weights on all validation images, 0-1.
        evaluation: of the kept weights.
        history: every epoch's report.
        parameters: of the whole network.
        seconds: wall seconds of training and evaluation, start-up excluded.
        averaged_epochs: None where the recipe averages weights itself, too few epochs were in the last quarter, or the
            training did not finish.
    """

    finished: bool
    objective: float
    evaluation: Evaluation
    history: tuple[EpochReport, ...]
    parameters: int
    seconds: float
    averaged_epochs: AveragedEpochs | None = None

    def to_artifact(self) -> TrainingResult:
        """What is kept of it in ``result.json``."""
        predictions = self.evaluation.predictions
        return TrainingResult(
            finished=self.finished,
            objective=self.objective,
            metrics=self.evaluation.clean,
            shift=self.evaluation.score,
            latency_ms=self.evaluation.latency_ms,
            target_estimate=self.evaluation.target_estimate,
            epochs=len(self.history),
            parameters=self.parameters,
            seconds=self.seconds,
            averaged_epochs=self.averaged_epochs,
            data_wait_fraction=self._data_wait_fraction(),
            validation=validation_figures(predictions.labels, predictions.clean),
        )

    def _data_wait_fraction(self) -> float:
        training_seconds = [report.seconds - report.evaluation_seconds for report in self.history]
        waited = sum(
            report.data_wait_fraction * seconds for report, seconds in zip(self.history, training_seconds, strict=True)
        )
        total = sum(training_seconds)
        return waited / total if total > 0 else 0.0


def objective_of(evaluation: Evaluation, objective: Objective) -> float:
    """The value of the primary objective, 0-1.

    With unlabelled target images, ``shift`` is the mean of the shift score and the accuracy estimated on them.

    Args:
        evaluation: Of a network.
        objective: Which score.
    """
    if objective != "shift":
        return float(getattr(evaluation.clean, objective))
    if evaluation.target_estimate is None:
        return evaluation.score
    return (evaluation.score + evaluation.target_estimate) / 2
