"""The reference engine: keras-cv's own layers, for comparisons with published results.

keras-cv is archived and an optional dependency. It draws from TensorFlow's own state how a layer changes an image, so the same
seed does not give the same images again. Where several layers share a rate or a choice, this module draws which images get
which layer. Every layer's result is rounded to whole levels.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from bloodauto.config.recipe import (
    OPERATION_SETS,
    OPERATION_SPECS,
    Augmentation,
    AugMixStep,
    MixingSettings,
    OneOfStep,
    OperationStep,
    RandAugmentSettings,
    RandAugmentStep,
    SequenceStep,
    Step,
    TrivialAugmentStep,
)
from bloodauto.errors import RecipeError
from bloodauto.transforms.mixing import BatchMixing, Pairing
from bloodauto.transforms.policies import BatchPolicy
from bloodauto.types import Image, Images

_VALUES = (0, 255)
#: The lowest severity that keras-cv's AugMix takes.
_MIN_SEVERITY = 0.01
_STANDARD = OPERATION_SETS["standard"]

_FLIPS = {"flip_horizontal": "horizontal", "flip_vertical": "vertical"}
#: Layers that take an interval: the module of layers and the interval, in a recipe's units -> a layer.
_RANGED: Mapping[str, Callable[[Any, float, float], Any]] = {
    "rotate": lambda layers, low, high: layers.RandomRotation((low / 360, high / 360)),
    "translate_x": lambda layers, low, high: layers.RandomTranslation(0.0, (low, high)),
    "translate_y": lambda layers, low, high: layers.RandomTranslation((low, high), 0.0),
    # Its factor is how much more of each side is shown.
    "zoom": lambda layers, low, high: layers.RandomZoom((1 / high - 1, 1 / low - 1)),
    "brightness": lambda layers, low, high: layers.RandomBrightness((low, high), _VALUES),
    "cutout": lambda layers, low, high: layers.RandomCutout((low, high), (low, high)),
    "grid_mask": lambda layers, low, high: layers.GridMask((low, high)),
}
#: For these a magnitude m stands for the interval from 0 to m times the limit of our operation.
_GRADED = ("cutout", "grid_mask")


def _unsupported(path: str, what: str, remedy: str) -> RecipeError:
    return RecipeError(f"{path}: keras-cv has no {what}; {remedy}, or leave out engine: keras_cv.")


def _check_rand_augment(settings: RandAugmentSettings, path: str) -> None:
    if settings.operations != "standard":
        raise _unsupported(
            f"{path}.operations", "RandAugment of other operations than its own", "write operations: standard"
        )


def _check_operation(step: OperationStep, path: str) -> None:
    name = step.operation
    if name in _FLIPS:
        return
    if step.interval is None:
        if name not in (*_STANDARD, *_GRADED):
            raise _unsupported(
                path, f"'{name}' with a magnitude", f"it has {', '.join((*_FLIPS, *_STANDARD, *_GRADED))}"
            )
        return
    if name not in _RANGED:
        raise _unsupported(path, f"'{name}' with a range", f"it has {', '.join(_RANGED)}")
    if name == "zoom" and step.interval[0] < 0.5:
        raise _unsupported(path, f"zoom to {step.interval[0]:g}", "give at least 0.5")


def _check_step(step: Step, path: str) -> None:
    if isinstance(step, OperationStep):
        _check_operation(step, path)
    elif isinstance(step, RandAugmentStep):
        _check_rand_augment(step.rand_augment, f"{path}.rand_augment")
    elif isinstance(step, AugMixStep):
        if step.aug_mix.operations != "aug_mix":
            raise _unsupported(
                f"{path}.aug_mix.operations", "AugMix of other operations than its own", "leave operations out"
            )
        if step.aug_mix.magnitude < _MIN_SEVERITY:
            raise _unsupported(f"{path}.aug_mix.magnitude", f"AugMix below {_MIN_SEVERITY}", "give more")
    elif isinstance(step, TrivialAugmentStep):
        raise _unsupported(path, "TrivialAugment", "use rand_augment with num_ops: 1")
    else:
        key, steps = ("one_of", step.one_of) if isinstance(step, OneOfStep) else ("sequence", step.sequence)
        for index, inner in enumerate(steps):
            _check_step(inner, f"{path}.{key}.{index}")


def check_keras_cv(augmentation: Augmentation, path: str) -> None:
    """Checks that keras-cv is installed and has everything that a block needs.

    Args:
        augmentation: The block.
        path: Where it stands in the recipe, for messages.

    Raises:
        RecipeError: It is not, or has not; the message says what to write instead.
    """
    if augmentation.orientation:
        raise _unsupported(f"{path}.orientation", "right-angle turns", "write orientation: false and steps with flips")
    for field in ("framing", "stain_jitter"):
        if getattr(augmentation, field) > 0:
            raise _unsupported(f"{path}.{field}", field.replace("_", " "), "leave it out")
    if augmentation.rand_augment is not None:
        _check_rand_augment(augmentation.rand_augment, f"{path}.rand_augment")
    for index, step in enumerate(augmentation.steps):
        _check_step(step, f"{path}.steps.{index}")
    if augmentation.offline is not None:
        for index, step in enumerate(augmentation.offline.steps):
            _check_step(step, f"{path}.offline.steps.{index}")
    if importlib.util.find_spec("keras_cv") is None:
        raise RecipeError(
            f"{path}.engine: keras_cv needs the package keras-cv, which is not installed: pip install 'bloodauto[keras-cv]', "
            "or leave out engine: keras_cv."
        )


#: Images and a generator -> images of the same shape; all uint8 (n, height, width, 3).
_Change: TypeAlias = Callable[[Images, np.random.Generator], Images]


class _Layer:
    """A layer as a graph for each size of images, since one image at a time in Python takes thirty times as long.

    Args:
        layer: A layer of keras-cv.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._graphs: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()

    def __call__(self, images: Images, rng: np.random.Generator) -> Images:
        """Applies the layer; ``rng`` is not used."""
        size = images.shape[1:]
        with tf.device("/CPU:0"):
            with self._lock:
                if size not in self._graphs:
                    signature = tf.TensorSpec((None, *size), tf.uint8)
                    self._graphs[size] = tf.function(self._trace, input_signature=[signature]).get_concrete_function()
            results: Images = self._graphs[size](tf.constant(images)).numpy()
            return results

    def _trace(self, images: Any) -> Any:
        results = self._layer(tf.cast(images, tf.float32), training=True)
        return tf.cast(tf.clip_by_value(tf.round(results), 0.0, 255.0), tf.uint8)


