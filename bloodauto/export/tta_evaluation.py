"""Measures what test-time augmentation (TTA) changes on validation images, and what it costs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from bloodauto.clock import Clock
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import with_tta_predictions
from bloodauto.ensemble.predictions import TtaPredictionsByNetwork
from bloodauto.errors import RunError
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.latency import median_seconds
from bloodauto.export.ensemble_model import ExportedMember
from bloodauto.run.artifacts import Ensemble, TrainedNetwork, TtaPredictions
from bloodauto.shift.suite import ShiftSuite
from bloodauto.types import Images

_TIMED_IMAGES = 64
_TIMINGS = 3


@dataclass(frozen=True)
class TtaGain:
    """An ensemble with test-time augmentation and without.

    Attributes:
        forward_passes: forward passes through networks for one image, with TTA.
        forward_passes_without_tta: the same without.
        time_ratio: time with TTA over time without, of the exported models on this machine.
        scores: with TTA, as in ``Ensemble``, calibrated, on images that no member was trained on.
        scores_without_tta: the same without, with its own calibration.
        images: how many of these images are clean.
    """

    forward_passes: int
    forward_passes_without_tta: int
    time_ratio: float
    scores: Mapping[str, float]
    scores_without_tta: Mapping[str, float]
    images: int

    @property
    def helps(self) -> bool:
        """Whether the shift score is higher with TTA; differences of a point or less may be chance."""
        return self.scores["shift"] > self.scores_without_tta["shift"]


def predict_with_tta(
    ensemble: Ensemble, members: Mapping[str, ExportedMember], dataset: CellDataset, splits: Splits, *, seed: int
) -> TtaPredictionsByNetwork:
    """Predicts the images of each network's fold and their shifted versions, averaged over the network's transforms.

    Args:
        ensemble: its networks' stored predictions tell whether these are the right images.
        members: network and transforms, by the name of a training.
        dataset: the images of the run.
        splits: of the run.
        seed: of the run, from which its shifted images derive.

    Raises:
        RunError: the images or the seed are not those of the run.
    """
    tta_predictions = {}
    for fold in sorted({network.fold for network in ensemble.networks}):
        fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=seed), fold=fold)
        for network in ensemble.networks:
            if network.fold != fold:
                continue
            _check_images(network, fold_data)
            member = members[network.name]
            clean = predict_batches(member.network, dataset.images, fold_data.validation_index, tta=member.tta_weights)
            shifted = predict_batches(member.network, fold_data.shifted_images, tta=member.tta_weights)
            tta_predictions[network.name] = TtaPredictions(clean=clean, shifted=shifted)
    return tta_predictions


def _check_images(network: TrainedNetwork, fold_data: FoldData) -> None:
    """Refuses images other than those that the stored predictions of a training are for."""
    stored = network.files.predictions.read()
    expected = {
        "index": fold_data.validation_index,
        "shifted_labels": fold_data.shifted_labels,
        "shifted_families": fold_data.plan.family_names,
        "shifted_severities": fold_data.plan.severities,
    }
    if not all(np.array_equal(getattr(stored, name), value) for name, value in expected.items()):
        raise RunError(
            f"{network.folder}: expected predictions for these validation images and shifted images, got others. "
            "Give the --seed and the images that it was trained with."
        )


def tta_gain(
    without: Ensemble,
    tta_predictions: TtaPredictionsByNetwork,
    members: Sequence[ExportedMember],
    models: tuple[keras.Model, keras.Model],
    images: Images,
    *,
    clock: Clock,
) -> TtaGain:
    """Compares an ensemble with test-time augmentation and without.

    Args:
        without: the ensemble without TTA.
        tta_predictions: of its networks, of ``predict_with_tta``.
        members: its networks with their transforms.
        models: the exported model with TTA, and the one without.
        images: uint8, (n, height, width, 3), to measure the time on.
        clock: measures it.
    """
    batch = np.resize(images, (_TIMED_IMAGES, *images.shape[1:]))
    seconds_with_tta, seconds_without = (
        median_seconds(functools.partial(model.predict_on_batch, batch), clock=clock, repeats=_TIMINGS)
        for model in models
    )
    return TtaGain(
        forward_passes=sum(member.forward_passes for member in members),
        forward_passes_without_tta=len(members),
        time_ratio=seconds_with_tta / seconds_without,
        scores=with_tta_predictions(without, tta_predictions).scores.known(),
        scores_without_tta=without.scores.known(),
        images=without.images,
    )
