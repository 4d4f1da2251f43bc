"""Evaluates an exported model on labelled images of a site, whatever the site calls its classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from bloodauto.data.class_mapping import ClassMapping, map_classes, parse_mapping, require_confirmed
from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_labelled_images
from bloodauto.errors import DataError, UserError
from bloodauto.evaluation.selective import confidence_score
from bloodauto.evaluation.site_evaluation import EvaluatedModel, SitePredictions, evaluate_site, largest_mistakes
from bloodauto.export.model import Model, load_model
from bloodauto.report.site_page import MistakePicture, render_site_page
from bloodauto.run.artifacts import SiteEvaluation
from bloodauto.run.directory import ExportDirectory
from bloodauto.run.files import check_output_file, write_text
from bloodauto.types import Image, Labels

_MAX_PICTURES = 96

#: Asks a person about proposed class names; returns whether they are right.
Confirm = Callable[[ClassMapping], bool]


@dataclass(frozen=True)
class SiteData:
    """Labelled images of a site in a model's own classes and size.

    Attributes:
        dataset: the images as they were read.
        labels: int64 (n,), indices into the model's classes; -1 where the model has no such class.
        class_mapping: the site's class names and the model's.
    """

    dataset: CellDataset
    labels: Labels
    class_mapping: ClassMapping


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    class_map: str | None = None,
    magnification: float = 1.0,
    page: str | Path | None = None,
    confirm: Confirm | None = None,
    local_time: Callable[[], datetime] = lambda: datetime.now().astimezone(),
) -> SiteEvaluation:
    """Measures an exported model on labelled images.

    Args:
        model: A ``model.keras``, or the folder that holds it.
        data: A folder of class folders, a ``.csv`` manifest or an ``.npz`` file. Any number of images from one; patients
            or slides that it names are resampled as wholes for the intervals.
        class_map: What the site's class names mean, such as ``PMN=neutrophil,Mo=monocyte``, or a file with that; see
            ``data.class_mapping.parse_mapping``. Names that differ from the model's in case or a plural need none.
        magnification: How many times larger cells are made before they are predicted.
        page: HTML file to write, with pictures of mistakes; None writes none.
        confirm: Asks about class names that are proposed by nearness; None accepts none.
        local_time: The clock for the page's footer.

    Returns:
        The figures, with intervals.

    Raises:
        UserError: No such model, no usable images, class names that nobody confirmed, or only classes that the model
            does not have.

    Example:
        >>> import bloodauto
        >>> evaluation = bloodauto.evaluate("runs/first/export", "cells.npz", page="evaluation.html")
        >>> evaluation.accuracy.low <= evaluation.accuracy.value <= evaluation.accuracy.high
        True
    """
    if page is not None:
        check_output_file(Path(page))
    loaded = load_model(model)
    site = read_site_data(loaded, data, class_map=class_map, confirm=confirm)
    dataset = site.dataset
    if not (site.labels >= 0).any():
        raise DataError(
            f"{data}: expected images of at least one of the model's classes ({', '.join(loaded.class_names)}), got only "
            f"classes that it does not have: {', '.join(dataset.class_names)}. Say with --map which classes they are."
        )
    predicted = loaded.predict(dataset.images, magnification=magnification)
    confidence, threshold = None, 0.0
    if loaded.ood_detector is not None:
        confidence, threshold = -predicted.ood_score, -loaded.ood_detector.threshold
    elif loaded.abstention_rule is not None:
        rule = loaded.abstention_rule
        confidence, threshold = confidence_score(predicted.probabilities, rule.confidence_score), rule.threshold
    predictions = SitePredictions(
        predicted.probabilities,
        site.labels,
        np.array(dataset.class_names)[dataset.labels],
        dataset.groups,
        confidence,
        threshold,
    )
    evaluation = evaluate_site(
        predictions,
        EvaluatedModel(
            str(loaded.path),
            loaded.class_names,
            dataset.source,
            site.class_mapping.target_of,
            ExportDirectory(loaded.path.parent).stated_accuracy.read_if_exists(),
        ),
    )
    if page is not None:
        pictures = _mistake_pictures(predictions, dataset, loaded.class_names)
        write_text(Path(page), render_site_page(evaluation, pictures, written_at=local_time()))
    return evaluation


def read_site_data(
    model: Model, data: str | Path, *, class_map: str | None = None, confirm: Confirm | None = None
) -> SiteData:
    """Reads labelled images of a site in the size of a model's images, with labels in the model's classes.

    Args:
        model: The model.
        data: As in ``evaluate``.
        class_map: As in ``evaluate``.
        confirm: As in ``evaluate``.

    Raises:
        UserError: A model of oblong images, no usable images, or class names that nobody confirmed.
    """
    if model.height_px != model.width_px:
        raise UserError(
            f"{model.path}: expected a model of square images, got {model.height_px} x {model.width_px} px."
        )
    requested = None if class_map is None else parse_mapping(class_map)
    dataset = load_labelled_images(Path(data), image_size_px=model.height_px)
    mapping = map_classes(dataset.class_names, model.class_names, requested)
    if mapping.unconfirmed and not (confirm is not None and confirm(mapping)):
        require_confirmed(mapping, str(data))
    number_of = {name: number for number, name in enumerate(model.class_names)}
    targets = (mapping.target_of[name] for name in dataset.class_names)
    label_of_class = np.array([-1 if target is None else number_of[target] for target in targets], np.int64)
    return SiteData(dataset, label_of_class[dataset.labels], mapping)


def _mistake_pictures(
    predictions: SitePredictions, dataset: CellDataset, class_names: Sequence[str]
) -> list[MistakePicture]:
    pictures = []
    for row in largest_mistakes(predictions, _MAX_PICTURES).tolist():
        probabilities = predictions.probabilities[row]
        pictures.append(
            MistakePicture(
                name=str(dataset.names[row]),
                true_class=class_names[int(predictions.labels[row])],
                predicted_class=class_names[int(probabilities.argmax())],
                probability=float(probabilities.max()),
                png=_png(dataset.images[row]),
            )
        )
    return pictures


def _png(image: Image) -> bytes:
    _, encoded = cv2.imencode(".png", image[..., ::-1])
    return bytes(encoded.tobytes())
