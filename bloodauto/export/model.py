"""Loads an exported model and predicts with it: class probabilities, abstention and OOD scores as arrays."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from bloodauto.data.arrays import resize_images
from bloodauto.data.load import expand_home
from bloodauto.errors import DataError, RunError, UserError
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.selective import is_confident
from bloodauto.evaluation.tta import zoom_images
from bloodauto.export.model_file import check_model_file
from bloodauto.export.ood import ood_score
from bloodauto.printable import csv_cell
from bloodauto.run.artifacts import AbstentionRule, OodDetector
from bloodauto.run.directory import ExportDirectory
from bloodauto.run.files import atomic_path
from bloodauto.types import Images, Labels, Mask, Probabilities, Scores, check_images

_PROBABILITY_SUM_TOLERANCE = 1e-3
_SMALLEST_MAGNIFICATION, _LARGEST_MAGNIFICATION = 0.25, 4.0


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for n images.

    Attributes:
        probabilities: float32, (n, classes), calibrated; rows sum to 1.
        labels: int64, (n,), the class with the highest probability, an index into ``class_names``.
        class_names: one for each class.
        abstained: bool, (n,): True where the prediction should not be used without looking at the image: it is
            uncertain, or the image is unlike the training images. All False where the model has no rule for that.
        ood_score: float64, (n,), how far an image is from the training images in the networks' features, with the
            entropy of its probabilities added; larger is farther. NaN where the model has no OOD detector.

    Example:
        >>> predictions = load_model("runs/first/export").predict(np.load("new_cells.npy"))
        >>> predictions.probabilities.shape
        (24, 8)
    """

    probabilities: Probabilities
    labels: Labels
    class_names: tuple[str, ...]
    abstained: Mask
    ood_score: Scores

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Model:
    """An exported model in memory. Made by ``load_model``.

    Attributes:
        path: the file that it was read from.
        class_names: from ``labels.json`` beside the file; ``class_0``, ``class_1``, ... where there is none.
        height_px: of the images that the network takes.
        width_px: of the images that the network takes.
        abstention_rule: when a prediction is uncertain, by its probabilities; None where ``labels.json`` has none.
        ood_detector: when an image is unlike the training images; None where there is no ``ood.npz`` beside the file.
            It takes precedence over the abstention rule, which it contains.
        network: uint8 RGB images (n, height_px, width_px, 3) -> float32 probabilities (n, classes).

    Example:
        >>> load_model("runs/first/export").height_px
        32
    """

    path: Path
    class_names: tuple[str, ...]
    height_px: int
    width_px: int
    abstention_rule: AbstentionRule | None
    ood_detector: OodDetector | None
    network: keras.Model = field(repr=False)

    def predict(self, images: Images, *, batch_size: int = 64, magnification: float = 1.0) -> Predictions:
        """Predicts images.

        The OOD score needs a second pass through the networks, which about doubles the time.

        Args:
            images: uint8, (n, height, width, 3), RGB, 0-255, not normalised; n may be 0. Images of another size than the
                network's are padded to a square and resized as the training images were.
            batch_size: images at a time, at least 1; with test-time augmentation a multiple of it is in memory.
            magnification: how many times larger cells are made before they are predicted, 0.25 to 4, for a site whose
                microscope or crop box shows them smaller (above 1) or larger (below 1) than the training images did.

        Returns:
            One prediction for each image, in their order.

        Raises:
            DataError: no such array; or images of another size for a network whose images are not square.
            UserError: a magnification that is out of range.
            RunError: the network's outputs are no probabilities, or ``ood.npz`` belongs to another model.

        Example:
            >>> model = load_model("runs/first/export")
            >>> predictions = model.predict(np.load("new_cells.npy"))
            >>> len(predictions) == len(predictions.abstained) == len(predictions.ood_score) == 24
            True
        """
        _check_magnification(magnification)
        resized = zoom_images(self.resized(images), magnification)
        if not len(resized):
            return self._without_images()
        probabilities = predict_outputs(self.network, resized, batch_size=batch_size)[0]
        self._check_probabilities(probabilities)
        scores = np.full(len(resized), np.nan)
        abstained = np.zeros(len(resized), bool)
        if self.ood_detector is not None:
            scores = ood_score(self.ood_detector, self.network, resized, probabilities)
            abstained = scores > self.ood_detector.threshold
        elif self.abstention_rule is not None:
            abstained = ~is_confident(probabilities, self.abstention_rule)
        return Predictions(probabilities, probabilities.argmax(axis=1), self.class_names, abstained, scores)

    def resized(self, images: Images) -> Images:
        """Images in the size of the network's: padded to a square and resized, as the training images were.

        Args:
            images: uint8, (n, height, width, 3), RGB, 0-255.

        Returns:
            uint8, (n, ``height_px``, ``width_px``, 3).

        Raises:
            DataError: no such array; or images of another size for a network whose images are not square.
        """
        check_images(images, "predict")
        if images.shape[1:3] == (self.height_px, self.width_px):
            return images
        if self.height_px != self.width_px:
            raise DataError(
                f"predict: expected images of {self.height_px} x {self.width_px} px, as {self.path} takes them, got "
                f"{images.shape[1]} x {images.shape[2]}. Resize them first."
            )
        return resize_images(images, self.height_px)

    def _without_images(self) -> Predictions:
        return Predictions(
            np.zeros((0, len(self.class_names)), np.float32),
            np.zeros(0, np.int64),
            self.class_names,
            np.zeros(0, bool),
            np.zeros(0),
        )

    def _check_probabilities(self, probabilities: Probabilities) -> None:
        sums = probabilities.sum(axis=1)
        if not (np.isfinite(probabilities).all() and np.abs(sums - 1).max() < _PROBABILITY_SUM_TOLERANCE):
            raise RunError(
                f"{self.path}: expected probabilities that sum to 1, got rows that sum to {sums.min():.3g}.."
                f"{sums.max():.3g}. Was it written by bloodauto export-best?"
            )


