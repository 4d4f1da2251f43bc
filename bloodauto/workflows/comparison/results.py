"""What an experiment came to: scores with intervals, and how their order compares with a published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bloodauto.config.recipe import shares_of_views
from bloodauto.evaluation.calibration import wilson_interval
from bloodauto.evaluation.intervals import Interval, Resampling, percentile_interval, resampling
from bloodauto.run.files import read_arrays
from bloodauto.shift.score import score as shift_score
from bloodauto.workflows.comparison.runner import Experiment, Training
from bloodauto.workflows.comparison.variants import Variant


@dataclass(frozen=True)
class Scored:
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
class Row:
    """One variant, or an ensemble of some.

    Attributes:
        published: what its source reports; None where nothing is known.
        scored: the network looking once at each image; None when the training failed.
        over_views: averaged over its recipe's test-time views; None where it names none.
        passes: forward passes that an image then costs.
        gain: interval of the shift score's difference from the first variant's, by the same draws; None for the first.
    """

    name: str
    backbone: str
    published: float | None
    training: Training | None
    scored: Scored | None
    over_views: Scored | None
    passes: int
    gain: Interval | None


@dataclass(frozen=True)
class Agreement:
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
        self.material = experiment.material
        self._resampling: Resampling = resampling(self.material, seed=experiment.settings.seed)
        self._labels = self.material.labels[self.material.validation_index]

    def score(self, answers: Mapping[str, np.ndarray]) -> tuple[Scored, np.ndarray]:
        """Scores, and the shift score on every draw."""
        clean, shifted = answers["clean"], answers["shifted"]
        rows = self.material.quick_rows
        correct = int((clean.argmax(axis=1) == self._labels).sum())
        draws = self._resampling.shift_scores(clean[rows], shifted)
        shift = shift_score(self._labels[rows], clean[rows], self.material.plan, shifted).objective
        scored = Scored(
            accuracy=correct / len(self._labels),
            accuracy_interval=Interval(*wilson_interval(correct, len(self._labels))),
            shift=shift,
            shift_interval=percentile_interval(draws),
        )
        return scored, draws


def rows_of(
    experiment: Experiment,
    trainings: Sequence[Training],
    ensembles: Mapping[str, tuple[Mapping[str, float], float | None]],
) -> tuple[Row, ...]:
    """Scores every training, then every ensemble.

    Args:
        ensembles: by name, the shares of its variants, and its published figure; variants are averaged over their views.
    """
    scorer = _Scorer(experiment)
    rows: list[Row] = []
    base: np.ndarray | None = None
    for variant, training in zip(experiment.variants, trainings, strict=True):
        if training.failure:
            rows.append(_row(variant, training, None, None, None))
            continue
        scored, draws = scorer.score(read_arrays(training.folder / "predictions.npz"))
        path = training.folder / "over_views.npz"
        over_views = scorer.score(read_arrays(path))[0] if path.is_file() else None
        gain = None if base is None else percentile_interval(draws - base)
        if variant is experiment.variants[0]:
            base = draws
        rows.append(_row(variant, training, scored, over_views, gain))
    by_name = {training.name: training for training in trainings}
    for name, (shares, published) in ensembles.items():
        if any(by_name[member].failure for member in shares):
            continue
        joined = _average(by_name, shares)
        recipes = [variant.recipe for variant in experiment.variants if variant.name in shares]
        passes = sum(len(shares_of_views(recipe.test_time_views)) for recipe in recipes)
        backbones = ", ".join(dict.fromkeys(recipe.backbone.name for recipe in recipes))
        rows.append(Row(name, backbones, published, None, None, scorer.score(joined)[0], passes, None))
    return tuple(rows)


def _row(
    variant: Variant, training: Training, scored: Scored | None, over_views: Scored | None, gain: Interval | None
) -> Row:
    passes = len(shares_of_views(variant.recipe.test_time_views))
    return Row(
        variant.name, variant.recipe.backbone.name, variant.published, training, scored, over_views, passes, gain
    )


def _average(trainings: Mapping[str, Training], shares: Mapping[str, float]) -> dict[str, np.ndarray]:
    total = sum(shares.values())
    joined: dict[str, Any] = {}
    for name, share in shares.items():
        folder = trainings[name].folder
        path = folder / "over_views.npz"
        answers = read_arrays(path if path.is_file() else folder / "predictions.npz")
        for part in ("clean", "shifted"):
            joined[part] = joined.get(part, 0.0) + share / total * answers[part].astype(np.float64)
    return joined


def agreement(rows: Sequence[Row]) -> Agreement | None:
    """Between the published figures and ours, over views where there are any; None with fewer than three of both.

    None too where all of one kind are equal, which is no order.
    """
    from scipy.stats import kendalltau, spearmanr  # type: ignore[import-untyped]

    scored = [(row.published, row.scored if row.over_views is None else row.over_views) for row in rows]
    both = [(published, ours) for published, ours in scored if published is not None and ours is not None]
    published = [figure for figure, _ in both]
    shifts, accuracies = [ours.shift for _, ours in both], [ours.accuracy for _, ours in both]
    if len(both) < 3 or min(len(set(values)) for values in (published, shifts, accuracies)) < 2:
        return None
    return Agreement(
        spearman=float(spearmanr(published, shifts).statistic),
        kendall=float(kendalltau(published, shifts).statistic),
        accuracy_spearman=float(spearmanr(published, accuracies).statistic),
        accuracy_kendall=float(kendalltau(published, accuracies).statistic),
        variants=len(both),
    )
