"""An exported ensemble taken apart: its class probabilities, the features of its members, and a model built on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bloodauto.errors import RunError
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.tta import zoom
from bloodauto.export.ood import ensemble_members
from bloodauto.types import Floats, Images, Probabilities

_LOGITS = "logits"
_BATCH_SIZE = 64
#: The smallest probability of the ensemble that a head has to overcome: confident mistakes are common at another site.
_PRIOR_FLOOR = 1e-7


@dataclass(frozen=True)
class ImageTransform:
    """What is done to every image of a site before the ensemble sees it.

    Attributes:
        magnification: how many times larger cells are made, about the centre; 1 leaves the image as it is.
        colour_gain: factor of each channel, red, green, blue; None leaves colours as they are.
        colour_offset: grey levels that are added to each channel after that.
    """

    magnification: float = 1.0
    colour_gain: tuple[float, float, float] | None = None
    colour_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def is_identity(self) -> bool:
        """Whether images stay as they are."""
        return self.magnification == 1.0 and self.colour_gain is None

    def apply(self, images: Any) -> Any:
        """Transforms a batch inside a graph or outside.

        Args:
            images: uint8 tensor or array (n, height, width, 3).

        Returns:
            uint8 tensor of the same shape.
        """
        if self.is_identity:
            return images
        values = ops.cast(images, "float32")
        if self.colour_gain is not None:
            gain = np.array(self.colour_gain, np.float32)
            values = ops.clip(ops.round(values * gain + np.array(self.colour_offset, np.float32)), 0, 255)
        if self.magnification != 1.0:
            values = zoom(values, self.magnification)
        return ops.cast(values, "uint8")

    def apply_to_array(self, images: Images) -> Images:
        """Transforms images outside a graph with the operations of the graph, batch by batch."""
        if self.is_identity:
            return images
        starts = range(0, len(images), _BATCH_SIZE)
        return np.concatenate([np.asarray(self.apply(images[start : start + _BATCH_SIZE])) for start in starts])


@dataclass(frozen=True)
class EnsembleOutputs:
    """What an ensemble computes for n images.

    Attributes:
        probabilities: calibrated, float32 (n, classes).
        features: what the last layers of all members get, side by side, float32 (n, d).
    """

    probabilities: Probabilities
    features: Floats


@dataclass(frozen=True)
class SiteHead:
    """A linear head: ``softmax(weights.T features + biases + prior_weight log(p))`` with the ensemble's p.

    Attributes:
        weights: float64 (d, classes).
        biases: float64 (classes,).
        prior_weight: exponent of the ensemble's own probabilities, 0 or more.
    """

    weights: Floats
    biases: Floats
    prior_weight: float

    def log_odds(self, outputs: EnsembleOutputs) -> Floats:
        """Before softmax, float64 (n, classes)."""
        prior = self.prior_weight * log_prior(outputs.probabilities)
        return np.asarray(outputs.features @ self.weights + self.biases + prior)

    def scaled(self, temperature: float) -> SiteHead:
        """The head with its log-odds divided by a temperature."""
        return SiteHead(self.weights / temperature, self.biases / temperature, self.prior_weight / temperature)


def log_prior(probabilities: Probabilities) -> Floats:
    """Logarithms of an ensemble's probabilities as a head adds to them, float64 (n, classes)."""
    return np.asarray(np.log(np.maximum(probabilities.astype(np.float64), _PRIOR_FLOOR)))


class FrozenEnsemble:
    """An exported model whose weights stay.

    Args:
        model: of an export: uint8 images (n, height, width, 3) -> class probabilities (n, classes), with its members as
            nested models.

    Raises:
        RunError: no such model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._members = ensemble_members(model)
        if not self._members:
            raise RunError(
                f"{model.name}: expected members with a layer {_LOGITS!r}, as bloodauto export-best writes them, got none."
            )
        self._parts: keras.Model | None = None

    @property
    def num_classes(self) -> int:
        """Classes of the model."""
        return int(self._model.output_shape[-1])

    def outputs(self, images: Images, transform: ImageTransform | None = None) -> EnsembleOutputs:
        """Predicts transformed images.

        Args:
            images: uint8 (n, height, width, 3), n at least 1.
            transform: applied first; None: nothing.
        """
        if self._parts is None:
            images_in = keras.Input(self._model.input_shape[1:], dtype="uint8", name="images")
            self._parts = keras.Model(images_in, list(self._split(images_in)))
            # One trace serves all transforms, which are applied outside.
        shown = images if transform is None else transform.apply_to_array(images)
        probabilities, features = predict_outputs(self._parts, shown, batch_size=_BATCH_SIZE)
        return EnsembleOutputs(probabilities, features)

    def with_head(self, transform: ImageTransform, head: SiteHead | None) -> keras.Model:
        """Builds the adapted model; it shares its weights with the ensemble and loads with Keras alone.

        Args:
            transform: the first thing in the model.
            head: the last thing in it; None keeps the ensemble's own probabilities.

        Returns:
            uint8 images (n, height, width, 3) -> class probabilities (n, classes).
        """
        images = keras.Input(self._model.input_shape[1:], dtype="uint8", name="images")
        probabilities, features = self._split(transform.apply(images))
        if head is not None:
            layer = keras.layers.Dense(self.num_classes, dtype="float32", name="site_head")
            log_prior = ops.log(ops.maximum(probabilities, _PRIOR_FLOOR)) * float(head.prior_weight)
            probabilities = ops.softmax(layer(features) + log_prior, axis=-1)
            layer.set_weights([np.asarray(head.weights, np.float32), np.asarray(head.biases, np.float32)])
            layer.trainable = False
        return keras.Model(images, probabilities, name="bloodauto")

    def _split(self, images: Any) -> tuple[Any, Any]:
        """Class probabilities and features of a batch, from one forward pass of each member.

        With test-time augmentation in the model, features are averaged over its transforms.
        """
        model = self._model
        # Keras has no public way to the tensors between the layers of a model that was loaded.
        nodes = [member._inbound_nodes[-1] for member in self._members]
        entry = keras.Model(model.inputs, [node.input_tensors[0] for node in nodes], name="before_members")
        final = keras.Model([node.output_tensors[0] for node in nodes], model.outputs[0], name="after_members")
        batches = _as_list(entry(images))
        # Each transform of test-time augmentation makes a batch of its own out of one image.
        blank = np.zeros((1, *model.input_shape[1:]), np.uint8)
        num_transforms = [len(batch) for batch in _as_list(entry([blank]))]
        logits, features = [], []
        for member, batch, transforms in zip(self._members, batches, num_transforms, strict=True):
            before_last = member.get_layer(_LOGITS).input
            of_logits, of_features = keras.Model(member.inputs[0], [member.outputs[0], before_last], name=member.name)(
                batch, training=False
            )
            logits.append(of_logits)
            by_transform = ops.reshape(of_features, (transforms, -1, of_features.shape[-1]))
            features.append(ops.cast(ops.mean(by_transform, axis=0), "float32"))
        joined = features[0] if len(features) == 1 else ops.concatenate(features, axis=-1)
        return final(logits if len(logits) > 1 else logits[0]), joined


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]
