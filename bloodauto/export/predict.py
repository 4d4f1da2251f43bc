"""Using an exported model: probabilities for images, and a CSV of them."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from bloodauto.errors import DataError, RunError, UserError
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.selective import is_confident
from bloodauto.export.labels import AbstentionRule, read_abstention_rule, read_class_names
from bloodauto.export.ood import OOD_FILE, OodDetector, ood_score, read_ood_detector
from bloodauto.run.files import atomic_path


@dataclass(frozen=True)
class ExportedModel:
    """A model read from a file.

    Attributes:
        path: the file.
        network: uint8 RGB images (n, height_px, width_px, 3) -> float32 probabilities (n, c).
        class_names: from ``labels.json`` beside the file, or ``class_0``, ``class_1``, ... where there is none.
        height_px, width_px: the images it takes.
        unsure: when an answer is not sure; None where ``labels.json`` does not say.
        familiarity: when an image is like none that was trained on; None where there is no such file beside the model.
    """

    path: Path
    network: keras.Model
    class_names: tuple[str, ...]
    height_px: int
    width_px: int
    abstention_rule: AbstentionRule | None = None
    ood_detector: OodDetector | None = None


def open_model(path: Path) -> ExportedModel:
    """Reads a ``.keras`` file, or the ``model.keras`` in a folder; nothing in it is executed beyond Keras' own layers.

    Raises:
        UserError: nothing is there, or it is no Keras file, or one that this Keras can not read.
        RunError: it does not answer with one row of classes for RGB images, or ``labels.json`` does not fit to it.
    """
    if path.is_dir():
        path = path / "model.keras"
    if not path.is_file():
        raise UserError(
            f"{path}: expected an exported model, found nothing there. Write one with bloodauto export-best."
        )
    if path.suffix != ".keras":
        raise UserError(f"{path}: expected a file ending in .keras, as bloodauto export-best writes it.")
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{path}: expected a Keras model, could not read it with Keras {keras.__version__} "
            f"({reason[-1][:300] if reason else type(error).__name__}). If a newer Keras wrote it, install that one; "
            "otherwise export again."
        ) from None
    shapes = (getattr(network, "input_shape", None), getattr(network, "output_shape", None))
    match shapes:
        case ((None, int(height), int(width), 3), (None, int(classes))):
            pass
        case _:
            raise RunError(
                f"{path}: expected a model of images (n, height, width, 3) that answers (n, classes), got "
                f"{shapes[0]} -> {shapes[1]}. Was it written by bloodauto export-best?"
            )
    names = path.with_name("labels.json")
    abstention_rule = read_abstention_rule(names) if names.is_file() else None
    known = path.with_name(OOD_FILE)
    ood_detector = read_ood_detector(known) if known.is_file() else None
    return ExportedModel(path, network, _class_names(path, classes), height, width, abstention_rule, ood_detector)


def predict_images(model: ExportedModel, images: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Calibrated probabilities.

    Args:
        model: of ``open_model``.
        images: uint8, (n, height_px, width_px, 3), RGB, 0-255; n may be 0.
        batch_size: images at a time; with test-time transforms a multiple of it is in memory.

    Returns:
        float32, (n, c), rows sum to 1.

    Raises:
        DataError: images of another type or size.
        RunError: the answers are no probabilities.
    """
    wanted = (model.height_px, model.width_px, 3)
    if images.dtype != np.uint8 or images.shape[1:] != wanted:
        raise DataError(
            f"{model.path}: expected uint8 images (n, {', '.join(map(str, wanted))}) with values 0-255, got "
            f"{images.dtype} {images.shape}. Resize and convert them first."
        )
    if not len(images):
        return np.zeros((0, len(model.class_names)), dtype=np.float32)
    probabilities = predict_outputs(model.network, images, batch_size=batch_size)[0]
    if not (np.isfinite(probabilities).all() and np.abs(probabilities.sum(axis=1) - 1).max() < 1e-3):
        raise RunError(
            f"{model.path}: expected probabilities that sum to 1, got rows that sum to "
            f"{probabilities.sum(axis=1).min():.3g}..{probabilities.sum(axis=1).max():.3g}. Was it written by "
            "bloodauto export-best?"
        )
    return probabilities


def which_are_confident(model: ExportedModel, images: np.ndarray, probabilities: np.ndarray) -> np.ndarray | None:
    """Which answers stand: the model is sure of them, and the images are like those that were trained on.

    Looking at both, as ``ood.npz`` says, costs about as much as the answers did. Where there is no such file, the line
    of ``labels.json`` counts, which looks at the answers alone.

    Args:
        images, probabilities: (n, h, w, 3) and what ``predict_images`` answered for them.

    Returns:
        bool (n,); None where the files beside the model hold no rule.

    Raises:
        RunError: the rule is that of another model.
    """
    if model.ood_detector is not None:
        if not len(images):
            return np.ones(0, dtype=bool)
        return ood_score(model.ood_detector, model.network, images, probabilities) <= model.ood_detector.threshold
    if model.abstention_rule is None:
        return None
    return is_confident(probabilities, model.abstention_rule.confidence_score, model.abstention_rule.threshold)


def write_predictions_csv(
    path: Path,
    names: Sequence[str],
    class_names: Sequence[str],
    probabilities: np.ndarray,
    sure: np.ndarray | None = None,
) -> None:
    """Writes one line an image, atomically.

    The columns: name, label (the likeliest class), ``probability_<class>`` for each class, and ``confident``: ``yes``, ``no``
    (not sure, or none of these cells: look at it), or empty without a rule.

    Args:
        path: the file.
        names: n, one for each image.
        class_names: c.
        probabilities: float, (n, c); written with six decimals.
        sure: bool, (n,), of ``which_are_confident``; None without a rule.
    """
    assert probabilities.shape == (len(names), len(class_names)), (
        f"expected probabilities ({len(names)}, {len(class_names)}), got {probabilities.shape}"
    )
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["name", "label", *(f"probability_{name}" for name in class_names), "confident"])
        words = [""] * len(names) if sure is None else ["yes" if one else "no" for one in sure]
        for name, row, word in zip(names, probabilities, words, strict=True):
            writer.writerow([name, class_names[int(row.argmax())], *(f"{value:.6f}" for value in row), word])


def _class_names(model_path: Path, classes: int) -> tuple[str, ...]:
    path = model_path.with_name("labels.json")
    if not path.is_file():
        return tuple(f"class_{index}" for index in range(classes))
    names = read_class_names(path)
    if len(names) != classes:
        raise RunError(
            f"{path}: expected {classes} classes, as {model_path.name} answers, got {len(names)}. The two files do not "
            "belong together; export again, or remove labels.json to have the classes numbered."
        )
    return names
