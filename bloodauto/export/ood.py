"""The OOD detector of an exported model: fitted on, and applied to, what the last layers of its members get."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from bloodauto.errors import RunError
from bloodauto.evaluation import ood
from bloodauto.run.artifacts import OodDetector, OodEvaluation
from bloodauto.types import Images, Labels, Probabilities, Rows


def fit_ood_detector(
    model: keras.Model, images: Images, labels: Labels, train: Rows, held_out: Rows, *, seed: int
) -> tuple[OodDetector, OodEvaluation]:
    """Fits the detector of an exported model; see ``evaluation.ood.fit_ood_detector``.

    Args:
        model: Of ``build_ensemble_model``.
        images: Shape (n, height, width, 3).
        labels: Shape (n,).
        train: Rows of ``images`` that the networks were trained on.
        held_out: Rows that they were not trained on.
        seed: The same seed gives the same detector.
    """
    return ood.fit_ood_detector(_with_features(model), images, labels, train, held_out, seed=seed)


def mean_distances(detector: OodDetector, model: keras.Model, images: Images) -> NDArray[np.float64]:
    """Distance to the training classes, averaged over the members, shape (n,).

    Args:
        detector: Of the same model.
        model: Of ``build_ensemble_model``.
        images: Shape (n, height, width, 3).

    Raises:
        RunError: The detector is that of another model.
    """
    with_features = _with_features(model)
    sizes = [output.shape[-1] for output in with_features.features.outputs]
    expected = [space.means.shape[1] for space in detector.spaces]
    if sizes != expected:
        raise RunError(
            f"{OodDetector.FILE}: expected features of {sizes} numbers, as this model's members have, got {expected}. The "
            "two files do not belong together; export again."
        )
    return ood.mean_class_distances(detector.spaces, with_features.predict_features(images))


def ood_score(
    detector: OodDetector, model: keras.Model, images: Images, probabilities: Probabilities
) -> NDArray[np.float64]:
    """How unlike the training images each image is, shape (n,); see ``evaluation.ood.combined_ood_score``.

    Args:
        detector: Of the same model.
        model: Of ``build_ensemble_model``.
        images: Shape (n, height, width, 3).
        probabilities: What the model predicts for them, shape (n, classes).

    Raises:
        RunError: The detector is that of another model.
    """
    return ood.combined_ood_score(detector, mean_distances(detector, model, images), probabilities)


def _with_features(model: keras.Model) -> ood.OodModel:
    """The model with what each member's last layer gets, in the order of the members."""
    images = keras.Input(model.input_shape[1:], dtype="uint8")
    members = ensemble_members(model)
    before_last = [keras.Model(member.inputs[0], member.get_layer("logits").input) for member in members]
    return ood.OodModel(model, keras.Model(images, [network(images, training=False) for network in before_last]))


def ensemble_members(model: keras.Model) -> list[keras.Model]:
    """The networks inside an exported model, in their order: nested models with a layer ``logits``."""
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return [member for member in nested if any(layer.name == "logits" for layer in member.layers)]
