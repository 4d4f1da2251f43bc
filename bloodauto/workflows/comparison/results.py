"""What an experiment came to: scores with intervals, and how their order compares with a published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bloodauto.config.recipe import tta_weights
from bloodauto.evaluation.intervals import BootstrapResamples, Interval, bootstrap_resamples, percentile_interval
from bloodauto.evaluation.metrics import rank_correlation, wilson_interval
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.run.files import read_arrays
from bloodauto.workflows.comparison.runner import Experiment, VariantResult
from bloodauto.workflows.comparison.variants import Variant


@dataclass(frozen=True)
class ScoresWithIntervals:
    """Two scores, 0-1, with their 95 % intervals.

    Attributes:
        accuracy: on the unchanged validation images, with the interval of Wilson.
        shift: of the shift suite, with a bootstrap interval over images; see ``Resampling``.
    """

    accuracy: float
    accuracy_interval: Interval
    shift: float
    shift_interval: Interval


@dataclass(frozen=True)
class ComparisonRow:
    """One variant, or an ensemble of some.

    Attributes:
        published: what its source reports; None where nothing is known.
        scored: the network looking once at each image; None when the training failed.
        with_tta: averaged over its recipe's test-time transforms; None where it names none.
        passes: forward passes that an image then costs.
        gain: interval of the shift score's difference from the first variant's, by the same draws; None for the first.
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
    """How far two orders agree, from -1 to 1: Spearman's rho and Kendall's tau b.

    Attributes:
        spearman, kendall: of our shift scores with the published figures.
        accuracy_spearman, accuracy_kendall: of our accuracies in the same laboratory with them.
        variants: how many have both; with a handful of them only large coefficients mean anything.
    """

    spearman: float
    kendall: float
    accuracy_spearman: float
    accuracy_kendall: float
    variants: int


class _Scorer:
    def __init__(self, experiment: Experiment) -> None:
        self.fold_data = experiment.fold_data
        self._resamples: BootstrapResamples = bootstrap_resamples(self.fold_data, seed=experiment.settings.seed)
        self._labels = self.fold_data.labels[self.fold_data.validation_index]

    def score(self, predictions: Mapping[str, np.ndarray]) -> tuple[ScoresWithIntervals, np.ndarray]:
        """Scores, and the shift score on every draw."""
        clean, shifted = predictions["clean"], predictions["shifted"]
        rows = self.fold_data.subset_rows
        correct = int((clean.argmax(axis=1) == self._labels).sum())
        draws = self._resamples.shift_scores(clean[rows], shifted)
        shift = score_shift(self._labels[rows], clean[rows], self.fold_data.plan, shifted).objective
        scored = ScoresWithIntervals(
            accuracy=correct / len(self._labels),
            accuracy_interval=Interval(*wilson_interval(correct, len(self._labels))),
            shift=shift,
            shift_interval=percentile_interval(draws),
        )
        return scored, draws


def comparison_rows(
    experiment: Experiment,
    trainings: Sequence[VariantResult],
    ensembles: Mapping[str, tuple[Mapping[str, float], float | None]],
) -> tuple[ComparisonRow, ...]:
    """Scores every training, then every ensemble.

    Args:
        ensembles: by name, the shares of its variants, and its published figure; variants are averaged over their views.
    """
    scorer = _Scorer(experiment)
    rows: list[ComparisonRow] = []
    base: np.ndarray | None = None
    for variant, training in zip(experiment.variants, trainings, strict=True):
        if training.failure:
            rows.append(_row(variant, training, None, None, None))
            continue
        scored, draws = scorer.score(read_arrays(training.folder / "predictions.npz"))
        path = training.folder / "with_tta.npz"
        with_tta = scorer.score(read_arrays(path))[0] if path.is_file() else None
        shift_gain = None if base is None else percentile_interval(draws - base)
        if variant is experiment.variants[0]:
            base = draws
        rows.append(_row(variant, training, scored, with_tta, shift_gain))
    by_name = {training.name: training for training in trainings}
    for name, (member_weights, published) in ensembles.items():
        if any(by_name[member].failure for member in member_weights):
            continue
        joined = _average(by_name, member_weights)
        recipes = [variant.recipe for variant in experiment.variants if variant.name in member_weights]
        forward_passes = sum(len(tta_weights(recipe.tta_transforms)) for recipe in recipes)
        backbones = ", ".join(dict.fromkeys(recipe.backbone.name for recipe in recipes))
        rows.append(
            ComparisonRow(name, backbones, published, None, None, scorer.score(joined)[0], forward_passes, None)
        )
    return tuple(rows)


def _row(
    variant: Variant,
    training: VariantResult,
    scored: ScoresWithIntervals | None,
    with_tta: ScoresWithIntervals | None,
    shift_gain: Interval | None,
) -> ComparisonRow:
    forward_passes = len(tta_weights(variant.recipe.tta_transforms))
    return ComparisonRow(
        variant.name,
        variant.recipe.backbone.name,
        variant.published,
        training,
        scored,
        with_tta,
        forward_passes,
        shift_gain,
    )


def _average(trainings: Mapping[str, VariantResult], member_weights: Mapping[str, float]) -> dict[str, np.ndarray]:
    total = sum(member_weights.values())
    joined: dict[str, Any] = {}
    for name, share in member_weights.items():
        folder = trainings[name].folder
        path = folder / "with_tta.npz"
        predictions = read_arrays(path if path.is_file() else folder / "predictions.npz")
        for part in ("clean", "shifted"):
            joined[part] = joined.get(part, 0.0) + share / total * predictions[part].astype(np.float64)
    return joined


def rank_correlations(rows: Sequence[ComparisonRow]) -> RankCorrelations | None:
    """Between the published figures and ours, over views where there are any; None with fewer than three of both.

    None too where all of one kind are equal, which is no order.
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