def _at_rate(change: _Change, rate: float) -> _Change:
    def apply(images: Images, rng: np.random.Generator) -> Images:
        chosen = np.nonzero(rng.random(len(images)) < rate)[0]
        if len(chosen) == len(images):
            return change(images, rng)
        results = images.copy()
        if len(chosen):
            results[chosen] = change(images[chosen], rng)
        return results

    return change if rate == 1.0 else apply


def _in_turn(changes: Sequence[_Change]) -> _Change:
    def apply(images: Images, rng: np.random.Generator) -> Images:
        for change in changes:
            images = change(images, rng)
        return images

    return apply


def _one_of(changes: Sequence[_Change], weights: Sequence[float]) -> _Change:
    chances = np.array(weights if weights else [1.0] * len(changes))

    def apply(images: Images, rng: np.random.Generator) -> Images:
        which = rng.choice(len(changes), size=len(images), p=chances / chances.sum())
        results = np.empty_like(images)
        for index, change in enumerate(changes):
            rows = np.nonzero(which == index)[0]
            if len(rows):
                results[rows] = change(images[rows], rng)
        return results

    return apply


def _operation_layer(layers: Any, step: OperationStep) -> Any:
    name = step.operation
    if name in _FLIPS:
        return layers.RandomFlip(_FLIPS[name], rate=1.0)
    if step.interval is not None:
        return _RANGED[name](layers, *step.interval)
    magnitude = 1.0 if step.magnitude is None else step.magnitude
    if name in _GRADED:
        return _RANGED[name](layers, 0.0, magnitude * OPERATION_SPECS[name].limit)
    policy = layers.RandAugment.get_standard_policy(_VALUES, magnitude, 0.0)
    return dict(zip(_STANDARD, policy, strict=True))[name]


