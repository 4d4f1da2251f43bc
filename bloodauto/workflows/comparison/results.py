"""The rows of a comparison: scores with intervals, and how their order agrees with a published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bloodauto.config.recipe import tta_weights
from bloodauto.ensemble.predictions import WeightedEnsemble
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.evaluation.intervals import BootstrapResamples, Interval, bootstrap_resamples, percentile_interval
from bloodauto.evaluation.metrics import rank_correlation, wilson_interval
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.types import Floats, Scores
from bloodauto.workflows.comparison.runner import ComparisonRunner, VariantResult
from bloodauto.workflows.comparison.variants import Variant


@dataclass(frozen=True)
class ScoresWithIntervals:
    """Two scores, 0-1, with their 95 % intervals.

    Attributes:
        accuracy: Accuracy on clean validation images.
        accuracy_interval: Its Wilson interval.
        shift: Shift score.
        shift_interval: Its bootstrap interval over images; see ``BootstrapResamples``.
    """

    accuracy: float
    accuracy_interval: Interval
    shift: float
    shift_interval: Interval


@dataclass(frozen=True)
class ComparisonRow:
    """One variant, or an ensemble of some.

    Attributes:
        name: Name of the variant or ensemble.
        backbone: Names of its backbones.
        published: The figure that its source reports; None where nothing is known.
        training: Its training; None for an ensemble.
        scored: Scores without test-time augmentation; None when the training failed.
        with_tta: Scores with its recipe's test-time augmentation; None where it names none.
        forward_passes: Forward passes for one image with that augmentation.
        shift_gain: Interval of the shift score's difference from the first variant's, by the same resamples; None for the
            first.
    """

    name: str
    backbone: str
    published: float | None
    training: VariantResult | None
    scored: ScoresWithIntervals | None
    with_tta: ScoresWithIntervals | None
    forward_passes: int
    shift_gain: Interval | None


@dataclass(frozen=True)
class RankCorrelations:
    """Rank correlations of our scores with published figures, from -1 to 1: Spearman's rho and Kendall's tau b.

    Attributes:
        spearman: Of the shift scores.
        kendall: Of the shift scores.
        accuracy_spearman: Of the accuracies on clean images.
        accuracy_kendall: Of the accuracies on clean images.
        variants: Number of variants with both; with a handful of them only large coefficients mean anything.
    """

    spearman: float
    kendall: float
    accuracy_spearman: float
    accuracy_kendall: float
    variants: int


@dataclass(frozen=True)
class ComparedEnsemble:
    """An ensemble of variants with given weights.

    Attributes:
        name: Unique among variants and ensembles.
        weights: Weight of each of its variants, by name.
        published: The figure that its source reports; None where nothing is known.
    """

    name: str
    weights: Mapping[str, float]
    published: float | None


@dataclass(frozen=True)
class _Predictions:
    """Class probabilities for clean and shifted validation images, (n, classes) and (m, classes)."""

    clean: Floats
    shifted: Floats


class _Scorer:
    def __init__(self, fold_data: FoldData, *, seed: int) -> None:
        self._fold_data = fold_data
        self._resamples: BootstrapResamples = bootstrap_resamples(fold_data, seed=seed)

    def score(self, predictions: _Predictions) -> tuple[ScoresWithIntervals, Scores]:
        """Scores, and the shift score of every bootstrap resample."""
        data, clean, shifted = self._fold_data, predictions.clean, predictions.shifted
        correct = int((clean.argmax(axis=1) == data.validation_labels).sum())
        resampled = self._resamples.shift_scores(clean[data.subset_rows], shifted)
        scores = ScoresWithIntervals(
            accuracy=correct / len(data.validation_labels),
            accuracy_interval=Interval(*wilson_interval(correct, len(data.validation_labels))),
            shift=score_shift(data.subset_labels, clean[data.subset_rows], data.plan, shifted).objective,
            shift_interval=percentile_interval(resampled),
        )
        return scores, resampled


def comparison_rows(
    runner: ComparisonRunner, results: Sequence[VariantResult], ensembles: Sequence[ComparedEnsemble]
) -> tuple[ComparisonRow, ...]:
    """Scores every variant, then every ensemble.

    Args:
        runner: The comparison.
        results: The result of each of its variants, in order.
        ensembles: Ensembles of variants. The predictions of a variant are those with its test-time augmentation.

    Returns:
        One row for each variant, and for each ensemble whose variants all have a result.
    """
    scorer = _Scorer(runner.fold_data, seed=runner.settings.seed)
    rows = []
    base: Scores | None = None
    for variant, result in zip(runner.variants, results, strict=True):
        scored = with_tta = shift_gain = None
        if not result.failure:
            scored, resampled = scorer.score(_predictions(result.directory))
            if result.directory.predictions_tta.exists:
                with_tta, _ = scorer.score(_predictions_with_tta(result.directory))
            shift_gain = None if base is None else percentile_interval(resampled - base)
            if variant is runner.variants[0]:
                base = resampled
        rows.append(
            ComparisonRow(
                name=variant.name,
                backbone=variant.recipe.backbone.name,
                published=variant.published,
                training=result,
                scored=scored,
                with_tta=with_tta,
                forward_passes=len(tta_weights(variant.recipe.tta_transforms)),
                shift_gain=shift_gain,
            )
        )
    by_name = {result.name: result for result in results}
    rows += [
        _ensemble_row(ensemble, runner.variants, by_name, scorer)
        for ensemble in ensembles
        if not any(by_name[member].failure for member in ensemble.weights)
    ]
    return tuple(rows)


def _ensemble_row(
    ensemble: ComparedEnsemble,
    variants: Sequence[Variant],
    results: Mapping[str, VariantResult],
    scorer: _Scorer,
) -> ComparisonRow:
    members = {name: _best_predictions(results[name].directory) for name in ensemble.weights}
    total = sum(ensemble.weights.values())
    weighted = WeightedEnsemble({name: weight / total for name, weight in ensemble.weights.items()})
    average = _Predictions(
        clean=weighted.average({name: member.clean for name, member in members.items()}),
        shifted=weighted.average({name: member.shifted for name, member in members.items()}),
    )
    recipes = [variant.recipe for variant in variants if variant.name in ensemble.weights]
    return ComparisonRow(
        name=ensemble.name,
        backbone=", ".join(dict.fromkeys(recipe.backbone.name for recipe in recipes)),
        published=ensemble.published,
        training=None,
        scored=None,
        with_tta=scorer.score(average)[0],
        forward_passes=sum(len(tta_weights(recipe.tta_transforms)) for recipe in recipes),
        shift_gain=None,
    )


def _predictions(training: TrainingDirectory) -> _Predictions:
    predictions = training.predictions.read()
    return _Predictions(predictions.clean, predictions.shifted)


def _predictions_with_tta(training: TrainingDirectory) -> _Predictions:
    predictions = training.predictions_tta.read()
    return _Predictions(predictions.clean, predictions.shifted)


def _best_predictions(training: TrainingDirectory) -> _Predictions:
    """With test-time augmentation where the recipe names it."""
    return _predictions_with_tta(training) if training.predictions_tta.exists else _predictions(training)


def rank_correlations(rows: Sequence[ComparisonRow]) -> RankCorrelations | None:
    """Rank correlations between published figures and ours, with test-time augmentation where a recipe names it.

    Args:
        rows: The rows of a comparison.

    Returns:
        The correlations; None with fewer than three pairs, or where all figures of one kind are equal.
    """
    scored = [(row.published, row.scored if row.with_tta is None else row.with_tta) for row in rows]
    both = [(published, ours) for published, ours in scored if published is not None and ours is not None]
    if len(both) < 3:
        return None
    published = [figure for figure, _ in both]
    of_shift = rank_correlation(published, [ours.shift for _, ours in both])
    of_accuracy = rank_correlation(published, [ours.accuracy for _, ours in both])
    if of_shift is None or of_accuracy is None:
        return None
    return RankCorrelations(
        spearman=of_shift.spearman,
        kendall=of_shift.kendall,
        accuracy_spearman=of_accuracy.spearman,
        accuracy_kendall=of_accuracy.kendall,
        variants=len(both),
    )
