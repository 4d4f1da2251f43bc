"""A run's trainings -> its ensemble: the choice among candidates, its weights, calibration, scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.ensemble.predictions import (
    OofPredictions,
    TtaPredictions,
    candidates_of,
    find_trained_networks,
    join_predictions,
    metric_of,
    scores_of,
    uncalibrated_scores,
)
from bloodauto.ensemble.record import CandidateCounts, Ensemble, Member, TrainedNetwork
from bloodauto.ensemble.scoring import NO_SITE_INFO, EnsembleMetric, SiteInfo
from bloodauto.ensemble.selection import Candidate, Selection, select
from bloodauto.ensemble.selection_bias import TrainingScore, winners_curse
from bloodauto.errors import RunError
from bloodauto.evaluation.probability_scaling import Calibration, fit_calibration
from bloodauto.evaluation.selective import Abstention, fit_abstention
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_arrays, read_json

#: A set of folds must not be worse than the best network on fold 0 by more than noise; else that one is shipped.
_FOLD_TOLERANCE = 0.01


@dataclass(frozen=True)
class Caps:
    """What an ensemble may cost whoever uses it.

    Attributes:
        max_members: most members; a set of folds is one.
        max_latency_ms: most milliseconds for one image; None: any.
    """

    max_members: int = 4
    max_latency_ms: float | None = None


@dataclass(frozen=True)
class PrunedEvaluation:
    """What became of the trials that were stopped at a rung, and of refits that were ended before they were judged.

    Attributes:
        stopped: how many there are that trained for an epoch or more.
        promising: how many of them were worth a look.
        numbers: those that were looked at in the time there was, the best first; they have predictions now.
        refits: the names of refits that have.
    """

    pruned: int = 0
    promising: int = 0
    trial_numbers: tuple[int, ...] = ()
    refits: tuple[str, ...] = ()


#: Measures the milliseconds that the network of a recipe takes for one image.
MeasureLatency = Callable[[Recipe], float]


def _select(
    pool: dict[str, OofPredictions], metric: EnsembleMetric, caps: Caps, latency_ms: Mapping[str, float]
) -> Selection:
    candidates = [
        Candidate(name, one.clean, one.shifted, one.parameters, latency_ms=latency_ms.get(name, 0.0), target=one.target)
        for name, one in pool.items()
    ]
    return select(
        candidates,
        next(iter(pool.values())).truth,
        metric=metric,
        max_members=caps.max_members,
        max_latency_ms=math.inf if caps.max_latency_ms is None else caps.max_latency_ms,
    )


def _measure_latencies(
    pool: dict[str, OofPredictions], caps: Caps, latency_ms: MeasureLatency | None
) -> dict[str, float]:
    """Latency of each candidate; each recipe is measured once. Empty without a cap."""
    if caps.max_latency_ms is None:
        return {}
    assert latency_ms is not None, "a cap on latency needs a function that measures it"
    by_recipe: dict[str, float] = {}
    by_candidate = {}
    for name, candidate in pool.items():
        recipe = load_recipe(candidate.networks[0].folder / "recipe.yaml")
        if recipe.id not in by_recipe:
            by_recipe[recipe.id] = latency_ms(recipe)
        by_candidate[name] = by_recipe[recipe.id] * len(candidate.networks)
    return by_candidate


def assemble(
    run: RunDirectory,
    completed: list[tuple[int, float]],
    *,
    num_folds: int,
    metric: EnsembleMetric,
    caps: Caps = Caps(),
    latency_ms: MeasureLatency | None = None,
    site_info: SiteInfo = NO_SITE_INFO,
    evaluate_pruned: Callable[[], PrunedEvaluation] | None = None,
) -> Ensemble:
    """Chooses members and weights by greedy selection on out-of-fold predictions, then calibrates their average.

    With whole sets of folds the candidates are recipes, each with a network per fold and an answer for every training
    image; otherwise they are single networks that all left out fold 0, refits, trials and the best of the stopped trials
    alike, so that the ensemble is never worse on those images than the best of them that is fast enough.

    Args:
        completed: number and objective of the completed trials.
        num_folds: of the run's splits.
        metric: what to choose by.
        caps: where no training is fast enough for them, the fastest is taken.
        latency_ms: needed for a cap on it.
        places: what is known beside the labels.
        evaluate_pruned: makes candidates of trainings that were stopped; asked only where single networks are chosen among. None:
            there are none.

    Raises:
        RunError: no training was completed.
    """
    trained = find_trained_networks(run, completed)
    holdout, folds = candidates_of(trained, num_folds, site_info)
    if not holdout:
        raise RunError(
            f"{run.root}: expected at least one completed training, found none, so there is nothing to export. "
            "Give a larger budget: bloodauto search --run with a new folder."
        )
    pool, evaluated = holdout, PrunedEvaluation()
    if folds and _folds_are_good_enough(folds, holdout, metric):
        pool = folds
    elif evaluate_pruned is not None:
        evaluated = evaluate_pruned()
        found = [
            one
            for one in find_trained_networks(run, (), evaluated.trial_numbers)
            if one.fold == 0 and one.name not in holdout
        ]
        pool = {**holdout, **{one.name: join_predictions([one], site_info) for one in found}}
    candidate_counts = CandidateCounts(
        trials=sum(one.kind == "trial" for one in trained),
        refits=sum(one.kind == "refit" for one in trained) + len(evaluated.refits),
        pruned=evaluated.pruned,
        promising=evaluated.promising,
        evaluated=len(evaluated.trial_numbers),
    )
    return replace(
        _select_and_calibrate(pool, metric, caps, latency_ms),
        winners_curse=winners_curse(_training_scores(run, completed)),
        candidate_counts=candidate_counts,
    )


def restricted(ensemble: Ensemble, caps: Caps, latency_ms: MeasureLatency | None) -> Ensemble:
    """The best of an ensemble's members under tighter caps, weighted and calibrated anew.

    Raises:
        RunError: none of them is fast enough; or a member's predictions are missing or damaged.
    """
    pool = {member.name: join_predictions(member.networks, ensemble.site_info) for member in ensemble.members}
    metric: EnsembleMetric = ensemble.metric  # type: ignore[assignment]
    found = _select_and_calibrate(pool, metric, caps, latency_ms)
    fastest = min((one.latency_ms for one in found.members if one.latency_ms is not None), default=0.0)
    if caps.max_latency_ms is not None and fastest > caps.max_latency_ms:
        raise RunError(
            f"--max-latency-ms {caps.max_latency_ms:g}: expected a member that takes no longer for an image, but the fastest "
            f"takes {fastest:.3g} ms on this machine. Allow more, or search with this cap."
        )
    return replace(found, winners_curse=ensemble.winners_curse, candidate_counts=ensemble.candidate_counts)


def _select_and_calibrate(
    pool: dict[str, OofPredictions], metric: EnsembleMetric, caps: Caps, latency_ms: MeasureLatency | None
) -> Ensemble:
    latencies = _measure_latencies(pool, caps, latency_ms)
    selection = _select(pool, metric, caps, latencies)
    members = [
        replace(_as_member(name, weight, pool[name]), latency_ms=latencies.get(name))
        for name, weight in zip(selection.names, selection.weights, strict=True)
    ]
    fitted = _fit_average([(member.weight, pool[member.name]) for member in members], metric)
    best = pool[selection.best_single.added]
    return Ensemble(
        metric=metric,
        members=tuple(members),
        calibration=fitted.calibration,
        abstention=fitted.abstention,
        scores=fitted.scores,
        best_single=(selection.best_single.added, uncalibrated_scores(best)),
        trace=tuple((i, step.added, step.score.metric) for i, step in enumerate(selection.trace, start=1)),
        images=len(best.clean),
        shifted_images=len(best.shifted),
        site_info=best.site_info,
    )


def _training_scores(run: RunDirectory, completed: list[tuple[int, float]]) -> list[TrainingScore]:
    """All trainings that were judged on fold 0; weights may be gone, a result is enough."""
    found = []
    for number, objective in completed:
        recipe = run.trial(number).root / "recipe.yaml"
        if recipe.is_file():
            found.append(TrainingScore(load_recipe(recipe).id, False, objective))
    for folder in sorted((run.root / "refits").glob("*-fold0-*")):
        if (folder / "recipe.yaml").is_file() and (folder / "result.json").is_file():
            trial_recipe = run.trial(int(folder.name.split("-")[0])).root / "recipe.yaml"
            if trial_recipe.is_file():
                found.append(
                    TrainingScore(
                        load_recipe(trial_recipe).id, True, float(read_json(folder / "result.json")["objective"])
                    )
                )
    return found


def _as_member(name: str, weight: float, one: OofPredictions) -> Member:
    first = one.networks[0]
    return Member(
        name=name,
        kind=first.kind,
        trial=first.trial,
        weight=weight,
        parameters=one.parameters,
        recipe_id=load_recipe(first.folder / "recipe.yaml").id,
        scores=uncalibrated_scores(one),
        networks=one.networks,
    )


@dataclass(frozen=True)
class _FittedAverage:
    """What is fitted to a weighted average of answers, and its scores under it."""

    calibration: Calibration
    abstention: Abstention
    scores: dict[str, float]


def _fit_average(weighted: Sequence[tuple[float, OofPredictions]], metric: EnsembleMetric) -> _FittedAverage:
    """Scales and biases can change which class is likeliest; they are left out where that lowers the metric."""
    of = weighted[0][1]
    average = tuple(
        np.asarray(sum(weight * getattr(one, name).astype(np.float64) for weight, one in weighted))
        for name in ("clean", "shifted", "target")
    )
    calibration = fit_calibration(average[0], of.labels, average[1], of.shifted_labels, of.shifted_groups)
    if calibration.per_class is not None:
        scaled = [calibration.apply(part) for part in average]
        if metric_of(of, metric, *scaled) < metric_of(of, metric, *average):
            calibration = replace(calibration, per_class=None)
    clean, shifted, target = (calibration.apply(part) for part in average)
    scores = scores_of(of, clean, shifted, target)
    if calibration.per_class is None and "target_estimate" in scores:
        # A temperature leaves what an ensemble is chosen by, but for the last digits of the estimate's own.
        scores["target_estimate"] = scores_of(of, *average)["target_estimate"]
    return _FittedAverage(calibration, fit_abstention(clean, of.labels, shifted, of.shifted_labels), scores)


def with_tta_predictions(ensemble: Ensemble, tta_predictions: TtaPredictions) -> Ensemble:
    """The same members and weights with other answers of theirs: calibration, abstention and scores are new."""
    answers = [
        (member, join_predictions(member.networks, ensemble.site_info, tta_predictions)) for member in ensemble.members
    ]
    metric: EnsembleMetric = ensemble.metric  # type: ignore[assignment]
    fitted = _fit_average([(member.weight, one) for member, one in answers], metric)
    members = tuple(_as_member(member.name, member.weight, one) for member, one in answers)
    return replace(
        ensemble,
        members=members,
        calibration=fitted.calibration,
        abstention=fitted.abstention,
        scores=fitted.scores,
    )


def combine(trained: Sequence[TrainedNetwork], weights: Sequence[float]) -> Ensemble:
    """An ensemble of given members and weights, for systems whose members somebody else chose.

    Args:
        trained: trainings that left out the same images.
        weights: above 0; their share of the sum counts.

    Raises:
        RunError: they left out different images, or a file of theirs is missing or damaged.
    """
    answers = [join_predictions([one], NO_SITE_INFO) for one in trained]
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
    fitted = _fit_average([(member.weight, one) for member, one in zip(members, answers, strict=True)], "shift")
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
        shifted_images=len(answers[0].shifted),
    )


def _folds_are_good_enough(
    folds: dict[str, OofPredictions], holdout: dict[str, OofPredictions], metric: EnsembleMetric
) -> bool:
    """Whether the networks of the folds are as good on fold 0 as what the search saw there."""
    single = _select(holdout, metric, Caps(1), {}).best_single
    first_of_sets = {one.networks[0].name for one in folds.values()}
    pool = {name: one for name, one in holdout.items() if name in first_of_sets}
    return (
        bool(pool)
        and _select(pool, metric, Caps(1), {}).best_single.score.metric >= single.score.metric - _FOLD_TOLERANCE
    )


def out_of_fold_probabilities(ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
    """What the ensemble answers for the images it was chosen by, calibrated.

    Returns:
        labels, int64 (n,), and probabilities, float64 (n, classes).

    Raises:
        RunError: a member's predictions are missing or damaged.
    """
    answers = [(member.weight, join_predictions(member.networks, ensemble.site_info)) for member in ensemble.members]
    average = sum(weight * one.clean.astype(np.float64) for weight, one in answers)
    return answers[0][1].labels, ensemble.calibration.apply(np.asarray(average))
