"""Several trained networks -> one Keras model that answers with calibrated probabilities for plain images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from bloodauto.config.recipe import TransformName, WeightedTransform, tta_weights
from bloodauto.errors import RunError
from bloodauto.evaluation.calibration import PROBABILITY_FLOOR
from bloodauto.evaluation.probability_scaling import PerClass
from bloodauto.evaluation.tta import SQUARE_ONLY_TRANSFORMS, tta_batch
from bloodauto.run.files import atomic_path


@dataclass(frozen=True)
class TtaTransform:
    """A view of the image for test-time augmentation and its share, above 0; shares of all views sum to 1."""

    name: TransformName
    weight: float


IDENTITY = (TtaTransform("identity", 1.0),)


def tta_transforms_of(recipe_views: Sequence[WeightedTransform]) -> tuple[TtaTransform, ...]:
    """A recipe's views with their shares; no views are the image itself."""
    return tuple(TtaTransform(name, weight) for name, weight in tta_weights(recipe_views).items())


@dataclass(frozen=True)
class Member:
    """A trained network and its part in the ensemble.

    Attributes:
        network: a functional model of standard Keras layers: uint8 RGB images (n, height, width, 3), 0-255 -> logits
            (n, c), normalisation and resizing inside.
        weight: its share of the averaged probabilities, above 0; shares of all members sum to 1.
        temperature: its own, by which its logits are divided before the softmax.
        views: what it looks at.
    """

    network: keras.Model
    weight: float
    temperature: float = 1.0
    tta: tuple[TtaTransform, ...] = IDENTITY

    @property
    def forward_passes(self) -> int:
        """Forward passes through the network for one image."""
        return len(self.tta)


def build_export(
    members: Sequence[Member],
    *,
    temperature: float = 1.0,
    per_class: PerClass | None = None,
) -> keras.Model:
    """Builds one functional model: uint8 RGB images (n, height, width, 3), 0-255 -> float32 probabilities (n, c).

    Each member's softmax (its logits divided by its own temperature) is averaged over its views and then over the
    members, and the average p becomes ``softmax(log(max(p, 1e-12)) / temperature)``, then scales and biases act on each class,
    as ``ensemble.scaling.Calibration`` has it. The members are copied, in float32 whatever precision they were trained in, and
    are not changed. Nothing is random: dropout is off and batch normalisation uses its stored statistics, even where the caller
    asks for ``training=True``.

    The price: computing time and activations grow with the sum of the members' passes; the graph does not grow with the
    views, which pass through a member as one larger batch.

    Raises:
        RunError: a member with layers that would not load without this project; members that disagree on images or
            classes; a view that turns images which are not square.
    """
    assert members, "expected at least one member"
    assert all(member.tta for member in members), "expected at least one view"
    for shares in (
        [member.weight for member in members],
        *([transform.weight for transform in one.tta] for one in members),
    ):
        assert min(shares) > 0, f"shares: expected numbers above 0, got {shares}"
        assert abs(sum(shares) - 1) < 1e-6, f"shares: expected a sum of 1, got {sum(shares)}"
    with _float32_by_default():
        networks = [_portable_copy(member.network, f"member_{index}") for index, member in enumerate(members)]
        _check_shapes(networks, [transform for member in members for transform in member.tta])
        return _combine(networks, members, temperature, per_class)


def _combine(
    networks: Sequence[keras.Model], members: Sequence[Member], temperature: float, per_class: PerClass | None
) -> keras.Model:
    images = keras.Input(networks[0].input_shape[1:], dtype="uint8", name="images")
    parts = []
    for network, member in zip(networks, members, strict=True):
        batch = tta_batch(images, [transform.name for transform in member.tta])
        view_shares = np.array([transform.weight for transform in member.tta], dtype=np.float32).reshape(-1, 1, 1)
        logits = ops.cast(network(batch, training=False), "float32")
        probabilities = ops.softmax(logits / float(member.temperature), axis=-1)
        if member.forward_passes > 1:
            by_view = ops.reshape(probabilities, (member.forward_passes, -1, network.output_shape[-1]))
            probabilities = ops.sum(by_view * view_shares, axis=0)
        parts.append(probabilities * float(member.weight))
    average = parts[0]
    for part in parts[1:]:
        average = average + part
    answer = ops.softmax(ops.log(ops.maximum(average, PROBABILITY_FLOOR)) / float(temperature), axis=-1)
    if per_class is not None:
        scales, biases = (np.array([values], dtype=np.float32) for values in (per_class.scales, per_class.biases))
        answer = ops.softmax(ops.log(ops.maximum(answer, PROBABILITY_FLOOR)) * scales + biases, axis=-1)
    return keras.Model(images, answer, name="bloodauto")


