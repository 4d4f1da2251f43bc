"""What the report shows of an exported ensemble: pictures of its predictions, shifted images, and its augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from bloodauto.config.recipe import load_recipe
from bloodauto.data.dataset import CellDataset
from bloodauto.data.pictures import jpeg_of
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import out_of_fold_ensemble
from bloodauto.errors import RunError
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.prediction_pictures import Explain, PredictedImages, prediction_pictures
from bloodauto.evaluation.saliency import grad_cam
from bloodauto.evaluation.selective import is_confident
from bloodauto.export.ood import ood_score
from bloodauto.run.artifacts import Ensemble, OodDetector, ResultPictures, ShiftFamily, ShiftLevel
from bloodauto.shift.corruptions import find_family
from bloodauto.training.augmentation_preview import augmentation_contact_sheet, augmentation_preview
from bloodauto.types import Image, Images, Labels, Mask, Probabilities, Rows

#: Images that the OOD detector looks at: it takes as long for an image as its prediction.
_CHECKED_IMAGES = 256
_AUGMENTED_ROWS, _AUGMENTED_COLUMNS, _AUGMENTED_TILE_PX, _AUGMENTED_BYTES = 6, 8, 72, 90_000


@dataclass(frozen=True)
class PicturedEnsemble:
    """An ensemble that pictures are drawn of.

    Attributes:
        model: of ``build_ensemble_model``, without test-time augmentation.
        ensemble: its networks' files lie in the run.
        ood_detector: of the model; None where none was fitted.
        test_probabilities: what the model predicts for the held-out test images, if that is known.
        seed: of the run.
    """

    model: keras.Model
    ensemble: Ensemble
    ood_detector: OodDetector | None
    test_probabilities: Probabilities | None
    seed: int


def draw_result_pictures(pictured: PicturedEnsemble, dataset: CellDataset, splits: Splits) -> ResultPictures:
    """Draws what the report shows.

    Args:
        pictured: the ensemble.
        dataset: the images of the run.
        splits: of the run. The pictures are of the held-out test set; where nothing is held out, of the validation images.

    Returns:
        The pictures; see ``ResultPictures``. Nothing is predicted again that is known.

    Raises:
        RunError: a member's files are missing or damaged.
    """
    predicted = _predicted(pictured, dataset, splits)
    augmented, source = _augmented_images(pictured, dataset, splits)
    original = predicted.images[_typical(predicted)]
    return ResultPictures(
        ensemble=pictured.ensemble.ensemble_id,
        predictions=prediction_pictures(predicted, _explainer(pictured.model)),
        shift_original=jpeg_of(original),
        shift=shift_families(pictured.ensemble, original, seed=pictured.seed),
        augmentation=jpeg_of(augmented, side_px=None, max_bytes=_AUGMENTED_BYTES),
        augmentation_source=source,
    )


def _predicted(pictured: PicturedEnsemble, dataset: CellDataset, splits: Splits) -> PredictedImages:
    rows, probabilities = splits.test_index(), pictured.test_probabilities
    has_test = len(rows) > 0
    if not has_test:
        out_of_fold = out_of_fold_ensemble(pictured.ensemble)
        rows, probabilities = out_of_fold.truth.index, out_of_fold.clean
    images = dataset.images[rows]
    if probabilities is None:
        probabilities = predict_outputs(pictured.model, images)[0]
    return PredictedImages(
        images=images,
        names=dataset.names[rows],
        labels=dataset.labels[rows],
        probabilities=probabilities,
        abstained=_abstained(pictured, images, probabilities),
        class_names=dataset.class_names,
        source="held-out test images" if has_test else "validation images",
    )


def _explainer(model: keras.Model) -> Explain:
    def explain(images: Images, labels: Labels) -> NDArray[np.floating]:
        try:
            return grad_cam(model, images, labels)
        except RunError:
            # A network whose maps cannot be computed is no reason to have no report; an empty map says that nothing is known.
            return np.zeros(images.shape[:3], np.float32)

    return explain


def _abstained(pictured: PicturedEnsemble, images: Images, probabilities: Probabilities) -> Mask:
    """Which images the export marks, among those that are checked."""
    if pictured.ood_detector is None:
        return ~is_confident(probabilities, pictured.ensemble.abstention.rule)
    rng = np.random.default_rng([pictured.seed, 90])
    checked = np.sort(rng.permutation(len(images))[:_CHECKED_IMAGES])
    scores = ood_score(pictured.ood_detector, pictured.model, images[checked], probabilities[checked])
    abstained = np.zeros(len(images), bool)
    abstained[checked[scores > pictured.ood_detector.threshold]] = True
    return abstained


def _typical(predicted: PredictedImages) -> int:
    """The row of the most confident correct prediction; the first row where none is correct."""
    correct = predicted.predicted == predicted.labels
    return int(np.argmax(np.where(correct, predicted.confidence, -1.0)))


def shift_families(ensemble: Ensemble, original: Image, *, seed: int) -> tuple[ShiftFamily, ...]:
    """The ensemble's accuracy under each corruption family and severity that its validation images were shown in.

    Args:
        ensemble: its networks' predictions lie in the run.
        original: the image that examples are made from.
        seed: of the examples.

    Returns:
        By group and family, in the order of the predictions; empty where there are no shifted images.

    Raises:
        RunError: a member's predictions are missing or damaged.
    """
    predictions = out_of_fold_ensemble(ensemble)
    # The images are the same for every member, in the order of its folds.
    stored = [network.files.predictions.read() for network in ensemble.members[0].networks]
    names = np.concatenate([part.shifted_families for part in stored])
    severities = np.concatenate([part.shifted_severities for part in stored])
    correct = predictions.shifted.argmax(axis=1) == predictions.truth.shifted_labels
    families = []
    for name in dict.fromkeys(names.tolist()):
        shown_severities = np.unique(severities[names == name]).tolist()
        levels = tuple(
            _level(severity, correct[(names == name) & (severities == severity)]) for severity in shown_severities
        )
        family = find_family(name)
        example = family.apply(original, shown_severities[-1], np.random.default_rng([seed, 91, family.random_key]))
        families.append(ShiftFamily(family=name, group=family.group, levels=levels, example=jpeg_of(example)))
    return tuple(families)


def _level(severity: int, correct: Mask) -> ShiftLevel:
    return ShiftLevel(severity=severity, correct=int(correct.sum()), images=len(correct))


def _augmented_images(pictured: PicturedEnsemble, dataset: CellDataset, splits: Splits) -> tuple[Image, str]:
    """A contact sheet of the augmentation of the member with the largest weight, in its last stage."""
    member = max(pictured.ensemble.members, key=lambda member: member.weight)
    recipe = load_recipe(member.networks[0].files.recipe)
    stage = len(recipe.stages) - 1
    augmented = augmentation_contact_sheet(
        dataset.images[_one_of_each_class(dataset, splits.train_index(0))],
        augmentation_preview(recipe, stage, "online"),
        seed=pictured.seed,
        columns=_AUGMENTED_COLUMNS,
        tile_size_px=_AUGMENTED_TILE_PX,
    )
    return augmented, member.name


def _one_of_each_class(dataset: CellDataset, rows: Rows) -> Rows:
    """An image of each of the first classes, from the middle of its images."""
    by_class = [rows[dataset.labels[rows] == label] for label in range(len(dataset.class_names))]
    return np.array([of_class[len(of_class) // 2] for of_class in by_class if len(of_class)][:_AUGMENTED_ROWS])
