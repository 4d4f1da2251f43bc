"""A run's trainings -> its ensemble: candidates from their predictions, weights, calibration, scores."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bloodauto.ensemble.abstention import Abstention, fit_abstention
from bloodauto.ensemble.calibration import expected_calibration_error
from bloodauto.ensemble.honesty import Run, winners_curse
from bloodauto.ensemble.record import Ensemble, Member, Trained
from bloodauto.ensemble.scaling import Calibration, fit_calibration
from bloodauto.ensemble.scoring import EnsembleMetric, Scorer, Truth
from bloodauto.ensemble.selection import Candidate, Selection, select
from bloodauto.errors import RunError
from bloodauto.files import RunDirectory, read_arrays, read_json
from bloodauto.recipe import load_recipe
from bloodauto.trial.metrics import measure

#: Trials beyond the best few only make the selection overfit.
_MAX_TRIALS = 8
#: A set of folds must not be worse than the best network on fold 0 by more than noise; else that one is shipped.
_FOLD_TOLERANCE = 0.01


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


@dataclass(frozen=True)
class Caps:
    """What an ensemble may cost whoever uses it.

    Attributes:
        max_members: most members; a set of folds is one.
        max_latency_ms: most milliseconds for one image; None: any.
    """

    max_members: int = 4
    max_latency_ms: float | None = None


#: Milliseconds that one image takes a training's network, measured where it is asked for.
Latency = Callable[[Trained], float]


def _select(
    pool: dict[str, _Answers], metric: EnsembleMetric, caps: Caps, latency_ms: Mapping[str, float]
) -> Selection:
    candidates = [
        Candidate(name, one.clean, one.shifted, one.parameters, latency_ms=latency_ms.get(name, 0.0))
        for name, one in pool.items()
    ]
    return select(
        candidates,
        next(iter(pool.values())).truth,
        metric=metric,
        max_members=caps.max_members,
        max_latency_ms=math.inf if caps.max_latency_ms is None else caps.max_latency_ms,
    )


def _measured(pool: dict[str, _Answers], caps: Caps, latency: Latency | None) -> dict[str, float]:
    """Of each candidate; networks of one recipe are measured once. Empty without a cap."""
    if caps.max_latency_ms is None:
        return {}
    assert latency is not None, "a cap on latency needs something that measures it"
    by_recipe: dict[str, float] = {}
    found = {}
    for name, one in pool.items():
        recipe_id = load_recipe(one.networks[0].folder / "recipe.yaml").id
        if recipe_id not in by_recipe:
            by_recipe[recipe_id] = latency(one.networks[0])
        found[name] = by_recipe[recipe_id] * len(one.networks)
    return found


def assemble(
    run: RunDirectory,
    completed: list[tuple[int, float]],
    *,
    num_folds: int,
    metric: EnsembleMetric,
    caps: Caps = Caps(),
    latency: Latency | None = None,
) -> Ensemble:
    """Chooses members and weights by greedy selection on out-of-fold answers, then calibrates their average.

    With whole sets of folds the candidates are recipes, each with a network per fold and an answer for every training
    image; otherwise they are single networks that all left out fold 0, refits and trials alike, so that the ensemble is
    never worse on those images than the best trial that is fast enough.

    Args:
        completed: number and objective of the trials that ran their course.
        num_folds: of the run's splits.
        metric: what to choose by.
        caps: where no training is fast enough for them, the fastest is taken.
        latency: needed for a cap on it.

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
    return replace(_chosen(pool, metric, caps, latency), winners_curse=winners_curse(_judged_runs(run, completed)))


def reduced(ensemble: Ensemble, caps: Caps, latency: Latency | None) -> Ensemble:
    """The best of an ensemble's members under tighter caps, weighted and calibrated anew.

    Raises:
        RunError: none of them is fast enough; or a member's predictions are missing or damaged.
    """
    pool = {member.name: _answers(list(member.networks)) for member in ensemble.members}
    metric: EnsembleMetric = ensemble.metric  # type: ignore[assignment]
    found = _chosen(pool, metric, caps, latency)
    fastest = min((one.latency_ms for one in found.members if one.latency_ms is not None), default=0.0)
    if caps.max_latency_ms is not None and fastest > caps.max_latency_ms:
        raise RunError(
            f"--max-latency-ms {caps.max_latency_ms:g}: expected a member that takes no longer for an image, but the fastest "
            f"takes {fastest:.3g} ms on this machine. Allow more, or search with this cap."
        )
    return replace(found, winners_curse=ensemble.winners_curse)


