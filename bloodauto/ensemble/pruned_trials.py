"""Trials that were stopped at a rung, judged by the weights they had: candidates for the ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from bloodauto.config.objectives import Objective
from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.ensemble.assemble import PrunedEvaluation
from bloodauto.errors import RunError, TrialFailure, UserError
from bloodauto.evaluation.fold_data import FoldData, evaluate, milliseconds_per_image
from bloodauto.models.network import trained_network
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_json
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.epoch_history import kept_report
from bloodauto.training.result import TrialResult, objective_of

#: No further than this behind the best training, by what was judged after their epochs: one that errs differently may
#: still gain something beside it.
_CLOSE_ENOUGH = 0.05
_MAX_EVALUATED = 4
#: Something may take so much longer than it was measured or predicted to.
_MARGIN = 1.3


def evaluate_pruned(
    run: RunDirectory,
    stopped: Sequence[int],
    completed: Sequence[int],
    refits: Sequence[str],
    fold_data: Callable[[], FoldData],
    *,
    objective: Objective,
    seconds_left: Callable[[], float],
    start_seconds: float,
) -> PrunedEvaluation:
    """Gives the best stopped trainings predictions for the images that all candidates answer for, as long as time lasts.

    Refits come before trials: they have trained longest. A training is as good as the epoch whose weights it kept, by the
    part of the images that is judged after an epoch; which of them are worth more is decided by that, for it costs nothing.

    Args:
        stopped: numbers of trials that trained for an epoch or more and did not run their course.
        completed: those of trials that did; with none of them there is nothing to compare with, and none is judged.
        refits: names of those of fold 0 that were ended before they had been judged.
        material: of fold 0, made when it is first needed.
        objective: of the search.
        seconds_left: wall seconds that may still be spent here.
        start_seconds: wall seconds that it takes until the first network is there, the images and views included.
    """
    folders: dict[int | str, Path] = {name: run.refit(name).root for name in refits}
    folders.update({number: run.trial(number).root for number in stopped})
    scores = {one: score for one, folder in folders.items() if (score := _kept_score(folder)) is not None}
    rivals = [score for number in completed if (score := _kept_score(run.trial(number).root)) is not None]
    if not rivals:
        return PrunedEvaluation(pruned=len(scores))
    close = [one for one, score in scores.items() if score >= max(rivals) - _CLOSE_ENOUGH]
    promising = sorted(close, key=lambda one: (isinstance(one, int), -scores[one], str(one)))[:_MAX_EVALUATED]
    evaluated: list[int | str] = []
    needed = start_seconds
    for one in promising:
        folder = folders[one]
        if (folder / "predictions.npz").is_file() and (folder / "result.json").is_file():
            # An earlier session came that far.
            evaluated.append(one)
            continue
        recipe = load_recipe(folder / "recipe.yaml")
        if seconds_left() < _MARGIN * needed:
            break
        started = time.monotonic()
        try:
            if not _evaluate_one(folder, recipe, fold_data(), objective, seconds_left):
                break
        except (TrialFailure, UserError):
            # Weights that do not fit, or answers that are no numbers; others may do.
            continue
        needed = time.monotonic() - started
        evaluated.append(one)
    return PrunedEvaluation(
        sum(isinstance(one, int) for one in scores),
        sum(isinstance(one, int) for one in close),
        tuple(one for one in evaluated if isinstance(one, int)),
        tuple(one for one in evaluated if isinstance(one, str)),
    )


def _history(folder: Path) -> tuple[EpochReport, ...]:
    return TrainingDirectory(folder).history.read().epochs


def _kept_score(folder: Path) -> float | None:
    """The objective after the epoch whose weights were kept; None where a file is missing or damaged."""
    if not all((folder / name).is_file() for name in ("recipe.yaml", "best.npz", "history.json")):
        return None
    try:
        history = _history(folder)
        return kept_report(history, load_recipe(folder / "recipe.yaml").stages).objective if history else None
    except (RunError, TypeError):
        return None


def _evaluate_one(
    folder: Path, recipe: Recipe, fold_data: FoldData, objective: Objective, seconds_left: Callable[[], float]
) -> bool:
    """Whether there was time for it."""
    shape = fold_data.images.shape
    network = trained_network(
        recipe, folder / "best.npz", num_classes=fold_data.num_classes, image_shape_px=(shape[1], shape[2])
    )
    images = len(fold_data.validation_index) + len(fold_data.shifted_images) + len(fold_data.target)
    # Its latency is measured once more when it is judged.
    if seconds_left() < _MARGIN * images * milliseconds_per_image(network, fold_data.shifted_images) / 1000:
        return False
    evaluation, predictions = evaluate(network, fold_data, subset_only=False)
    history = _history(folder)
    result = TrialResult(
        finished=False,
        objective=objective_of(evaluation, objective),
        evaluation=evaluation,
        history=history,
        parameters=network.count_params(),
        seconds=sum(report.seconds for report in history),
    )
    predictions.write(folder / "predictions.npz")
    write_json(folder / "result.json", result.to_json())
    keras.backend.clear_session()
    return True
