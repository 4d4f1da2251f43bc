"""Evaluation of an ensemble beyond its own validation images: at named sites, in the target domain, and beside its student."""

from __future__ import annotations

from collections.abc import Sequence

from bloodauto.data.split import Splits
from bloodauto.ensemble.predictions import HOLDOUT_FOLD, OutOfFoldPredictions, WeightedEnsemble, check_same_images
from bloodauto.ensemble.selection import validation_scores
from bloodauto.evaluation.metrics import compute_metrics, rank_correlation
from bloodauto.run.artifacts import (
    Ensemble,
    ObjectiveAgreement,
    SiteScore,
    SiteScores,
    StudentComparison,
    TargetEstimate,
)
from bloodauto.run.directory import RunDirectory
from bloodauto.shift.target_estimators import estimate_by_transport, mean_agreement
from bloodauto.types import Floats

#: A rank correlation of fewer is noise.
_MIN_TRIALS_FOR_RANKS = 5


def score_sites(splits: Splits, folds: Sequence[int], predictions: OutOfFoldPredictions) -> SiteScores:
    """Scores an ensemble at each site that was held out of training, in the order of the folds.

    Args:
        splits: Folds that are sites.
        folds: Those that the predictions are of.
        predictions: Of networks that were trained without images of the site of the image.
    """
    assert splits.folds_are_sites, "expected folds that are sites"
    truth = predictions.truth
    scores = []
    for fold in folds:
        rows = splits.fold[truth.index] == fold
        metrics = compute_metrics(truth.labels[rows], predictions.clean[rows])
        scores.append(
            SiteScore(
                site=splits.fold_names[fold],
                images=int(rows.sum()),
                accuracy=metrics.accuracy,
                balanced_accuracy=metrics.balanced_accuracy,
            )
        )
    return SiteScores(sites=tuple(scores))


def estimate_target(ensemble: Ensemble, class_fractions: Floats) -> TargetEstimate:
    """Estimates an ensemble's accuracy in the target domain from its networks' predictions for unlabelled target images.

    Args:
        ensemble: The ensemble, of networks that predicted target images.
        class_fractions: Expected fraction of each class in the target domain, shape (classes,).

    Raises:
        RunError: A member's predictions are missing or damaged.
    """
    by_network = {network.name: network.files.predictions.read().target for network in ensemble.networks}
    average = WeightedEnsemble.of_networks(ensemble).average(by_network)
    return TargetEstimate(
        images=len(average),
        accuracy=estimate_by_transport(average, class_fractions),
        confidence=float(average.max(axis=1).mean()),
        agreement=mean_agreement(list(by_network.values())) if len(by_network) > 1 else None,
    )


def objective_agreement(run: RunDirectory, trials: Sequence[int]) -> ObjectiveAgreement | None:
    """Compares the order of trials by the objective with that by accuracy on clean validation images.

    Args:
        run: The run.
        trials: Numbers of the complete trials. Those whose result is missing do not count.

    Returns:
        None with fewer than five trials, or where all have one objective or one accuracy.

    Raises:
        RunError: A trial's result is damaged.
    """
    results = [
        result for result in (run.trial(number).result.read_if_exists() for number in trials) if result is not None
    ]
    if len(results) < _MIN_TRIALS_FOR_RANKS:
        return None
    correlation = rank_correlation(
        [result.objective for result in results], [result.metrics.accuracy for result in results]
    )
    return None if correlation is None else ObjectiveAgreement(trials=len(results), spearman=correlation.spearman)


def compare_student(student: Ensemble, teacher: Ensemble) -> StudentComparison:
    """Compares a distilled network with its teacher on the images of fold 0, which were held out of the student's training.

    Args:
        student: The distilled network.
        teacher: The ensemble; those of its networks count that fold 0 was held out from.

    Raises:
        RunError: Predictions are missing or damaged, or for different images.
    """
    of_student, of_teacher = _holdout_predictions(student, teacher), _holdout_predictions(teacher, teacher)
    truth = check_same_images({"student": of_student, "teacher": of_teacher})

    def agreement(part: str) -> float:
        predictions = [getattr(model, part).argmax(axis=1) for model in (of_student, of_teacher)]
        return float((predictions[0] == predictions[1]).mean())

    return StudentComparison(
        scores=validation_scores(of_student),
        teacher_scores=validation_scores(of_teacher),
        agreement=agreement("clean"),
        agreement_shifted=agreement("shifted"),
        images=len(truth.labels),
        shifted_images=len(truth.shifted_labels),
    )


def _holdout_predictions(ensemble: Ensemble, site_info_of: Ensemble) -> OutOfFoldPredictions:
    """The calibrated predictions of those networks that fold 0 was held out from."""
    predictions = {
        member.name: OutOfFoldPredictions.load(
            [network for network in member.networks if network.fold == HOLDOUT_FOLD], site_info_of.site_info
        )
        for member in ensemble.members
    }
    return WeightedEnsemble.of_members(ensemble).predict_out_of_fold(predictions)
