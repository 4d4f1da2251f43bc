"""What happens to training images.

Where a part draws from several operations, ``operations`` is the name of a set or a list of names; a name that occurs twice is
drawn twice as often. A ``rate`` is the chance that a part is applied to an image, drawn anew each time the image is used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from bloodauto.config.recipe.operations import OPERATION_SETS, OPERATION_SPECS
from bloodauto.config.validation import ListField, did_you_mean, nearest_name
from bloodauto.run.artifacts.base import Record

Engine = Literal["bloodauto", "keras_cv"]
UnitInterval = Annotated[float, Field(ge=0.0, le=1.0)]
Interval = Annotated[tuple[float, float], ListField]


def _operation(name: str) -> str:
    if name not in OPERATION_SPECS:
        raise ValueError(f"no such operation, got {name!r}; {did_you_mean(name, OPERATION_SPECS)}")
    return name


def _operation_set(operations: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(operations, str) and operations not in OPERATION_SETS:
        raise ValueError(f"no such set, got {operations!r}; {did_you_mean(operations, OPERATION_SETS)}")
    if not operations:
        raise ValueError("expected at least one operation, got an empty list")
    return operations


OperationName = Annotated[str, AfterValidator(_operation)]
Operations = Annotated[str | Annotated[tuple[OperationName, ...], ListField], AfterValidator(_operation_set)]


class RandAugmentSettings(Record):
    """RandAugment: a few operations of one magnitude for each image (Cubuk et al., arXiv:1909.13719).

    Attributes:
        num_ops: Operations drawn for each image, with replacement.
        magnitude: The magnitude of all of them.
        rate: The chance that a drawn operation is applied.
        magnitude_std: Standard deviation of normal noise on each magnitude, which is then clipped to 0-1.
        operations: What is drawn from.
    """

    num_ops: Annotated[int, Field(ge=1, le=8)]
    magnitude: UnitInterval
    rate: UnitInterval = 1.0
    magnitude_std: UnitInterval = 0.0
    operations: Operations = "standard"


class TrivialAugmentSettings(Record):
    """TrivialAugment: one operation of a random magnitude for each image (Müller and Hutter, arXiv:2103.10158).

    Attributes:
        max_magnitude: The upper end of the magnitudes, which are drawn uniformly from 0 on.
        operations: What is drawn from.
    """

    max_magnitude: UnitInterval = 1.0
    operations: Operations = "paper"


class AugMixSettings(Record):
    """AugMix: an image blended with augmented versions of itself (Hendrycks et al., arXiv:1912.02781).

    The paper's consistency loss is not a part of it.

    Attributes:
        width: Augmented versions that are blended.
        depth: The most operations of a version; each version draws 1 to ``depth``.
        magnitude: The upper end of the magnitudes.
        alpha: The parameter of the Dirichlet distribution of the versions' weights and of the Beta distribution of the image's.
        operations: What is drawn from.
    """

    width: Annotated[int, Field(ge=1, le=8)] = 3
    depth: Annotated[int, Field(ge=1, le=8)] = 3
    magnitude: UnitInterval = 0.3
    alpha: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    operations: Operations = "aug_mix"


class OperationStep(Record):
    """One operation on a fraction of the images, its strength drawn for each image.

    The strength is either a ``magnitude``, which means what it means in RandAugment, or an interval that it is drawn from
    uniformly, in the operation's unit: ``{operation: rotate, range_degrees: [-15, 15]}``. Operations without a strength, such
    as flips, take neither.

    Attributes:
        operation: The name of the operation.
        magnitude: The magnitude, 0-1.
        range_degrees: Interval of an angle.
        range_factor: Interval of a factor; 1 has no effect.
        range_fraction: Interval of a fraction of the image's size, of 255 levels or of an effect.
        range_octaves: Interval of a base-2 logarithm.
        range_percent: Interval of a length in percent of the image's shorter side.
        range_levels: Interval of a standard deviation in levels of 255.
        range_bits: Interval of a number of bits.
        range_quality: Interval of a JPEG quality; 100 does not compress.
        rate: The chance that the operation is applied to an image.
    """

    operation: OperationName
    magnitude: UnitInterval | None = None
    range_degrees: Interval | None = None
    range_factor: Interval | None = None
    range_fraction: Interval | None = None
    range_octaves: Interval | None = None
    range_percent: Interval | None = None
    range_levels: Interval | None = None
    range_bits: Interval | None = None
    range_quality: Interval | None = None
    rate: UnitInterval = 1.0

    @property
    def interval(self) -> tuple[float, float] | None:
        """The range in the operation's unit; None where the recipe gives a magnitude or nothing."""
        allowed = OPERATION_SPECS[self.operation].range
        return None if allowed is None else getattr(self, f"range_{allowed.unit}")

    @model_validator(mode="after")
    def _check_strength(self) -> OperationStep:
        ranges = [
            name for name in type(self).model_fields if name.startswith("range_") and getattr(self, name) is not None
        ]
        allowed = OPERATION_SPECS[self.operation].range
        if allowed is None:
            for name in (*ranges, *(["magnitude"] if self.magnitude is not None else [])):
                raise ValueError(f"{self.operation} has one effect and no strength; leave {name} out")
            return self
        field = f"range_{allowed.unit}"
        for name in ranges:
            if name != field:
                raise ValueError(f"the range of {self.operation} is {field}, not {name}")
        if bool(ranges) == (self.magnitude is not None):
            received = "both" if ranges else "neither"
            raise ValueError(f"{self.operation} needs either magnitude or {field}, got {received}")
        if self.interval is not None:
            low, high = self.interval
            if not allowed.lowest <= low <= high <= allowed.highest:
                raise ValueError(
                    f"{field} of {self.operation}: expected [low, high] within {allowed.lowest:g} to {allowed.highest:g}, "
                    f"got {list(self.interval)}"
                )
        return self

    @model_serializer(mode="wrap")
    def _omit_absent_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class RandAugmentStep(Record):
    """RandAugment on a fraction of the images, ``rate``."""

    rand_augment: RandAugmentSettings
    rate: UnitInterval = 1.0


