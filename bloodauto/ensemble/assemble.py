"""A run's trainings -> its ensemble: candidates from their predictions, weights, temperature, scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodauto.ensemble.calibration import (
    apply_temperature,
    balanced_weights,
    expected_calibration_error,
    fit_temperature,
)
from bloodauto.ensemble.scoring import EnsembleMetric, Scorer, Truth
from bloodauto.ensemble.selection import Candidate, Selection, select
from bloodauto.errors import RunError
from bloodauto.files import RunDirectory, read_arrays, read_json, write_json
from bloodauto.recipe import load_recipe
from bloodauto.trial.metrics import measure

#: Trials beyond the best few only make the selection overfit.
_MAX_TRIALS = 8
#: A set of folds must not be worse than the best network on fold 0 by more than noise; else that one is shipped.
_FOLD_TOLERANCE = 0.01


@dataclass(frozen=True)
class Trained:
    """A training whose weights and predictions lie in the run.

    Attributes:
        name: unique in the run.
        kind: ``trial`` or ``refit``.
        trial: the trial whose recipe it has.
        fold: the fold it was not trained on.
        folder: with ``recipe.yaml``, ``best.npz``, ``predictions.npz`` and ``result.json``.
    """

    name: str
    kind: str
    trial: int
    fold: int
    folder: Path


@dataclass(frozen=True)
class Member:
    """A member of the ensemble: one network, or one for each fold averaged evenly.

    Attributes:
        weight: its share of the averaged probabilities.
        scores: of it alone, on the images the ensemble was chosen by.
    """

    name: str
    kind: str
    trial: int
    weight: float
    parameters: int
    recipe_id: str
    scores: dict[str, float]
    networks: tuple[Trained, ...]


@dataclass(frozen=True)
class Ensemble:
    """The ensemble of a run. Its scores are those of the images it was chosen by: optimistic figures."""

    metric: str
    members: tuple[Member, ...]
    temperature: float
    scores: dict[str, float]
    best_single: tuple[str, dict[str, float]]
    trace: tuple[tuple[int, str, float], ...]
    images: int
    views: int


#: By a training's name what it answers when it looks otherwise than the search did: ``clean`` and ``shifted``, in the order
#: of its ``predictions.npz``.
Looked = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class _Answers:
    """One candidate's networks and their joined out-of-fold answers."""

    networks: tuple[Trained, ...]
    labels: np.ndarray
    clean: np.ndarray
    view_labels: np.ndarray
    view_groups: np.ndarray
    view_weights: np.ndarray
    shifted: np.ndarray
    parameters: int

    @property
    def truth(self) -> Truth:
        return Truth(self.labels, self.view_labels, self.view_groups, self.view_weights)


def find_trained(run: RunDirectory, completed: list[tuple[int, float]]) -> list[Trained]:
    """The trainings that can be members.

    Args:
        completed: number and objective of the trials that ran their course.
    """
    best_first = sorted(completed, key=lambda trial: (-trial[1], trial[0]))[:_MAX_TRIALS]
    found = [Trained(f"{number:05d}", "trial", number, 0, run.trial(number)) for number, _ in best_first]
    refits = run.root / "refits"
    for folder in sorted(refits.iterdir()) if refits.is_dir() else []:
        number, fold, _ = folder.name.split("-")
        found.append(Trained(folder.name, "refit", int(number), int(fold.removeprefix("fold")), folder))
    needed = ("recipe.yaml", "best.npz", "predictions.npz", "result.json")
    return [one for one in found if all((one.folder / name).is_file() for name in needed)]


def _answers(networks: list[Trained], looked: Looked | None = None) -> _Answers:
    arrays = [read_arrays(one.folder / "predictions.npz") for one in networks]
    if looked is not None:
        arrays = [{**array, **looked[one.name]} for array, one in zip(arrays, networks, strict=True)]
    joined = {name: np.concatenate([array[name] for array in arrays]) for name in arrays[0]}
    order = np.argsort(joined["index"], kind="stable")
    parameters = sum(int(read_json(one.folder / "result.json")["parameters"]) for one in networks)
    return _Answers(
        tuple(networks),
        joined["labels"][order],
        joined["clean"][order],
        joined["view_labels"],
        joined["view_groups"],
        joined["view_weights"],
        joined["shifted"],
        parameters,
    )


def _candidates(trained: list[Trained], num_folds: int) -> tuple[dict[str, _Answers], dict[str, _Answers]]:
    """Candidates known on fold 0, and candidates known on all folds."""
    holdout = {one.name: _answers([one]) for one in trained if one.fold == 0}
    by_trial: dict[int, dict[int, Trained]] = defaultdict(dict)
    for one in trained:
        if one.kind == "refit":
            by_trial[one.trial][one.fold] = one
    folds = {
        f"{trial:05d}-folds": _answers([members[fold] for fold in sorted(members)])
        for trial, members in by_trial.items()
        if len(members) == num_folds > 1
    }
    return holdout, folds