def _chosen(pool: dict[str, _Answers], metric: EnsembleMetric, caps: Caps, latency: Latency | None) -> Ensemble:
    latency_ms = _measured(pool, caps, latency)
    selection = _select(pool, metric, caps, latency_ms)
    members = [
        replace(_as_member(name, weight, pool[name]), latency_ms=latency_ms.get(name))
        for name, weight in zip(selection.names, selection.weights, strict=True)
    ]
    fitted = _fitted([(member.weight, pool[member.name]) for member in members], metric)
    best = pool[selection.best_single.added]
    return Ensemble(
        metric=metric,
        members=tuple(members),
        calibration=fitted.calibration,
        abstention=fitted.abstention,
        scores=fitted.scores,
        best_single=(selection.best_single.added, _scores(best, best.clean, best.shifted)),
        trace=tuple((i, step.added, step.score.metric) for i, step in enumerate(selection.trace, start=1)),
        images=len(best.clean),
        views=len(best.shifted),
    )


def _judged_runs(run: RunDirectory, completed: list[tuple[int, float]]) -> list[Run]:
    """All trainings that were judged on fold 0; weights may be gone, a result is enough."""
    found = []
    for number, objective in completed:
        recipe = run.trial(number) / "recipe.yaml"
        if recipe.is_file():
            found.append(Run(load_recipe(recipe).id, False, objective))
    for folder in sorted((run.root / "refits").glob("*-fold0-*")):
        if (folder / "recipe.yaml").is_file() and (folder / "result.json").is_file():
            trial_recipe = run.trial(int(folder.name.split("-")[0])) / "recipe.yaml"
            if trial_recipe.is_file():
                found.append(
                    Run(load_recipe(trial_recipe).id, True, float(read_json(folder / "result.json")["objective"]))
                )
    return found


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


@dataclass(frozen=True)
class _Fitted:
    """What is fitted to a weighted average of answers, and its scores under it."""

    calibration: Calibration
    abstention: Abstention
    scores: dict[str, float]


def _fitted(weighted: Sequence[tuple[float, _Answers]], metric: str) -> _Fitted:
    """Scales and biases can change which class is likeliest; they are left out where that lowers the metric."""
    of = weighted[0][1]
    clean = np.asarray(sum(weight * one.clean.astype(np.float64) for weight, one in weighted))
    shifted = np.asarray(sum(weight * one.shifted.astype(np.float64) for weight, one in weighted))
    calibration = fit_calibration(clean, of.labels, shifted, of.view_labels, of.view_groups)
    scores = _scores(of, calibration.apply(clean), calibration.apply(shifted))
    # A temperature leaves the order of the classes, so the plain average has its scores.
    if calibration.per_class is not None and scores[metric] < _scores(of, clean, shifted)[metric]:
        calibration = replace(calibration, per_class=None)
        scores = _scores(of, calibration.apply(clean), calibration.apply(shifted))
    clean, shifted = calibration.apply(clean), calibration.apply(shifted)
    return _Fitted(calibration, fit_abstention(clean, of.labels, shifted, of.view_labels), scores)


def looked_again(ensemble: Ensemble, looked: Looked) -> Ensemble:
    """The same members and weights with other answers of theirs: calibration, abstention and scores are new."""
    answers = [(member, _answers(list(member.networks), looked)) for member in ensemble.members]
    fitted = _fitted([(member.weight, one) for member, one in answers], ensemble.metric)
    members = tuple(_as_member(member.name, member.weight, one) for member, one in answers)
    return replace(
        ensemble,
        members=members,
        calibration=fitted.calibration,
        abstention=fitted.abstention,
        scores=fitted.scores,
    )


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
    fitted = _fitted([(member.weight, one) for member, one in zip(members, answers, strict=True)], "shift")
    best = max(members, key=lambda member: member.scores["shift"])
    return Ensemble(
        metric="shift",
        members=tuple(members),
        calibration=fitted.calibration,
        abstention=fitted.abstention,
        scores=fitted.scores,
        best_single=(best.name, best.scores),
        trace=(),
        images=len(answers[0].clean),
        views=len(answers[0].shifted),
    )


def _folds_hold(folds: dict[str, _Answers], holdout: dict[str, _Answers], metric: EnsembleMetric) -> bool:
    """Whether the networks of the folds are as good on fold 0 as what the search saw there."""
    single = _select(holdout, metric, Caps(1), {}).best_single
    first_of_sets = {one.networks[0].name for one in folds.values()}
    pool = {name: one for name, one in holdout.items() if name in first_of_sets}
    return (
        bool(pool)
        and _select(pool, metric, Caps(1), {}).best_single.score.metric >= single.score.metric - _FOLD_TOLERANCE
    )


def out_of_fold_answers(ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
    """What the ensemble answers for the images it was chosen by, calibrated.

    Returns:
        labels, int64 (n,), and probabilities, float64 (n, classes).

    Raises:
        RunError: a member's predictions are missing or damaged.
    """
    answers = [(member.weight, _answers(list(member.networks))) for member in ensemble.members]
    average = sum(weight * one.clean.astype(np.float64) for weight, one in answers)
    return answers[0][1].labels, ensemble.calibration.apply(np.asarray(average))