class TrivialAugmentStep(Record):
    """TrivialAugment on a fraction of the images, ``rate``."""

    trivial_augment: TrivialAugmentSettings
    rate: UnitInterval = 1.0


class AugMixStep(Record):
    """AugMix on a fraction of the images, ``rate``."""

    aug_mix: AugMixSettings
    rate: UnitInterval = 1.0


class OneOfStep(Record):
    """One of several steps, drawn for each image.

    Attributes:
        one_of: The steps.
        weights: Chances in proportion, one for each step; empty: equal chances.
        rate: The chance that any of them is applied to an image.
    """

    one_of: Annotated[tuple[Step, ...], Field(strict=False, min_length=1)]
    weights: Annotated[tuple[Annotated[float, Field(ge=0.0, le=1e6)], ...], ListField] = ()
    rate: UnitInterval = 1.0

    @model_validator(mode="after")
    def _check_weights(self) -> OneOfStep:
        if self.weights and (len(self.weights) != len(self.one_of) or sum(self.weights) == 0):
            raise ValueError(
                f"weights: expected {len(self.one_of)} numbers that are not all 0, got {list(self.weights)}"
            )
        return self


class SequenceStep(Record):
    """Several steps in turn: all of them, with the chance ``rate``, or none."""

    sequence: Annotated[tuple[Step, ...], Field(strict=False, min_length=1)]
    rate: UnitInterval = 1.0


_STEPS: dict[str, type[Record]] = {
    "operation": OperationStep,
    "rand_augment": RandAugmentStep,
    "trivial_augment": TrivialAugmentStep,
    "aug_mix": AugMixStep,
    "one_of": OneOfStep,
    "sequence": SequenceStep,
}


def _step_kind(value: Any) -> str:
    """The kind of step that a mapping is, by its key.

    A mapping without such a key is taken for the kind whose key is nearest, so that the error lists that kind's fields.
    """
    if isinstance(value, Record):
        return type(value).__name__
    keys = [key for key in value if isinstance(key, str)] if isinstance(value, dict) else []
    named = [key for key in keys if key in _STEPS]
    close = [name for key in keys if (name := nearest_name(key, _STEPS)) is not None]
    return _STEPS[[*named, *close, "operation"][0]].__name__


