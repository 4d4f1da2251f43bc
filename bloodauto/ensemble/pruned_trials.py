"""Stopped trials as ensemble candidates: the best of them are evaluated with the weights that they had when they ended.

They were pruned, cut by the end of the budget, or interrupted by a lost process or a full disk.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from bloodauto.clock import Clock
from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.ensemble.assemble import PrunedEvaluation
from bloodauto.errors import RunError
from bloodauto.evaluation.evaluator import Evaluator
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.evaluation.latency import batch_latency_ms
from bloodauto.models.network import trained_network
from bloodauto.run.artifacts import NetworkWeights, Objective
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.epoch_history import kept_report
from bloodauto.training.result import TrialResult, objective_of

_log = logging.getLogger(__name__)

#: A training is worth an evaluation when it is no further than this behind the best completed one, both on the validation
#: subset: a model with other errors may still improve the ensemble.
_MAX_GAP = 0.05
_MAX_EVALUATED = 4
#: A step may take this many times the seconds that were measured or predicted.
_MARGIN = 1.3


@dataclass(frozen=True)
class StoppedTrainings:
    """The trainings of a search, by how they ended.

    Attributes:
        pruned: Numbers of trials that were not completed, whatever ended them.
        completed: Numbers of completed trials. Without any, the stopped trainings are compared with the best of themselves.
        refits: Names of the refits of fold 0 that ended before they were evaluated.
    """

    pruned: tuple[int, ...]
    completed: tuple[int, ...]
    refits: tuple[str, ...] = ()


def evaluate_pruned(
    run: RunDirectory,
    trainings: StoppedTrainings,
    fold_data: Callable[[], FoldData],
    *,
    objective: Objective,
    seconds_left: Callable[[], float],
    start_seconds: float,
    clock: Clock,
) -> PrunedEvaluation:
    """Evaluates the most promising stopped trainings on the images of all candidates, for as long as time lasts.

    Which are promising is decided by the score of the epoch whose weights were kept, on the validation subset, because that
    costs nothing. Refits come before trials: they have trained longest. Where no training has completed an epoch, the one that
    came furthest in its first is evaluated, with the weights of its last checkpoint. Where no training was completed, the first
    is evaluated however little time is left: without it there is nothing to export.

    Args:
        run: The run.
        trainings: The candidates.
        fold_data: Prepares fold 0; called when it is first needed.
        objective: Of the search.
        seconds_left: Wall seconds that may still be spent here, once there is something to export.
        start_seconds: Wall seconds until the first network is built, the preparation of the fold included.
        clock: Measures the duration.
    """
    # Trials by their number, refits by their name.
    files: dict[int | str, TrainingDirectory] = {name: run.refit(name) for name in trainings.refits}
    files.update({number: run.trial(number) for number in trainings.pruned})
    scores = {key: score for key, training in files.items() if (score := _kept_score(training)) is not None}
    completed_scores = [
        score for number in trainings.completed if (score := _kept_score(run.trial(number))) is not None
    ]
    if not scores and not completed_scores:
        return _evaluate_furthest(files, fold_data, objective=objective, clock=clock)
    num_pruned = sum(isinstance(key, int) for key in scores)
    best_score = max(completed_scores if completed_scores else scores.values(), default=0.0)
    promising = [key for key, score in scores.items() if score >= best_score - _MAX_GAP]
    best_first = sorted(promising, key=lambda key: (isinstance(key, int), -scores[key], str(key)))
    evaluated: list[int | str] = []
    needed_seconds = start_seconds

    def seconds() -> float:
        return seconds_left() if evaluated or trainings.completed else math.inf

    for key in best_first[:_MAX_EVALUATED]:
        training = files[key]
        if training.predictions.exists and training.result.exists:
            # Evaluated by an earlier session.
            evaluated.append(key)
            continue
        recipe = load_recipe(training.recipe)
        if seconds() < _MARGIN * needed_seconds:
            break
        start = clock.now()
        try:
            if not _evaluate_training(training, recipe, Evaluator(fold_data(), clock), objective, seconds):
                break
        except Exception as error:
            # Whatever ended the training may happen again here; it must not take the others with it.
            _log.warning("%s could not be evaluated for the ensemble: %s", training.root.name, error)
            continue
        needed_seconds = clock.now() - start
        evaluated.append(key)
    return PrunedEvaluation(
        pruned=num_pruned,
        promising=sum(isinstance(key, int) for key in promising),
        trial_numbers=tuple(key for key in evaluated if isinstance(key, int)),
        refits=tuple(key for key in evaluated if isinstance(key, str)),
    )


def _evaluate_furthest(
    files: Mapping[int | str, TrainingDirectory],
    fold_data: Callable[[], FoldData],
    *,
    objective: Objective,
    clock: Clock,
) -> PrunedEvaluation:
    """Evaluates the training that came furthest within its first epoch, so that a search that trained has an export."""
    progress = {
        key: fraction for key, training in files.items() if (fraction := _keep_checkpoint(training)) is not None
    }
    evaluated: list[int | str] = []
    for key in sorted(progress, key=lambda key: (-progress[key], str(key))):
        training = files[key]
        try:
            if not (training.predictions.exists and training.result.exists):
                evaluator = Evaluator(fold_data(), clock)
                _evaluate_training(training, load_recipe(training.recipe), evaluator, objective, lambda: math.inf)
        except Exception as error:
            # As above.
            _log.warning("%s could not be evaluated for the ensemble: %s", training.root.name, error)
            continue
        evaluated.append(key)
        break
    return PrunedEvaluation(
        pruned=sum(isinstance(key, int) for key in progress),
        promising=sum(isinstance(key, int) for key in evaluated),
        trial_numbers=tuple(key for key in evaluated if isinstance(key, int)),
        refits=tuple(key for key in evaluated if isinstance(key, str)),
    )


def _keep_checkpoint(training: TrainingDirectory) -> float | None:
    """Keeps the weights of a checkpoint where no epoch's were kept; returns how much of the recipe it had done.

    None where nothing was trained, or a file is missing or damaged.
    """
    try:
        checkpoint = training.checkpoint.read_if_exists()
    except RunError:
        return None
    if checkpoint is None or checkpoint.progress == 0 or not training.recipe.is_file():
        return None
    if not training.weights.exists:
        training.weights.write(NetworkWeights(weights=checkpoint.weights))
    return checkpoint.progress


def _kept_score(training: TrainingDirectory) -> float | None:
    """The objective after the epoch whose weights were kept; None where a file is missing or damaged."""
    if not (training.recipe.is_file() and training.weights.exists and training.history.exists):
        return None
    try:
        epochs = training.history.read().epochs
        return kept_report(epochs, load_recipe(training.recipe).stages).objective if epochs else None
    except RunError:
        return None


def _evaluate_training(
    training: TrainingDirectory,
    recipe: Recipe,
    evaluator: Evaluator,
    objective: Objective,
    seconds_left: Callable[[], float],
) -> bool:
    """Writes predictions and result of a training; returns False, with nothing written, when there is too little time."""
    fold_data = evaluator.fold_data
    network = trained_network(
        recipe,
        training.weights.path,
        num_classes=fold_data.num_classes,
        image_shape_px=fold_data.image_shape_px,
    )
    latency_ms = batch_latency_ms(network, fold_data.shifted_images, clock=evaluator.clock)
    if seconds_left() < _MARGIN * fold_data.num_evaluated_images * latency_ms / 1000:
        return False
    evaluation = evaluator.evaluate(network)
    history = training.history.read_if_exists()
    epochs = () if history is None else history.epochs
    result = TrialResult(
        finished=False,
        objective=objective_of(evaluation, objective),
        evaluation=evaluation,
        history=epochs,
        parameters=network.count_params(),
        seconds=sum(report.seconds for report in epochs),
    )
    training.predictions.write(evaluation.predictions)
    training.result.write(result.to_artifact())
    keras.backend.clear_session()
    return True
