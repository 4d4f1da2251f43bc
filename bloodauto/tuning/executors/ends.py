"""How a training ended, by its result: told by the worker, or read from the files that it left."""

from __future__ import annotations

from bloodauto.config.objectives import Cost, Objectives
from bloodauto.errors import RunError
from bloodauto.run.artifacts import Objective, TrainingResult
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.tuning.messages import Completed


def completed_end(result: TrainingResult, objectives: Objectives, *, is_timed: bool = True) -> Completed:
    """The end of a training that wrote a finished result.

    Args:
        result: Its ``result.json``.
        objectives: Of the search.
        is_timed: As of ``Completed``.
    """
    secondary = tuple(_value_of(result, name) for name in objectives.secondary)
    return Completed(result.objective, secondary, is_timed=is_timed)


def _value_of(result: TrainingResult, name: Objective | Cost) -> float:
    if name == "latency":
        assert result.latency_ms is not None, "the final evaluation measures the latency"
        return result.latency_ms
    if name == "parameters":
        return float(result.parameters)
    return result.shift if name == "shift" else float(getattr(result.metrics, name))


def end_on_disk(training: TrainingDirectory, objectives: Objectives) -> Completed | None:
    """How a training ended by its own files.

    Args:
        training: Its directory.
        objectives: Of the search.

    Returns:
        None where it has no finished result, or one that cannot be read: it is then trained on, or evaluated again.
    """
    try:
        result = training.result.read_if_exists()
    except RunError:
        return None
    if result is None or not result.finished or not training.has_candidate_files:
        return None
    return completed_end(result, objectives, is_timed=False)