def _check_magnification(magnification: float) -> None:
    if not _SMALLEST_MAGNIFICATION <= magnification <= _LARGEST_MAGNIFICATION:
        raise UserError(
            f"magnification: expected {_SMALLEST_MAGNIFICATION:g} to {_LARGEST_MAGNIFICATION:g} times, got {magnification:g}."
        )


def load_model(path: str | Path) -> Model:
    """Loads an exported model.

    Loading is safe: before Keras builds anything in its safe mode, the file is checked to hold layers of an allowed list alone
    and weights that refer to no other file. Nothing is unpickled.

    Args:
        path: the folder of an export, or a ``.keras`` file in it.

    Raises:
        UserError: nothing there, no Keras file, or one that this Keras cannot read.
        RunError: a model that does not predict one row of classes for RGB images, or a ``labels.json`` or ``ood.npz``
            beside it that is damaged or belongs to another model.

    Example:
        >>> model = load_model("runs/first/export")
        >>> model.class_names
        ('basophil', 'eosinophil', 'erythroblast', 'ig', 'lymphocyte', 'monocyte', 'neutrophil', 'platelet')
    """
    file = expand_home(Path(path))
    if file.is_dir():
        file = ExportDirectory(file).keras_model
    if not file.is_file():
        raise UserError(
            f"{file}: expected an exported model, found nothing there. Write one with bloodauto export-best."
        )
    if file.suffix != ".keras":
        raise UserError(f"{file}: expected a file ending in .keras, as bloodauto export-best writes it.")
    check_model_file(file)
    try:
        network = keras.saving.load_model(file, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{file}: expected a Keras model, could not read it with Keras {keras.__version__} "
            f"({reason[-1][:300] if reason else type(error).__name__}). If a newer Keras wrote it, install that one; "
            "otherwise export again."
        ) from error
    match getattr(network, "input_shape", None), getattr(network, "output_shape", None):
        case (None, int(height_px), int(width_px), 3), (None, int(num_classes)):
            pass
        case input_shape, output_shape:
            raise RunError(
                f"{file}: expected a model of images (n, height, width, 3) that predicts (n, classes), got {input_shape} -> "
                f"{output_shape}. Was it written by bloodauto export-best?"
            )
    directory = ExportDirectory(file.parent)
    labels = directory.labels.read_if_exists()
    if labels is not None and len(labels.classes) != num_classes:
        raise RunError(
            f"{directory.labels.path}: expected {num_classes} classes, as {file.name} predicts, got "
            f"{len(labels.classes)}. The two files do not belong together; export again, or remove labels.json to have the "
            "classes numbered."
        )
    return Model(
        path=file,
        class_names=tuple(f"class_{index}" for index in range(num_classes)) if labels is None else labels.classes,
        height_px=height_px,
        width_px=width_px,
        abstention_rule=None if labels is None else labels.abstention,
        ood_detector=directory.ood_detector.read_if_exists(),
        network=network,
    )


def write_predictions_csv(path: Path, names: Sequence[str], predictions: Predictions) -> None:
    """Writes one line for each image, atomically.

    Columns: ``name``, ``label`` (name of the class), ``probability_<class>`` for each class with six decimals,
    ``abstained`` (``true`` or ``false``) and ``ood_score`` (six significant digits; empty without an OOD detector).

    Args:
        path: the file.
        names: n, one for each image.
        predictions: of n images.
    """
    assert len(names) == len(predictions), f"expected {len(predictions)} names, got {len(names)}"
    class_names = predictions.class_names
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["name", "label", *(f"probability_{name}" for name in class_names), "abstained", "ood_score"])
        rows = zip(
            names,
            predictions.labels.tolist(),
            predictions.probabilities,
            predictions.abstained.tolist(),
            predictions.ood_score.tolist(),
            strict=True,
        )
        for name, label, row, abstained, score in rows:
            score_text = "" if np.isnan(score) else f"{score:.6g}"
            abstained_text = "true" if abstained else "false"
            writer.writerow(
                [
                    csv_cell(name),
                    csv_cell(class_names[label]),
                    *(f"{value:.6f}" for value in row),
                    abstained_text,
                    score_text,
                ]
            )