def _scores(answers: _Answers, clean: np.ndarray, shifted: np.ndarray) -> dict[str, float]:
    metrics = measure(answers.labels, clean)
    scorer = Scorer(answers.truth, metric="shift", class_count=clean.shape[1], log_loss_weight=0.0)
    return {
        "accuracy": metrics.accuracy,
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_f1": metrics.macro_f1,
        "loss": metrics.loss,
        "shift": scorer.score(np.concatenate([clean, shifted])[: scorer.image_count]).metric,
        "shifted_accuracy": float((shifted.argmax(axis=1) == answers.view_labels).mean()),
        "ece": expected_calibration_error(clean, answers.labels),
        "ece_shifted": expected_calibration_error(shifted, answers.view_labels),
    }


def _select(pool: dict[str, _Answers], metric: EnsembleMetric, max_members: int) -> tuple[Selection, _Answers]:
    any_answers = next(iter(pool.values()))
    candidates = [Candidate(name, one.clean, one.shifted, one.parameters) for name, one in pool.items()]
    return select(candidates, any_answers.truth, metric=metric, max_members=max_members), any_answers


def assemble(
    run: RunDirectory,
    completed: list[tuple[int, float]],
    *,
    num_folds: int,
    metric: EnsembleMetric,
    max_members: int = 4,
) -> Ensemble:
    """Chooses members and weights by greedy selection on out-of-fold answers, then fits one temperature.

    With whole sets of folds the candidates are recipes, each with a network per fold and an answer for every training
    image; otherwise they are single networks that all left out fold 0, refits and trials alike, so that the ensemble is
    never worse on those images than the best trial.

    Raises:
        RunError: no training ran its course.
    """
    holdout, folds = _candidates(find_trained(run, completed), num_folds)
    if not holdout:
        raise RunError(
            f"{run.root}: expected at least one training that ran its course, found none, so there is nothing to export. "
            "Give a larger budget: bloodauto search --run with a new folder."
        )
    pool = holdout
    if folds and _folds_hold(folds, holdout, metric):
        pool = folds
    selection, answers = _select(pool, metric, max_members)
    members = [
        _as_member(name, weight, pool[name]) for name, weight in zip(selection.names, selection.weights, strict=True)
    ]
    temperature, scores = _calibrated([(member.weight, pool[member.name]) for member in members])
    best = pool[selection.best_single.added]
    return Ensemble(
        metric=metric,
        members=tuple(members),
        temperature=temperature,
        scores=scores,
        best_single=(selection.best_single.added, _scores(best, best.clean, best.shifted)),
        trace=tuple((i, step.added, step.score.metric) for i, step in enumerate(selection.trace, start=1)),
        images=len(answers.clean),
        views=len(answers.shifted),
    )


def _as_member(name: str, weight: float, one: _Answers) -> Member:
    first = one.networks[0]
    return Member(
        name=name,
        kind=first.kind,
        trial=first.trial,
        weight=weight,
        parameters=one.parameters,
        recipe_id=load_recipe(first.folder / "recipe.yaml").id,
        scores=_scores(one, one.clean, one.shifted),
        networks=one.networks,
    )


def _calibrated(weighted: Sequence[tuple[float, _Answers]]) -> tuple[float, dict[str, float]]:
    """The temperature of a weighted average, and its scores under it."""
    answers = weighted[0][1]
    rows = sum(weight * np.concatenate([one.clean, one.shifted]).astype(np.float64) for weight, one in weighted)
    rows = np.asarray(rows)
    count = len(answers.clean)
    labels = np.concatenate([answers.labels, answers.view_labels])
    temperature = fit_temperature(rows, labels, balanced_weights(count, answers.view_groups))
    calibrated = apply_temperature(rows, temperature)
    return temperature, _scores(answers, calibrated[:count], calibrated[count:])


def looked_again(ensemble: Ensemble, looked: Looked) -> Ensemble:
    """The same members and weights with other answers of theirs: temperature and scores are new."""
    answers = [(member, _answers(list(member.networks), looked)) for member in ensemble.members]
    temperature, scores = _calibrated([(member.weight, one) for member, one in answers])
    members = tuple(_as_member(member.name, member.weight, one) for member, one in answers)
    return replace(ensemble, members=members, temperature=temperature, scores=scores)