def save_model(model: keras.Model, path: Path) -> None:
    """Writes ``path`` (ending in ``.keras``) atomically."""
    assert path.suffix == ".keras", f"expected a path ending in .keras, got {path}"
    with atomic_path(path) as temporary:
        model.save(temporary, include_optimizer=False)


def check_parity(
    model_path: Path, images: np.ndarray, expected_probabilities: np.ndarray, tolerance: float = 1e-4
) -> float:
    """Loads the written file again and compares its answers with those of the search.

    Args:
        model_path: a ``.keras`` file.
        images: uint8, (n, height, width, 3), as the model takes them.
        expected_probabilities: float, (n, c).
        tolerance: largest difference of a probability that is let pass. 1e-4 allows for another order of summation;
            networks that were trained in 16-bit precision need about 2e-2, because the export computes in 32 bits.

    Returns:
        The largest difference found.

    Raises:
        RunError: it is above the tolerance or not a number, or the shapes differ.
    """
    model = keras.saving.load_model(model_path, compile=False, safe_mode=True)
    found = model.predict(images, batch_size=64, verbose=0)
    if found.shape != expected_probabilities.shape:
        raise RunError(
            f"{model_path.name}: expected probabilities of shape {expected_probabilities.shape}, got {found.shape}. "
            "The export and the run do not belong together; export again."
        )
    differences = np.abs(found.astype(np.float64) - expected_probabilities).max(axis=1)
    worst = int(differences.argmax())
    # Written so that a difference which is not a number fails too.
    if not differences[worst] <= tolerance:
        raise RunError(
            f"{model_path.name}: expected the probabilities of the search within {tolerance:g}, but image {worst} differs by "
            f"{differences[worst]:.3g} (search: class {expected_probabilities[worst].argmax()} with "
            f"{expected_probabilities[worst].max():.4f}; file: class {found[worst].argmax()} with "
            f"{found[worst].max():.4f}). Do not use this file; check that members, weights and temperature are those "
            "of the run, and export again."
        )
    return float(differences[worst])


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
    settled: dict[str, Any] = {key: _inference_config(value) for key, value in config.items()}
    if str(config.get("class_name")).endswith("Dropout") and "rate" in config["config"]:
        settled["config"]["rate"] = 0.0
    return settled


@contextlib.contextmanager
def _float32_by_default() -> Iterator[None]:
    """A model, unlike a layer, has no precision in its configuration: it takes the one of the process."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_portable(network: keras.Model) -> None:
    for layer in _flat_layers(network):
        home = type(layer).__module__.partition(".")[0]
        if home != "keras" or isinstance(layer, keras.layers.Lambda):
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
    found = {(network.input_shape[1:], network.output_shape[1:]) for network in networks}
    if len(found) != 1:
        raise RunError(
            "ensemble members: expected the same images and classes for all, got "
            + "; ".join(f"{network.name}: {network.input_shape} -> {network.output_shape}" for network in networks)
            + ". Resizing belongs inside each network."
        )
    (height, width, channels), _ = found.pop()
    assert channels == 3, f"members: expected RGB images, got {channels} channels"
    assert height is not None, "members: expected images of known height"
    assert width is not None, "members: expected images of known width"
    for transform in tta:
        if transform.name in SQUARE_ONLY_TRANSFORMS and height != width:
            raise RunError(
                f"test-time view {transform.name}: expected square images, since every view must keep the shape, got "
                f"{height} x {width} px. Leave out {', '.join(sorted(SQUARE_ONLY_TRANSFORMS))}."
            )
