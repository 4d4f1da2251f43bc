"""Evaluates an exported model on labelled images of a site, whatever the site calls its classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from bloodauto.data.class_mapping import ClassMapping, map_classes, parse_mapping, require_confirmed
from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_labelled_images
from bloodauto.errors import DataError, RunError, UserError
from bloodauto.evaluation.prediction_pictures import PredictedImages, prediction_pictures
from bloodauto.evaluation.saliency import grad_cam
from bloodauto.evaluation.selective import confidence_score
from bloodauto.evaluation.site_evaluation import EvaluatedModel, SitePredictions, evaluate_site
from bloodauto.evaluation.tta import zoom_images
from bloodauto.export.model import Model, load_model
from bloodauto.report.site_page import render_site_page
from bloodauto.run.artifacts import PredictionPictures, SiteEvaluation
from bloodauto.run.directory import ExportDirectory
from bloodauto.run.files import check_output_file, write_text
from bloodauto.types import Floats, Images, Labels

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
        page: HTML file to write, with pictures and saliency maps; None writes none.
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
        pictures = _pictures(loaded, predictions, dataset, magnification)
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


def _pictures(
    model: Model, predictions: SitePredictions, dataset: CellDataset, magnification: float
) -> PredictionPictures:
    """Pictures of the site's images as the network sees them, with saliency maps where it has convolutions."""
    flagged = predictions.flagged
    shown = zoom_images(model.resized(dataset.images), magnification)

    def explain(images: Images, labels: Labels) -> Floats:
        try:
            return grad_cam(model.network, images, labels)
        except RunError:
            return np.zeros(images.shape[:3], np.float32)

    predicted = PredictedImages(
        images=shown,
        names=dataset.names,
        labels=predictions.labels,
        probabilities=predictions.probabilities,
        abstained=np.zeros(len(shown), bool) if flagged is None else flagged,
        class_names=model.class_names,
        source="the site's images",
    )
    return prediction_pictures(predicted, explain)