def combine(trained: Sequence[Trained], weights: Sequence[float]) -> Ensemble:
    """An ensemble of given members and weights, for systems whose members somebody else chose.

    Args:
        trained: trainings that left out the same images.
        weights: above 0; their share of the sum counts.

    Raises:
        RunError: they left out different images, or a file of theirs is missing or damaged.
    """
    answers = [_answers([one]) for one in trained]
    first = read_arrays(trained[0].folder / "predictions.npz")["index"]
    for one in trained[1:]:
        if not np.array_equal(read_arrays(one.folder / "predictions.npz")["index"], first):
            raise RunError(
                f"{one.folder}: expected the validation images of {trained[0].folder}, but it left out others. "
                "Train both on the same images with the same --seed."
            )
    members = [
        _as_member(one.name, weight / sum(weights), answer)
        for one, weight, answer in zip(trained, weights, answers, strict=True)
    ]
    temperature, scores = _calibrated([(member.weight, one) for member, one in zip(members, answers, strict=True)])
    best = max(members, key=lambda member: member.scores["shift"])
    return Ensemble(
        metric="shift",
        members=tuple(members),
        temperature=temperature,
        scores=scores,
        best_single=(best.name, best.scores),
        trace=(),
        images=len(answers[0].clean),
        views=len(answers[0].shifted),
    )


def _folds_hold(folds: dict[str, _Answers], holdout: dict[str, _Answers], metric: EnsembleMetric) -> bool:
    """Whether the networks of the folds are as good on fold 0 as what the search saw there."""
    single = _select(holdout, metric, 1)[0].best_single
    first_of_sets = {one.networks[0].name for one in folds.values()}
    pool = {name: one for name, one in holdout.items() if name in first_of_sets}
    return bool(pool) and _select(pool, metric, 1)[0].best_single.score.metric >= single.score.metric - _FOLD_TOLERANCE


def write_ensemble(run: RunDirectory, ensemble: Ensemble) -> None:
    """Writes ``ensemble.json``."""
    members = [
        {
            "name": member.name,
            "kind": member.kind,
            "trial": member.trial,
            "weight": member.weight,
            "parameters": member.parameters,
            "recipe_id": member.recipe_id,
            "scores": member.scores,
            "networks": [
                {"name": one.name, "fold": one.fold, "folder": str(one.folder.relative_to(run.root))}
                for one in member.networks
            ],
        }
        for member in ensemble.members
    ]
    name, scores = ensemble.best_single
    write_json(
        run.ensemble,
        {
            "metric": ensemble.metric,
            "members": members,
            "temperature": ensemble.temperature,
            "scores": ensemble.scores,
            "best_single": {"name": name, "scores": scores},
            "trace": [{"step": step, "added": added, "score": score} for step, added, score in ensemble.trace],
            "images": ensemble.images,
            "views": ensemble.views,
        },
    )


def read_ensemble(run: RunDirectory) -> Ensemble:
    """Reads ``ensemble.json``.

    Raises:
        RunError: the search has not come that far, or the file is not one of ours.
    """
    if not run.ensemble.is_file():
        raise RunError(
            f"{run.root}: expected an ensemble (ensemble.json), found none: the search has not come that far. "
            f"Go on with: bloodauto search --resume --run {run.root}"
        )
    value: dict[str, Any] = read_json(run.ensemble)
    try:
        members = tuple(_member(run, one) for one in value["members"])
        temperature = float(value["temperature"])
        if not members or not temperature > 0:
            raise ValueError(f"{len(members)} members, temperature {temperature}")
        return Ensemble(
            metric=value["metric"],
            members=members,
            temperature=temperature,
            scores=value["scores"],
            best_single=(value["best_single"]["name"], value["best_single"]["scores"]),
            trace=tuple((one["step"], one["added"], one["score"]) for one in value["trace"]),
            images=int(value["images"]),
            views=int(value["views"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.ensemble}: expected an ensemble, something is missing or wrong ({error!r}).") from None


def _member(run: RunDirectory, value: dict[str, Any]) -> Member:
    networks = tuple(
        Trained(one["name"], value["kind"], int(value["trial"]), int(one["fold"]), run.root / one["folder"])
        for one in value["networks"]
    )
    known = {name: value[name] for name in ("name", "kind", "trial", "weight", "parameters", "recipe_id", "scores")}
    return Member(**known, networks=networks)


def out_of_fold_answers(ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
    """What the ensemble answers for the images it was chosen by, calibrated.

    Returns:
        labels, int64 (n,), and probabilities, float64 (n, classes).

    Raises:
        RunError: a member's predictions are missing or damaged.
    """
    answers = [(member.weight, _answers(list(member.networks))) for member in ensemble.members]
    average = sum(weight * one.clean.astype(np.float64) for weight, one in answers)
    return answers[0][1].labels, apply_temperature(np.asarray(average), ensemble.temperature)