def _rand_augment(layers: Any, settings: RandAugmentSettings) -> _Layer:
    # No seed: keras-cv would give it to every draw inside, and the choice of an operation would follow from its rate's.
    return _Layer(
        layers.RandAugment(
            _VALUES,
            augmentations_per_image=settings.num_ops,
            magnitude=settings.magnitude,
            magnitude_stddev=settings.magnitude_std,
            rate=settings.rate,
        )
    )


def _change(layers: Any, step: Step) -> _Change:
    if isinstance(step, OperationStep):
        return _at_rate(_Layer(_operation_layer(layers, step)), step.rate)
    if isinstance(step, RandAugmentStep):
        return _at_rate(_rand_augment(layers, step.rand_augment), step.rate)
    if isinstance(step, AugMixStep):
        mix = step.aug_mix
        layer = layers.AugMix(
            _VALUES, severity=mix.magnitude, num_chains=mix.width, chain_depth=[1, mix.depth], alpha=mix.alpha
        )
        return _at_rate(_Layer(layer), step.rate)
    if isinstance(step, OneOfStep):
        return _at_rate(_one_of([_change(layers, inner) for inner in step.one_of], step.weights), step.rate)
    assert isinstance(step, SequenceStep)
    return _at_rate(_in_turn([_change(layers, inner) for inner in step.sequence]), step.rate)


@contextlib.contextmanager
def _full_precision() -> Iterator[Any]:
    """keras-cv's layers, which then compute in float32 whatever the network being trained computes in."""
    import keras
    import keras_cv

    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield keras_cv.layers
    finally:
        keras.config.set_dtype_policy(previous)


class KerasCVPolicy(BatchPolicy):
    """What keras-cv does to each image each time it is used.

    Args:
        augmentation: The block of a recipe; its mixing and offline images are not a part of the policy.

    Raises:
        RecipeError: As ``check_keras_cv``.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        check_keras_cv(augmentation, "augmentation")
        with _full_precision() as layers:
            changes: list[_Change] = []
            if augmentation.rand_augment is not None:
                changes.append(_rand_augment(layers, augmentation.rand_augment))
            changes += [_change(layers, step) for step in augmentation.steps]
        self._change = _at_rate(_in_turn(changes), augmentation.fraction)

    def batch(self, images: Sequence[Image], rng: np.random.Generator) -> Images:
        """As ``BatchPolicy.batch``."""
        return self._change(np.stack(images), rng)


@dataclass(frozen=True)
class KerasCVMixing(BatchMixing):
    """MixUp or CutMix by keras-cv; ``both`` draws one of the two for each batch.

    Its CutMix weights labels by the rectangle that it drew, also where that reaches over the image's edge; ours by the part
    inside.

    Attributes:
        settings: As a recipe holds them.
    """

    settings: MixingSettings

    def join(self, images: Images, rng: np.random.Generator) -> tuple[Images, Pairing]:
        """As ``BatchMixing.join``."""
        count = len(images)
        name = str(rng.choice(["mixup", "cutmix"])) if self.settings.name == "both" else self.settings.name
        with _full_precision() as layers, tf.device("/CPU:0"):
            layer = {"mixup": layers.MixUp, "cutmix": layers.CutMix}[name](self.settings.alpha)
            # With the identity as labels, each result's label holds the weights of the images it is made of.
            inputs = {"images": tf.constant(images, tf.float32), "labels": tf.eye(count)}
            results = layer(inputs, training=True)
        weights = results["labels"].numpy().astype(np.float64)
        own_weight = np.diag(weights).copy()
        np.fill_diagonal(weights, -1.0)
        partner = np.where(weights.max(axis=1) > 0, weights.argmax(axis=1), np.arange(count))
        own_weight[partner == np.arange(count)] = 1.0
        mixed = np.clip(np.rint(results["images"].numpy()), 0, 255).astype(np.uint8)
        unmixed = rng.random(count) >= self.settings.rate
        mixed[unmixed], partner[unmixed], own_weight[unmixed] = images[unmixed], np.nonzero(unmixed)[0], 1.0
        return mixed, Pairing(partner, own_weight, None)
