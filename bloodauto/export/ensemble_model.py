"""Combines trained networks into one Keras model that predicts calibrated probabilities for plain images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bloodauto.config.recipe import TransformName, WeightedTransform, tta_weights
from bloodauto.errors import RunError
from bloodauto.evaluation.calibration import PROBABILITY_FLOOR
from bloodauto.evaluation.tta import SQUARE_ONLY_TRANSFORMS, tta_batch
from bloodauto.run.artifacts import PerClassScaling


@dataclass(frozen=True)
class TtaTransform:
    """A transform of the image for test-time augmentation.

    Attributes:
        name: as in ``evaluation.tta``.
        weight: of its probabilities in the average, above 0; those of all transforms sum to 1.
    """

    name: TransformName
    weight: float


IDENTITY: tuple[TtaTransform, ...] = (TtaTransform("identity", 1.0),)


def tta_transforms_of(recipe_transforms: Sequence[WeightedTransform]) -> tuple[TtaTransform, ...]:
    """A recipe's transforms with normalised weights; the image itself where it names none."""
    return tuple(TtaTransform(name, weight) for name, weight in tta_weights(recipe_transforms).items())


@dataclass(frozen=True)
class ExportedMember:
    """A trained network and its part in the exported ensemble.

    Attributes:
        network: a functional model of standard Keras layers: uint8 RGB images (n, height, width, 3), 0-255 -> logits
            (n, classes), normalisation and resizing inside.
        weight: of its probabilities in the average, above 0; those of all members sum to 1.
        tta: the transforms that its probabilities are averaged over, at least one.
    """

    network: keras.Model
    weight: float
    tta: tuple[TtaTransform, ...] = IDENTITY

    @property
    def forward_passes(self) -> int:
        """Forward passes through the network for one image."""
        return len(self.tta)

    @property
    def tta_weights(self) -> dict[TransformName, float]:
        """The weight of each transform."""
        return {transform.name: transform.weight for transform in self.tta}


def build_ensemble_model(
    members: Sequence[ExportedMember], *, temperature: float = 1.0, per_class: PerClassScaling | None = None
) -> keras.Model:
    """Builds one functional model: uint8 RGB images (n, height, width, 3), 0-255 -> float32 probabilities (n, classes).

    Each member's softmax is averaged over its transforms and then over the members, and the average p becomes
    ``softmax(log(max(p, 1e-12)) / temperature)``; then scales and biases act on each class, as in
    ``evaluation.calibration.apply_calibration``. The members are copied, in float32 whatever precision they were trained
    in, and are not changed. Nothing is random: dropout is off and batch normalisation uses its stored statistics, even
    where the caller passes ``training=True``.

    Computing time and activations grow with the sum of the members' forward passes. The graph does not grow with the
    transforms, which pass through a member as one larger batch.

    Args:
        members: at least one.
        temperature: of the average, above 0.
        per_class: vector scaling after the temperature; None: the temperature alone.

    Raises:
        RunError: a member with layers that would not load without this project; members that disagree on images or
            classes; a transform that turns images which are not square.
    """
    assert members, "expected at least one member"
    assert all(member.tta for member in members), "expected at least one transform"
    for weights in (
        [member.weight for member in members],
        *([transform.weight for transform in member.tta] for member in members),
    ):
        assert min(weights) > 0, f"weights: expected numbers above 0, got {weights}"
        assert abs(sum(weights) - 1) < 1e-6, f"weights: expected a sum of 1, got {sum(weights)}"
    with _float32_by_default():
        networks = [_portable_copy(member.network, f"member_{index}") for index, member in enumerate(members)]
        _check_shapes(networks, [transform for member in members for transform in member.tta])
        return _combine(networks, members, temperature, per_class)


