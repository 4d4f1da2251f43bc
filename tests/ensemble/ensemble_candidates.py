"""Candidates with random predictions of a chosen quality, for the tests of the ensemble."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bloodauto.ensemble.predictions import Candidate, GroundTruth, OutOfFoldPredictions
from bloodauto.evaluation.metrics import softmax
from bloodauto.types import Labels, Probabilities

CLASSES = 4


def make_truth(rng: np.random.Generator, clean: int, shifted: int, groups: int = 3) -> GroundTruth:
    """Random labels, every shifted image with weight 1."""
    return GroundTruth(
        index=np.arange(clean),
        labels=rng.integers(0, CLASSES, clean),
        shifted_labels=rng.integers(0, CLASSES, shifted),
        shifted_groups=rng.integers(0, groups, shifted).astype(np.str_),
        shifted_weights=np.ones(shifted),
    )


def truth_of(labels: Labels, shifted_labels: Labels | None = None, groups: np.ndarray | None = None) -> GroundTruth:
    """Given labels, every shifted image with weight 1."""
    shifted = labels[:0] if shifted_labels is None else shifted_labels
    names = shifted.astype(np.str_) if groups is None else groups
    return GroundTruth(np.arange(len(labels)), labels, shifted, names, np.ones(len(shifted)))


def with_sites(rng: np.random.Generator, truth: GroundTruth, *, sites: int, target: bool) -> GroundTruth:
    """The same images, from held-out sites and beside unlabelled images of a target domain."""
    return replace(
        truth,
        held_out_sites=rng.integers(0, sites, len(truth.labels)) if sites else None,
        class_fractions=tuple(rng.dirichlet(np.full(CLASSES, 3.0))) if target else None,
    )


def probabilities(rng: np.random.Generator, labels: Labels, skill: float) -> Probabilities:
    """Predicts the label the more often the larger ``skill`` is."""
    logits = skill * np.eye(CLASSES)[labels] + rng.normal(0, 1, (len(labels), CLASSES))
    return softmax(logits.astype(np.float32))


def predictions_of(
    truth: GroundTruth, clean: Probabilities, shifted: Probabilities | None = None, target: Probabilities | None = None
) -> OutOfFoldPredictions:
    """Predictions for clean images, and none for shifted or target images where there are none."""
    return OutOfFoldPredictions(
        truth,
        clean,
        clean[:0] if shifted is None else shifted,
        clean[:0] if target is None else target,
    )


def make_candidate(
    rng: np.random.Generator, truth: GroundTruth, name: str, skill: float, parameters: int = 1
) -> Candidate:
    """A candidate that is half as good on shifted images."""
    clean = probabilities(rng, truth.labels, skill)
    shifted = probabilities(rng, truth.shifted_labels, skill / 2)
    return Candidate(name, (), predictions_of(truth, clean, shifted), parameters)


def with_target(candidate: Candidate, target: Probabilities) -> Candidate:
    """The same candidate with predictions for target images."""
    return replace(candidate, predictions=replace(candidate.predictions, target=target))
