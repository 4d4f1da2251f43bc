"""Assembly of a run's ensemble: which candidates, their weights, calibration, abstention threshold and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.ensemble.predictions import (
    HOLDOUT_FOLD,
    NO_SITE_INFO,
    Candidate,
    OutOfFoldPredictions,
    TtaPredictionsByNetwork,
    WeightedEnsemble,
    find_trained_networks,
    fold_candidates,
    holdout_candidates,
)
from bloodauto.ensemble.selection import Selection, SelectionLimits, select, selection_metric, validation_scores
from bloodauto.ensemble.selection_bias import TrainingScore, estimate_selection_bias
from bloodauto.errors import RunError
from bloodauto.evaluation.calibration import fit_calibration
from bloodauto.evaluation.metrics import validation_figures
from bloodauto.evaluation.selective import fit_abstention
from bloodauto.run.artifacts import (
    Abstention,
    BestSingle,
    Calibration,
    CandidateCounts,
    Ensemble,
    EnsembleMember,
    Objective,
    SelectionStep,
    SiteInfo,
    TrainedNetwork,
    ValidationScores,
)
from bloodauto.run.directory import RunDirectory

#: Candidates with a network for each fold must not be worse than the best network on fold 0 by more than noise; otherwise
#: the ensemble is made of single networks.
_FOLD_TOLERANCE = 0.01


@dataclass(frozen=True)
class Caps:
    """What an ensemble may cost its users.

    Attributes:
        max_members: Maximum number of members; a network for each fold counts as one.
        max_latency_ms: Maximum milliseconds for one image; None for no limit.
    """

    max_members: int = 4
    max_latency_ms: float | None = None


@dataclass(frozen=True)
class PrunedEvaluation:
    """Which pruned trials and interrupted refits were evaluated, so that they can be candidates.

    Attributes:
        pruned: Number of pruned trials that trained for an epoch or more.
        promising: How many of them were good enough to be evaluated.
        trial_numbers: Those that were evaluated in the time there was, the best first; they have predictions now.
        refits: Names of the refits that were evaluated.
    """

    pruned: int = 0
    promising: int = 0
    trial_numbers: tuple[int, ...] = ()
    refits: tuple[str, ...] = ()


#: Measures the milliseconds that the network of a recipe takes for one image.
MeasureLatency = Callable[[Recipe], float]


def assemble(
    run: RunDirectory,
    completed: list[tuple[int, float]],
    *,
    num_folds: int,
    metric: Objective,
    caps: Caps = Caps(),
    latency_ms: MeasureLatency | None = None,
    site_info: SiteInfo = NO_SITE_INFO,
    evaluate_pruned: Callable[[], PrunedEvaluation] | None = None,
) -> Ensemble:
    """Selects members and weights by greedy selection on out-of-fold predictions, and calibrates their average.

    Where recipes were refitted on every fold, these are the candidates, each with a network for each fold and predictions for
    all training images. Otherwise the candidates are the networks that fold 0 was held out from: refits, trials and the
    best of the pruned trials. The ensemble is never worse on these images than the best candidate that is fast enough.

    Args:
        run: The run.
        completed: Number and objective of the completed trials.
        num_folds: Of the run's splits.
        metric: What to select by.
        caps: Where no candidate is fast enough for them, the fastest is taken.
        latency_ms: Needed where the latency is capped.
        site_info: What is known of sites beside the labels.
        evaluate_pruned: Evaluates pruned trials, so that they can be candidates; called only where the candidates are single
            networks. None: there are none.

    Raises:
        RunError: No training was completed, and none that was cut could be evaluated.
    """
    networks, evaluated = find_trained_networks(run, completed), PrunedEvaluation()
    holdout = holdout_candidates(networks, site_info)
    if not holdout and evaluate_pruned is not None:
        # Trainings that were cut are all that there is.
        evaluated, evaluate_pruned = evaluate_pruned(), None
        holdout = holdout_candidates(find_trained_networks(run, (), evaluated.trial_numbers), site_info)
    if not holdout:
        raise RunError(
            f"{run.root}: expected at least one completed training, found none, so there is nothing to export. "
            "Give a larger budget: bloodauto search --run with a new folder."
        )
    folds = fold_candidates(networks, num_folds, site_info)
    candidates = holdout
    if folds and _folds_are_good_enough(folds, holdout, metric):
        candidates = folds
    elif evaluate_pruned is not None:
        evaluated = evaluate_pruned()
        all_networks = find_trained_networks(run, (), evaluated.trial_numbers)
        new = [network for network in all_networks if network.name not in holdout]
        candidates = {**holdout, **holdout_candidates(new, site_info)}
    candidate_counts = CandidateCounts(
        trials=sum(network.kind == "trial" for network in networks),
        refits=sum(network.kind == "refit" for network in networks) + len(evaluated.refits),
        pruned=evaluated.pruned,
        promising=evaluated.promising,
        evaluated=len(evaluated.trial_numbers),
    )
    ensemble = _select_and_calibrate(candidates.values(), metric, caps, site_info, latency_ms)
    return ensemble.replace(
        selection_bias=estimate_selection_bias(_training_scores(run, completed)), candidate_counts=candidate_counts
    )


def restricted(ensemble: Ensemble, caps: Caps, latency_ms: MeasureLatency | None) -> Ensemble:
    """Selects among an ensemble's members under tighter caps; weights and calibration are new.

    Args:
        ensemble: The ensemble.
        caps: The tighter caps.
        latency_ms: Needed where the latency is capped.

    Raises:
        RunError: No member is fast enough; or a member's predictions are missing or damaged.
    """
    candidates = [_load_member(member, ensemble.site_info) for member in ensemble.members]
    result = _select_and_calibrate(candidates, ensemble.metric, caps, ensemble.site_info, latency_ms)
    fastest = min((member.latency_ms for member in result.members if member.latency_ms is not None), default=0.0)
    if caps.max_latency_ms is not None and fastest > caps.max_latency_ms:
        raise RunError(
            f"--max-latency-ms {caps.max_latency_ms:g}: expected a member that takes no longer for an image, but the fastest "
            f"takes {fastest:.3g} ms on this machine. Allow more, or search with this cap."
        )
    return result.replace(
        selection_bias=ensemble.selection_bias,
        objective_agreement=ensemble.objective_agreement,
        candidate_counts=ensemble.candidate_counts,
    )


def with_tta_predictions(ensemble: Ensemble, tta_predictions: TtaPredictionsByNetwork) -> Ensemble:
    """The same members and weights with test-time augmentation: calibration, abstention and scores are new.

    Args:
        ensemble: The ensemble without test-time augmentation.
        tta_predictions: Of each of its networks, by name.

    Raises:
        RunError: A member's predictions are missing or damaged.
    """
    candidates = [_load_member(member, ensemble.site_info, tta_predictions) for member in ensemble.members]
    weights = [member.weight for member in ensemble.members]
    fit = _fit_average(candidates, weights, ensemble.metric)
    return ensemble.replace(
        members=tuple(_as_member(candidate, weight) for candidate, weight in zip(candidates, weights, strict=True)),
        calibration=fit.calibration,
        abstention=fit.abstention,
        scores=_calibrated_scores(fit),
        validation=validation_figures(fit.predictions.truth.labels, fit.predictions.clean),
    )


def combine(networks: Sequence[TrainedNetwork], weights: Sequence[float]) -> Ensemble:
    """An ensemble of given networks and weights, for systems whose members were chosen elsewhere.

    Args:
        networks: Trainings that were validated on the same images.
        weights: Above 0; divided by their sum.

    Raises:
        RunError: They were validated on different images, or a file is missing or damaged.
    """
    candidates = [Candidate.load(network.name, [network], NO_SITE_INFO) for network in networks]
    normalized = [weight / sum(weights) for weight in weights]
    members = [_as_member(candidate, weight) for candidate, weight in zip(candidates, normalized, strict=True)]
    best = max(members, key=lambda member: member.scores.shift)
    return _build_ensemble(
        members, _fit_average(candidates, normalized, "shift"), "shift", BestSingle(name=best.name, scores=best.scores)
    )


def out_of_fold_ensemble(ensemble: Ensemble) -> OutOfFoldPredictions:
    """The ensemble's calibrated predictions for the images that it was selected on.

    Raises:
        RunError: A member's predictions are missing or damaged.
    """
    predictions = {
        member.name: OutOfFoldPredictions.load(member.networks, ensemble.site_info) for member in ensemble.members
    }
    return WeightedEnsemble.of_members(ensemble).predict_out_of_fold(predictions)


def _select_and_calibrate(
    candidates: Iterable[Candidate],
    metric: Objective,
    caps: Caps,
    site_info: SiteInfo,
    latency_ms: MeasureLatency | None,
) -> Ensemble:
    by_name = {candidate.name: candidate for candidate in _with_latencies(candidates, caps, latency_ms)}
    selection = _select(by_name.values(), metric, caps)
    selected = [by_name[name] for name in selection.names]
    members = [
        _as_member(candidate, weight, latency_ms=None if caps.max_latency_ms is None else candidate.latency_ms)
        for candidate, weight in zip(selected, selection.weights, strict=True)
    ]
    best_name = selection.best_single.added
    best_single = BestSingle(name=best_name, scores=validation_scores(by_name[best_name].predictions))
    ensemble = _build_ensemble(members, _fit_average(selected, selection.weights, metric), metric, best_single)
    return ensemble.replace(
        trace=tuple(
            SelectionStep(step=number, added=step.added, score=step.score.metric)
            for number, step in enumerate(selection.trace, start=1)
        ),
        site_info=site_info,
    )


def _select(candidates: Iterable[Candidate], metric: Objective, caps: Caps) -> Selection:
    max_latency_ms = math.inf if caps.max_latency_ms is None else caps.max_latency_ms
    limits = SelectionLimits(max_members=caps.max_members, max_latency_ms=max_latency_ms)
    return select(list(candidates), metric=metric, limits=limits)


def _with_latencies(candidates: Iterable[Candidate], caps: Caps, latency_ms: MeasureLatency | None) -> list[Candidate]:
    """The candidates with their latencies, where these are capped; each recipe is measured once."""
    if caps.max_latency_ms is None:
        return list(candidates)
    assert latency_ms is not None, "a cap on latency needs a function that measures it"
    by_recipe: dict[str, float] = {}
    measured = []
    for candidate in candidates:
        recipe = load_recipe(candidate.networks[0].files.recipe)
        if recipe.id not in by_recipe:
            by_recipe[recipe.id] = latency_ms(recipe)
        measured.append(replace(candidate, latency_ms=by_recipe[recipe.id] * len(candidate.networks)))
    return measured


def _load_member(
    member: EnsembleMember, site_info: SiteInfo, tta_predictions: TtaPredictionsByNetwork | None = None
) -> Candidate:
    return Candidate.load(member.name, member.networks, site_info, tta_predictions)


def _as_member(candidate: Candidate, weight: float, *, latency_ms: float | None = None) -> EnsembleMember:
    first = candidate.networks[0]
    return EnsembleMember(
        name=candidate.name,
        kind=first.kind,
        trial=first.trial,
        weight=weight,
        parameters=candidate.parameters,
        recipe_id=load_recipe(first.files.recipe).id,
        scores=validation_scores(candidate.predictions),
        networks=candidate.networks,
        latency_ms=latency_ms,
    )


@dataclass(frozen=True)
class _FittedAverage:
    """The parameters that are fitted to a weighted average, and its calibrated predictions.

    Attributes:
        calibration: Of the average.
        abstention: Of the calibrated average.
        predictions: The calibrated average.
        uncalibrated: The average itself.
    """

    calibration: Calibration
    abstention: Abstention
    predictions: OutOfFoldPredictions
    uncalibrated: OutOfFoldPredictions


def _fit_average(candidates: Sequence[Candidate], weights: Sequence[float], metric: Objective) -> _FittedAverage:
    """Fits calibration and abstention.

    Scales and biases can change which class is the most probable; they are not used where that lowers the metric.
    """
    by_name = {candidate.name: weight for candidate, weight in zip(candidates, weights, strict=True)}
    average = WeightedEnsemble(by_name).predict_out_of_fold(
        {candidate.name: candidate.predictions for candidate in candidates}
    )
    truth = average.truth
    calibration = fit_calibration(
        average.clean, truth.labels, average.shifted, truth.shifted_labels, truth.shifted_groups
    )
    if calibration.per_class is not None and (
        selection_metric(average.calibrated(calibration), metric) < selection_metric(average, metric)
    ):
        calibration = calibration.replace(per_class=None)
    predictions = average.calibrated(calibration)
    abstention = fit_abstention(predictions.clean, truth.labels, predictions.shifted, truth.shifted_labels)
    return _FittedAverage(calibration, abstention, predictions, average)


def _build_ensemble(
    members: Sequence[EnsembleMember], fit: _FittedAverage, metric: Objective, best_single: BestSingle
) -> Ensemble:
    truth = fit.predictions.truth
    return Ensemble(
        metric=metric,
        members=tuple(members),
        calibration=fit.calibration,
        abstention=fit.abstention,
        scores=_calibrated_scores(fit),
        best_single=best_single,
        trace=(),
        images=len(truth.labels),
        shifted_images=len(truth.shifted_labels),
        validation=validation_figures(truth.labels, fit.predictions.clean),
    )


def _calibrated_scores(fit: _FittedAverage) -> ValidationScores:
    scores = validation_scores(fit.predictions)
    if fit.calibration.per_class is None and scores.target_estimate is not None:
        # A temperature leaves what an ensemble is selected by as it is, but for the last digits of this estimate.
        return scores.replace(target_estimate=validation_scores(fit.uncalibrated).target_estimate)
    return scores


def _training_scores(run: RunDirectory, completed: Sequence[tuple[int, float]]) -> list[TrainingScore]:
    """All trainings that were evaluated on fold 0. Their weights may be deleted; a result is enough."""
    scores = []
    for number, objective in completed:
        recipe = run.trial(number).recipe
        if recipe.is_file():
            scores.append(TrainingScore(load_recipe(recipe).id, is_refit=False, objective=objective))
    for refit in run.refits():
        trial, fold, _ = refit.root.name.split("-")
        trial_recipe = run.trial(int(trial)).recipe
        files = (refit.recipe, refit.result.path, trial_recipe)
        if fold == f"fold{HOLDOUT_FOLD}" and all(path.is_file() for path in files):
            objective = refit.result.read().objective
            scores.append(TrainingScore(load_recipe(trial_recipe).id, is_refit=True, objective=objective))
    return scores


def _folds_are_good_enough(folds: Mapping[str, Candidate], holdout: Mapping[str, Candidate], metric: Objective) -> bool:
    """Whether the refits are as good on fold 0 as the best single network."""
    best = _select(holdout.values(), metric, Caps(1)).best_single.score.metric
    names = {candidate.networks[0].name for candidate in folds.values()}
    refits = [candidate for name, candidate in holdout.items() if name in names]
    return bool(refits) and _select(refits, metric, Caps(1)).best_single.score.metric >= best - _FOLD_TOLERANCE


def read_ensemble(run: RunDirectory) -> Ensemble:
    """Reads the run's ensemble.

    Args:
        run: The run.

    Raises:
        RunError: The search has not come that far, or the file is damaged.
    """
    if not run.ensemble.exists:
        raise RunError(
            f"{run.root}: expected an ensemble ({Ensemble.FILE}), found none: the search has not come that far. "
            f"Go on with: bloodauto search --resume --run {run.root}"
        )
    return run.ensemble.read()
