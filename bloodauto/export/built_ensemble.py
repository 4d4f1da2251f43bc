"""Builds the exported model of an ensemble from its trained networks, with the sample that its files are checked by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.recipe import DEFAULT_TTA_TRANSFORMS, Recipe, load_recipe
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import with_tta_predictions
from bloodauto.ensemble.predictions import TtaPredictionsByNetwork, WeightedEnsemble
from bloodauto.evaluation.inference import predict_batches
from bloodauto.export.ensemble_model import IDENTITY, ExportedMember, build_ensemble_model, tta_transforms_of
from bloodauto.export.parity import ParitySample
from bloodauto.export.tta_evaluation import TtaGain, predict_with_tta, tta_gain
from bloodauto.models.batch_norm import adapted_batch_norm_weights
from bloodauto.models.network import trained_network
from bloodauto.run.artifacts import Ensemble, TrainedNetwork
from bloodauto.types import Images, Probabilities

_PARITY_IMAGES = 32
#: Workers on a GPU train in half precision, the export computes in float32; see ``ParitySample.tolerance``.
_PARITY_TOLERANCE = 1e-3
#: The batch-normalisation statistics of the training count as much as those of so many target images.
_SOURCE_PSEUDO_COUNT = 64


@dataclass(frozen=True)
class BuiltEnsemble:
    """The exported model in memory, with what the search predicts for some images.

    Attributes:
        model: of ``build_ensemble_model``.
        model_without_tta: the same without test-time augmentation; the same object where there is none.
        ensemble: its calibration is that of ``model``.
        members: one for each network, in the order of the ensemble's members and their folds.
        sample: what exported files are compared with.
        gain: what test-time augmentation changes; None without.
    """

    model: keras.Model
    model_without_tta: keras.Model
    ensemble: Ensemble
    members: tuple[ExportedMember, ...]
    sample: ParitySample
    gain: TtaGain | None


def build_ensemble(
    ensemble: Ensemble,
    dataset: CellDataset,
    splits: Splits,
    *,
    seed: int,
    tta: bool,
    target: Images | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> BuiltEnsemble:
    """Builds the model of an ensemble.

    Args:
        ensemble: its networks' files lie in the run.
        dataset: the images of the run.
        splits: of the run.
        seed: of the run; with ``tta`` the shifted images of the run are drawn again from it.
        tta: whether every member's probabilities are averaged over the transforms that its recipe names, or over
            ``DEFAULT_TTA_TRANSFORMS`` where no recipe names any, and calibrated anew.
        target: unlabelled images, uint8 (k, height, width, 3), to which the batch-normalisation statistics of every
            network are adapted (``adapted_batch_norm_weights``): better there, worse at the training site. The
            calibration stays that of the training site, the only one with labels. None: no adaptation.
        clock: measures what test-time augmentation costs.

    Raises:
        RunError: a member's files are missing, or do not belong to the images.
    """
    members = _load_members(ensemble, dataset, tta=tta, target=target)
    all_members = tuple(members.values())
    model_without_tta = _calibrated_model([replace(member, tta=IDENTITY) for member in all_members], ensemble)
    if not tta:
        sample = _parity_sample(ensemble, dataset, members, None, is_adapted=target is not None)
        return BuiltEnsemble(model_without_tta, model_without_tta, ensemble, all_members, sample, None)
    tta_predictions = predict_with_tta(ensemble, members, dataset, splits, seed=seed)
    calibrated = with_tta_predictions(ensemble, tta_predictions)
    model = _calibrated_model(all_members, calibrated)
    sample = _parity_sample(calibrated, dataset, members, tta_predictions, is_adapted=target is not None)
    gain = tta_gain(ensemble, tta_predictions, all_members, (model, model_without_tta), sample.images, clock=clock)
    return BuiltEnsemble(model, model_without_tta, calibrated, all_members, sample, gain)


def _load_members(
    ensemble: Ensemble, dataset: CellDataset, *, tta: bool, target: Images | None
) -> dict[str, ExportedMember]:
    """Every network of the ensemble by the name of its training."""
    height_px, width_px = dataset.images.shape[1:3]
    recipes = _load_recipes(ensemble)
    any_names_tta = any(recipe.tta_transforms for recipe in recipes.values())
    members = {}
    for member in ensemble.members:
        for trained in member.networks:
            recipe = recipes[trained.name]
            network = trained_network(
                recipe,
                trained.files.weights.path,
                num_classes=len(dataset.class_names),
                image_shape_px=(height_px, width_px),
            )
            if target is not None:
                network.set_weights(
                    adapted_batch_norm_weights(network, target, source_pseudo_count=_SOURCE_PSEUDO_COUNT)
                )
            transforms = IDENTITY
            if tta:
                transforms = tta_transforms_of(recipe.tta_transforms if any_names_tta else DEFAULT_TTA_TRANSFORMS)
            members[trained.name] = ExportedMember(network, member.weight / len(member.networks), transforms)
    return members


def _load_recipes(ensemble: Ensemble) -> dict[str, Recipe]:
    return {
        trained.name: load_recipe(trained.files.recipe) for member in ensemble.members for trained in member.networks
    }


def _calibrated_model(members: Sequence[ExportedMember], ensemble: Ensemble) -> keras.Model:
    calibration = ensemble.calibration
    return build_ensemble_model(members, temperature=calibration.temperature, per_class=calibration.per_class)


def _parity_sample(
    ensemble: Ensemble,
    dataset: CellDataset,
    members: Mapping[str, ExportedMember],
    tta_predictions: TtaPredictionsByNetwork | None,
    *,
    is_adapted: bool,
) -> ParitySample:
    """Validation images, and the calibrated average of the networks' stored predictions for them.

    With a network for each fold no image was predicted by all of them, and adapted networks have no stored predictions:
    there every network predicts anew, one by one.
    """
    index = ensemble.networks[0].files.predictions.read().index
    num_validation = len(index)
    rows = np.linspace(0, num_validation - 1, min(_PARITY_IMAGES, num_validation)).round().astype(int)
    images = dataset.images[index[rows]]
    predicts_anew = is_adapted or any(len(member.networks) > 1 for member in ensemble.members)

    def probabilities_of(trained: TrainedNetwork) -> Probabilities:
        if predicts_anew:
            member = members[trained.name]
            return predict_batches(member.network, images, tta=member.tta_weights)
        if tta_predictions is not None:
            return np.asarray(tta_predictions[trained.name].clean[rows])
        return np.asarray(trained.files.predictions.read().clean[rows])

    by_network = {trained.name: probabilities_of(trained) for trained in ensemble.networks}
    return ParitySample(images, WeightedEnsemble.of_networks(ensemble).predict(by_network), _PARITY_TOLERANCE)