def _combine(
    networks: Sequence[keras.Model],
    members: Sequence[ExportedMember],
    temperature: float,
    per_class: PerClassScaling | None,
) -> keras.Model:
    images = keras.Input(networks[0].input_shape[1:], dtype="uint8", name="images")
    weighted = []
    for network, member in zip(networks, members, strict=True):
        batch = tta_batch(images, [transform.name for transform in member.tta])
        probabilities = ops.softmax(ops.cast(network(batch, training=False), "float32"), axis=-1)
        if member.forward_passes > 1:
            weights = np.array([transform.weight for transform in member.tta], dtype=np.float32).reshape(-1, 1, 1)
            by_transform = ops.reshape(probabilities, (member.forward_passes, -1, network.output_shape[-1]))
            probabilities = ops.sum(by_transform * weights, axis=0)
        weighted.append(probabilities * float(member.weight))
    average = weighted[0]
    for probabilities in weighted[1:]:
        average = average + probabilities
    calibrated = ops.softmax(ops.log(ops.maximum(average, PROBABILITY_FLOOR)) / float(temperature), axis=-1)
    if per_class is not None:
        scales, biases = (np.array([values], dtype=np.float32) for values in (per_class.scales, per_class.biases))
        calibrated = ops.softmax(ops.log(ops.maximum(calibrated, PROBABILITY_FLOOR)) * scales + biases, axis=-1)
    return keras.Model(images, calibrated, name="bloodauto")


def _portable_copy(network: keras.Model, name: str) -> keras.Model:
    """A copy that computes in float32 and is never random, under a name of its own.

    Names inside stay: each member is a namespace.
    """
    _check_portable(network)
    copy = type(network).from_config({**_inference_config(network.get_config()), "name": name})
    copy.set_weights(network.get_weights())
    # Batch normalisation that is not trainable keeps to its stored statistics whatever the caller says.
    copy.trainable = False
    return copy


def _inference_config(config: Any) -> Any:
    """The configuration with 16-bit precision policies replaced and dropout rates set to 0.

    The uint8 of an Input is no policy and stays. Calling a nested model with ``training=False`` would not be enough
    against dropout: Keras lets ``training=True`` of the outermost call override it.
    """
    if isinstance(config, list | tuple):
        return type(config)(_inference_config(value) for value in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {**config["config"], "name": "float32"}}
    result: dict[str, Any] = {key: _inference_config(value) for key, value in config.items()}
    if str(config.get("class_name")).endswith("Dropout") and "rate" in config["config"]:
        result["config"]["rate"] = 0.0
    return result


@contextlib.contextmanager
def _float32_by_default() -> Iterator[None]:
    """Sets the process's precision policy: a model, unlike a layer, has none in its configuration and takes this one."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def _check_portable(network: keras.Model) -> None:
    for layer in _flat_layers(network):
        package = type(layer).__module__.partition(".")[0]
        if package != "keras" or isinstance(layer, keras.layers.Lambda):
            raise RunError(
                f"{network.name}: expected layers of Keras itself, got {layer.name!r} of "
                f"{type(layer).__module__}.{type(layer).__name__}, which a file could not load without this project. "
                "Build the network from standard layers."
            )


def _flat_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from _flat_layers(inner)


def _check_shapes(networks: Sequence[keras.Model], tta: Sequence[TtaTransform]) -> None:
    shapes = {(network.input_shape[1:], network.output_shape[1:]) for network in networks}
    if len(shapes) != 1:
        raise RunError(
            "ensemble members: expected the same images and classes for all, got "
            + "; ".join(f"{network.name}: {network.input_shape} -> {network.output_shape}" for network in networks)
            + ". Resizing belongs inside each network."
        )
    (height, width, channels), _ = shapes.pop()
    assert channels == 3, f"members: expected RGB images, got {channels} channels"
    assert height is not None, "members: expected images of known height"
    assert width is not None, "members: expected images of known width"
    for transform in tta:
        if transform.name in SQUARE_ONLY_TRANSFORMS and height != width:
            raise RunError(
                f"test-time transform {transform.name}: expected square images, since a transform must keep the shape, got "
                f"{height} x {width} px. Leave out {', '.join(sorted(SQUARE_ONLY_TRANSFORMS))}."
            )