def _check_single_kind(value: Any) -> Any:
    kinds = [key for key in value if key in _STEPS] if isinstance(value, dict) else []
    if len(kinds) > 1:
        raise ValueError(f"a step is one thing, got {' and '.join(kinds)}; write a step for each")
    return value


Step = Annotated[
    Annotated[OperationStep, Tag("OperationStep")]
    | Annotated[RandAugmentStep, Tag("RandAugmentStep")]
    | Annotated[TrivialAugmentStep, Tag("TrivialAugmentStep")]
    | Annotated[AugMixStep, Tag("AugMixStep")]
    | Annotated[OneOfStep, Tag("OneOfStep")]
    | Annotated[SequenceStep, Tag("SequenceStep")],
    Discriminator(_step_kind),
    BeforeValidator(_check_single_kind),
]
Steps = Annotated[tuple[Step, ...], ListField]
OneOfStep.model_rebuild()
SequenceStep.model_rebuild()


class MixingSettings(Record):
    """How images of a batch are joined with each other, and their labels alike.

    Attributes:
        name: ``mixup`` blends two images (arXiv:1710.09412), ``cutmix`` puts a rectangle of one into the other
            (arXiv:1905.04899), ``both`` draws one of the two for each image.
        alpha: Both parameters of the Beta distribution of an image's own weight.
        rate: The fraction of images that are joined with another.
    """

    name: Literal["mixup", "cutmix", "both"]
    alpha: Annotated[float, Field(gt=0.0, le=100.0)]
    rate: UnitInterval = 1.0


class Offline(Record):
    """Augmented images that are made once, before training or before the stage, and then used like any others.

    Attributes:
        fraction: How many are made, as a fraction of the number of images.
        keep_originals: Whether they are added to the originals; an epoch keeps its length and visits all in turn. Otherwise
            they replace the originals.
        steps: How they are made.
        mixing: How the new images are then joined among themselves.
    """

    fraction: Annotated[float, Field(gt=0.0, le=4.0)]
    keep_originals: bool = True
    steps: Steps = ()
    mixing: MixingSettings | None = None

    @model_validator(mode="after")
    def _check_offline(self) -> Offline:
        if not self.steps and self.mixing is None:
            raise ValueError("expected steps, mixing, or both: without them the new images would be copies")
        if not self.keep_originals and self.fraction > 1.0:
            raise ValueError(f"fraction: expected at most 1 with keep_originals: false, got {self.fraction:g}")
        return self


class ClassSynthesis(Record):
    """How images are made that fill up small classes.

    Two images of one class are joined, so that the result keeps the label, and then augmented.

    Attributes:
        mixing: How they are joined; None: not at all.
        steps: How the result is augmented.
    """

    mixing: MixingSettings | None = MixingSettings(name="both", alpha=1.0, rate=0.5)
    steps: Steps = (RandAugmentStep(rand_augment=RandAugmentSettings(num_ops=2, magnitude=0.3)),)


class Augmentation(Record):
    """What happens to a training image each time it is used, in this order.

    Attributes:
        fraction: The fraction of images that are augmented, drawn each time; the others stay as they are. ``mixing`` has its
            own rate.
        orientation: Whether images are flipped and turned by right angles at random; a smear has no up and no down.
        framing: Magnitude, 0-1, of random magnification and position: laboratories differ in pixel size and in how they crop.
        stain_jitter: Magnitude, 0-1, of random stain intensity and hue, in optical density.
        rand_augment: RandAugment; None: none.
        steps: Further steps, in their order.
        mixing: How images of a batch are joined, after all of the above.
        offline: Images that are made before training; all of the above then happens to them as well.
        engine: ``bloodauto``, or ``keras_cv``, the reference: the layers of that archived package, which are slower and whose
            images do not depend on the seed alone.
    """

    fraction: UnitInterval = 1.0
    orientation: bool = True
    framing: UnitInterval = 0.0
    stain_jitter: UnitInterval = 0.0
    rand_augment: RandAugmentSettings | None = None
    steps: Steps = ()
    mixing: MixingSettings | None = None
    offline: Offline | None = None
    engine: Engine = "bloodauto"
