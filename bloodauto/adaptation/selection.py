"""Chooses how an ensemble is adapted to a site: candidates, cross-validation on the few labels, the source site as judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from bloodauto.adaptation.frozen_ensemble import EnsembleOutputs, FrozenEnsemble, ImageTransform, SiteHead, log_prior
from bloodauto.adaptation.head import HeadSettings, LabelledOutputs, fit_site_head, joined
from bloodauto.adaptation.magnification import MAGNIFICATIONS
from bloodauto.config.recipe import TransformName
from bloodauto.evaluation.tta import tta_images
from bloodauto.types import Floats, Images, Labels, Mask, Probabilities, Strings

#: Magnifications, beside 1, whose heads are fitted.
_KEPT_MAGNIFICATIONS = 3
_HEADS = (HeadSettings(), HeadSettings(penalty=0.01), HeadSettings(prior_weight=0.5))
_MAX_FOLDS = 10
#: A candidate has to be better than changing nothing by so many standard errors of the difference.
_STANDARD_ERRORS = 1.0
#: Largest loss of accuracy at the source site that costs nothing, and what a larger one adds to the Brier score.
SOURCE_TOLERANCE = 0.01
_SOURCE_PENALTY = 0.5
#: Added to the Brier score for a magnification of 2 or 1/2, and for others by the square of their logarithm: few cells do not
#: tell neighbours apart, and sites differ little more often than much.
_MAGNIFICATION_PENALTY = 0.1
#: Images of a fit are the cell as it is and mirrored; all are as likely on a slide.
_FIT_TRANSFORMS: tuple[TransformName, ...] = ("identity", "flip_left_right", "flip_up_down", "turn_180")
_TEMPERATURES = np.exp(np.linspace(math.log(0.5), math.log(4.0), 43))
#: A temperature of 1 counts as much as so many images.
_TEMPERATURE_PRIOR_IMAGES = 5.0


@dataclass(frozen=True)
class SiteCells:
    """Labelled cells of the new site.

    Attributes:
        images: uint8 (n, height, width, 3).
        labels: int64 (n,).
        groups: str (n,), patient or slide, which cross-validation keeps together; empty where unknown.
    """

    images: Images
    labels: Labels
    groups: Strings


@dataclass(frozen=True)
class SourceImages:
    """Images of the source site.

    Attributes:
        replay: uint8 (k, height, width, 3), learnt from beside the new cells.
        replay_labels: int64 (k,).
        held_out: uint8 (m, height, width, 3), on which the loss at the source site is measured.
        held_out_labels: int64 (m,).
    """

    replay: Images
    replay_labels: Labels
    held_out: Images
    held_out_labels: Labels


@dataclass(frozen=True)
class Candidate:
    """A way to adapt, and how it does.

    Attributes:
        transform: of the images.
        settings: of the head; None keeps the ensemble's own probabilities.
        probabilities: for the site's cells, each predicted by a head that was fitted without its fold, (n, classes).
        head: fitted to all cells; None without.
        source_accuracy: on the source site's held-out images, 0-1.
    """

    transform: ImageTransform
    settings: HeadSettings | None
    probabilities: Probabilities
    head: SiteHead | None
    source_accuracy: float

    def describe(self) -> str:
        """In a few words.

        Example:
            >>> Candidate(ImageTransform(1.3), None, np.zeros((1, 2)), None, 0.9).describe()
            'magnification 1.3'
        """
        parts = []
        if self.transform.magnification != 1.0:
            parts.append(f"magnification {self.transform.magnification:g}")
        if self.transform.colour_gain is not None:
            parts.append("colour transfer")
        if self.settings is not None:
            parts.append(
                f"head on frozen features (penalty {self.settings.penalty:g}, exponent {self.settings.prior_weight:g})"
            )
        return ", ".join(parts) if parts else "nothing changed"


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        chosen: the candidate; its head is calibrated.
        unchanged: the ensemble as it is.
        candidates: how many were compared.
        probabilities: for the site's cells, (n, classes): each fold is predicted by the candidate that the other folds
            choose, so that the accuracy is not that of the luckiest candidate.
    """

    chosen: Candidate
    unchanged: Candidate
    candidates: int
    probabilities: Probabilities


