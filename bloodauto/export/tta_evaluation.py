"""What test-time transforms change on images that were kept apart, and what they cost."""

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
from bloodauto.ensemble.predictions import TtaPredictions
from bloodauto.ensemble.record import Ensemble
from bloodauto.errors import RunError
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.latency import median_seconds
from bloodauto.export.ensemble_model import ExportedMember
from bloodauto.run.files import read_arrays
from bloodauto.shift.suite import ShiftSuite

_TIMED_IMAGES = 64
_TIMINGS = 3


@dataclass(frozen=True)
class TtaGain:
    """An ensemble with its views and without.

    Attributes:
        passes, forward_passes_without_tta: forward passes through networks that one image costs.
        time_ratio: measured, of the exported models on this machine.
        scores, scores_without_tta: as in ``Ensemble``, each calibrated for itself, on images no member was trained on.
        images: how many of them are unchanged validation images.
    """

    forward_passes: int
    forward_passes_without_tta: int
    time_ratio: float
    scores: Mapping[str, float]
    scores_without_tta: Mapping[str, float]
    images: int

    @property
    def helps(self) -> bool:
        """Whether the shift score is higher with the views; differences of a point or less may be chance."""
        return self.scores["shift"] > self.scores_without_tta["shift"]


def predict_with_tta(
    ensemble: Ensemble, members: Mapping[str, ExportedMember], dataset: CellDataset, splits: Splits, *, seed: int
) -> TtaPredictions:
    """Every network's answers for the images it was not trained on and their shifted views, averaged over its views.

    Args:
        members: by a training's name, its network and views.
        seed: of the run, from which its shifted views derive.

    Raises:
        RunError: the images or the seed are not those of the run.
    """
    tta_predictions = {}
    trained = [one for member in ensemble.members for one in member.networks]
    for fold in sorted({one.fold for one in trained}):
        fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=seed), fold=fold)
        for one in trained:
            if one.fold != fold:
                continue
            stored = read_arrays(one.folder / "predictions.npz")
            plan = fold_data.plan
            expected = {
                "index": fold_data.validation_index,
                "shifted_labels": fold_data.shifted_labels,
                "shifted_families": plan.family_names,
                "shifted_severities": plan.severities,
            }
            if not all(np.array_equal(stored[name], value) for name, value in expected.items()):
                raise RunError(
                    f"{one.folder}: expected predictions for these validation images and views, got others. "
                    "Give the --seed and the images that it was trained with."
                )
            member = members[one.name]
            shares = {view.name: view.weight for view in member.tta}
            tta_predictions[one.name] = {
                "clean": predict_batches(member.network, dataset.images, fold_data.validation_index, tta=shares),
                "shifted": predict_batches(member.network, fold_data.shifted_images, tta=shares),
            }
    return tta_predictions


def tta_gain(
    without: Ensemble,
    tta_predictions: TtaPredictions,
    members: Sequence[ExportedMember],
    models: tuple[keras.Model, keras.Model],
    images: np.ndarray,
    *,
    clock: Clock,
) -> TtaGain:
    """Compares.

    Args:
        without: the ensemble without views; ``looked``: its members' answers with them.
        models: the exported model with views, and without.
        images: uint8 (n, h, w, 3), some to measure time on.
        clock: measures the duration.
    """
    batch = np.resize(images, (_TIMED_IMAGES, *images.shape[1:]))
    with_tta, plain = (
        median_seconds(functools.partial(model.predict_on_batch, batch), clock=clock, repeats=_TIMINGS)
        for model in models
    )
    return TtaGain(
        forward_passes=sum(member.forward_passes for member in members),
        forward_passes_without_tta=len(members),
        time_ratio=with_tta / plain,
        scores=with_tta_predictions(without, tta_predictions).scores,
        scores_without_tta=without.scores,
        images=without.images,
    )