def select_adaptation(
    ensemble: FrozenEnsemble,
    cells: SiteCells,
    source: SourceImages,
    *,
    transforms: Sequence[ImageTransform] = (),
    seed: int = 0,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> Selection:
    """Compares candidates and chooses one.

    The score is Brier's, which is proper and bounded, so that one confident mistake among forty cells decides nothing. It is
    raised for what a candidate loses at the source site beyond a point, and for a magnification that is far from 1. A
    candidate must beat the unchanged ensemble by a standard error of the paired difference of Brier's scores.

    Args:
        ensemble: the exported model.
        cells: at least 8.
        source: of the source site.
        transforms: others than magnifications to compare, such as colour transfer.
        seed: of the folds.
        seconds_left: wall seconds; no candidate is begun when none are left.
    """
    comparison = _Comparison(ensemble, cells, source, seed)
    unchanged = comparison.plain(ImageTransform())
    plain = [comparison.plain(ImageTransform(factor)) for factor in MAGNIFICATIONS if factor != 1.0]
    plain += [comparison.plain(transform) for transform in transforms]
    # The source site is asked of those alone that a head is fitted for: it has ten times as many images.
    by_score = sorted(plain, key=comparison.cell_score)[:_KEPT_MAGNIFICATIONS]
    candidates = [comparison.with_source_accuracy(candidate) for candidate in (unchanged, *by_score)]
    unchanged = candidates[0]
    for transform in [candidate.transform for candidate in candidates]:
        for settings in _HEADS:
            if seconds_left() > 0:
                candidates.append(comparison.with_source_accuracy(comparison.with_head(transform, settings)))
    chosen = comparison.choose(candidates, unchanged)
    probabilities = comparison.choose_by_fold(candidates, unchanged)
    if chosen.head is not None:
        temperature = fit_temperature(np.log(np.maximum(chosen.probabilities, 1e-12)), cells.labels)
        chosen = replace(chosen, head=chosen.head.scaled(temperature))
    return Selection(chosen, unchanged, len(candidates), probabilities)


class _Comparison:
    """Outputs that several candidates share."""

    def __init__(self, ensemble: FrozenEnsemble, cells: SiteCells, source: SourceImages, seed: int) -> None:
        self._ensemble, self._cells, self._source = ensemble, cells, source
        self._fold = folds_of(cells, seed=seed)
        self._cell_outputs: dict[ImageTransform, EnsembleOutputs] = {}
        self._source_outputs: dict[ImageTransform, tuple[EnsembleOutputs, EnsembleOutputs]] = {}

    def cell_score(self, candidate: Candidate) -> float:
        """Mean Brier score with the penalty of the magnification; smaller is better."""
        score = float(brier_scores(candidate.probabilities, self._cells.labels).mean())
        return score + _magnification_penalty(candidate.transform)

    def plain(self, transform: ImageTransform) -> Candidate:
        """The ensemble itself on transformed images; its source accuracy is measured when it is chosen from."""
        outputs = self._ensemble.outputs(self._cells.images, transform)
        return Candidate(transform, None, outputs.probabilities, None, math.nan)

    def with_head(self, transform: ImageTransform, settings: HeadSettings) -> Candidate:
        """A head, cross-validated and fitted to all cells."""
        n, labels = len(self._cells.labels), self._cells.labels
        outputs, repeats = self._outputs(transform), len(_FIT_TRANSFORMS)
        replay = self._replay(transform, settings)

        def fit(rows: NDArray[np.bool_]) -> SiteHead:
            tiled = np.tile(rows, repeats)
            weights = np.full(int(tiled.sum()), 1 / tiled.sum())
            parts = [LabelledOutputs(_rows(outputs, tiled), np.tile(labels, repeats)[tiled], weights), replay]
            return fit_site_head(joined(parts), settings)

        probabilities = np.zeros((n, self._ensemble.num_classes))
        for fold in range(int(self._fold.max()) + 1):
            held_out = self._fold == fold
            originals = _rows(outputs, np.concatenate([held_out, np.zeros(n * (repeats - 1), bool)]))
            probabilities[held_out] = softmax(fit(~held_out).log_odds(originals), axis=1)
        return Candidate(transform, settings, probabilities, fit(np.ones(n, bool)), math.nan)

    def choose(self, candidates: Sequence[Candidate], unchanged: Candidate, cells: Mask | None = None) -> Candidate:
        """The best of those that beat the unchanged ensemble beyond chance, with the source site as second judge.

        Args:
            candidates: with their source accuracies.
            unchanged: the ensemble as it is.
            cells: bool (n,), which cells choose; None: all.
        """
        rows = np.ones(len(self._fold), bool) if cells is None else cells
        labels = self._cells.labels[rows]
        scores = [brier_scores(candidate.probabilities[rows], labels) for candidate in candidates]
        reference = brier_scores(unchanged.probabilities[rows], labels)
        best, best_score = unchanged, float(reference.mean())
        for candidate, score in zip(candidates, scores, strict=True):
            loss = unchanged.source_accuracy - candidate.source_accuracy
            penalised = float(score.mean()) + _magnification_penalty(candidate.transform)
            penalised += _SOURCE_PENALTY * max(loss - SOURCE_TOLERANCE, 0.0)
            if penalised < best_score and _is_better(score, reference):
                best, best_score = candidate, penalised
        return best

    def choose_by_fold(self, candidates: Sequence[Candidate], unchanged: Candidate) -> Probabilities:
        """Predictions for each fold of the candidate that the other folds choose, (n, classes)."""
        probabilities = np.zeros((len(self._fold), self._ensemble.num_classes))
        for fold in range(int(self._fold.max()) + 1):
            held_out = self._fold == fold
            chosen = self.choose(candidates, unchanged, ~held_out)
            probabilities[held_out] = chosen.probabilities[held_out]
        return probabilities

    def with_source_accuracy(self, candidate: Candidate) -> Candidate:
        """The same candidate with its accuracy on the source site's held-out images."""
        _, held_out = self._source_of(candidate.transform)
        log_odds = log_prior(held_out.probabilities) if candidate.head is None else candidate.head.log_odds(held_out)
        correct = log_odds.argmax(axis=1) == self._source.held_out_labels
        return replace(candidate, source_accuracy=float(correct.mean()))

    def _outputs(self, transform: ImageTransform) -> EnsembleOutputs:
        """Of the cells and their mirror images, transform by transform."""
        if transform not in self._cell_outputs:
            images = tta_images(self._cells.images, _FIT_TRANSFORMS)
            self._cell_outputs[transform] = self._ensemble.outputs(images, transform)
        return self._cell_outputs[transform]

    def _source_of(self, transform: ImageTransform) -> tuple[EnsembleOutputs, EnsembleOutputs]:
        if transform not in self._source_outputs:
            self._source_outputs[transform] = (
                self._ensemble.outputs(self._source.replay, transform),
                self._ensemble.outputs(self._source.held_out, transform),
            )
        return self._source_outputs[transform]

    def _replay(self, transform: ImageTransform, settings: HeadSettings) -> LabelledOutputs:
        outputs, _ = self._source_of(transform)
        count = len(self._source.replay_labels)
        return LabelledOutputs(outputs, self._source.replay_labels, np.full(count, settings.source_weight / count))


def _magnification_penalty(transform: ImageTransform) -> float:
    return _MAGNIFICATION_PENALTY * math.log2(transform.magnification) ** 2


def brier_scores(probabilities: Probabilities, labels: Labels) -> Floats:
    """Squared distance of each image's probabilities from its label, 0-2, float64 (n,)."""
    difference = probabilities.astype(np.float64).copy()
    difference[np.arange(len(labels)), labels] -= 1
    return np.asarray((difference**2).sum(axis=1))


def folds_of(cells: SiteCells, *, seed: int) -> Labels:
    """The fold of each cell, int64 (n,): classes are spread over all folds, and cells of one group lie in one fold.

    Args:
        cells: at least 2.
        seed: of the order within a class.
    """
    n = len(cells.labels)
    units = np.where(cells.groups == "", np.array([f"\0{row}" for row in range(n)]), cells.groups)
    names, unit_of = np.unique(units, return_inverse=True)
    # A group counts as the class of its first cell.
    label_of_unit = np.array([cells.labels[np.flatnonzero(unit_of == unit)[0]] for unit in range(len(names))])
    order = np.random.default_rng([seed, 80]).permutation(len(names))
    order = order[np.argsort(label_of_unit[order], kind="stable")]
    fold_of_unit = np.empty(len(names), np.int64)
    fold_of_unit[order] = np.arange(len(names)) % min(_MAX_FOLDS, len(names))
    return fold_of_unit[unit_of]


def fit_temperature(log_probabilities: Floats, labels: Labels) -> float:
    """The temperature of a few predictions, drawn towards 1 as by a handful of images.

    Args:
        log_probabilities: float (n, classes).
        labels: int (n,).
    """
    losses = []
    for temperature in _TEMPERATURES:
        log_odds = log_probabilities / temperature
        log_sum = np.log(np.exp(log_odds - log_odds.max(axis=1, keepdims=True)).sum(axis=1)) + log_odds.max(axis=1)
        loss = float((log_sum - log_odds[np.arange(len(labels)), labels]).sum())
        losses.append(loss + _TEMPERATURE_PRIOR_IMAGES * math.log(temperature) ** 2)
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _is_better(scores: Floats, than: Floats) -> bool:
    """Whether paired scores are smaller by more than a standard error of their mean difference."""
    difference = than - scores
    standard_error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return float(difference.mean()) > _STANDARD_ERRORS * standard_error


def _rows(outputs: EnsembleOutputs, rows: NDArray[np.bool_]) -> EnsembleOutputs:
    return EnsembleOutputs(outputs.probabilities[rows], outputs.features[rows])
