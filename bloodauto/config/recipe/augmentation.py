"""What happens to training images.

Where a part draws from several operations, ``operations`` is the name of a set or a list of names, one given twice being
drawn twice as often. A ``rate`` is the chance of a part to be applied to an image, each time the image is seen.
"""

from __future__ import annotations

import difflib
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

from bloodauto.config.base_model import ListField, StrictModel
from bloodauto.config.recipe.operations import OPERATION_SET_NAMES, OPERATION_SPANS
from bloodauto.config.validation import did_you_mean

Engine = Literal["bloodauto", "keras_cv"]
UnitInterval = Annotated[float, Field(ge=0.0, le=1.0)]
Interval = Annotated[tuple[float, float], ListField]


def _operation(name: str) -> str:
    if name not in OPERATION_SPANS:
        raise ValueError(f"no such operation, got {name!r}; {did_you_mean(name, OPERATION_SPANS)}")
    return name


def _operation_set(operations: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(operations, str) and operations not in OPERATION_SET_NAMES:
        raise ValueError(f"no such set, got {operations!r}; {did_you_mean(operations, OPERATION_SET_NAMES)}")
    if not operations:
        raise ValueError("expected at least one operation, got an empty list")
    return operations


OperationName = Annotated[str, AfterValidator(_operation)]
Operations = Annotated[str | Annotated[tuple[OperationName, ...], ListField], AfterValidator(_operation_set)]


class RandAugmentSettings(StrictModel):
    """RandAugment (Cubuk et al., arXiv:1909.13719): ``num_ops`` operations an image, at ``magnitude`` in 0-1.

    ``rate``: the chance of each drawn operation to be applied. ``magnitude_std``: noise on the magnitude.
    """

    num_ops: Annotated[int, Field(ge=1, le=8)]
    magnitude: UnitInterval
    rate: UnitInterval = 1.0
    magnitude_std: UnitInterval = 0.0
    operations: Operations = "standard"


class TrivialAugmentSettings(StrictModel):
    """TrivialAugment (Müller & Hutter, arXiv:2103.10158): one operation, its magnitude drawn evenly up to ``max_magnitude``."""

    max_magnitude: UnitInterval = 1.0
    operations: Operations = "paper"


class AugMixSettings(StrictModel):
    """AugMix (Hendrycks et al., arXiv:1912.02781), the images alone, without its consistency loss.

    ``width`` chains of 1 to ``depth`` operations, of magnitudes up to ``magnitude``, are mixed with each other and with the
    image; ``alpha``: of the Dirichlet and Beta distributions of the shares.
    """

    width: Annotated[int, Field(ge=1, le=8)] = 3
    depth: Annotated[int, Field(ge=1, le=8)] = 3
    magnitude: UnitInterval = 0.3
    alpha: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    operations: Operations = "aug_mix"


class OperationStep(StrictModel):
    """One operation, drawn for each image on its own.

    Its strength is given either by ``magnitude`` in 0-1, which means what it means in RandAugment, or as the interval from
    which it is drawn evenly, in the operation's unit: ``{operation: rotate, range_degrees: [-15, 15]}``. Operations that have
    one effect, such as flips, take neither.
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
        """The range that was given, whatever its unit."""
        span = OPERATION_SPANS[self.operation]
        return None if span is None else getattr(self, f"range_{span.unit}")

    @model_validator(mode="after")
    def _check_strength(self) -> OperationStep:
        fields = [name for name in type(self).model_fields if name.startswith("range_")]
        given = [name for name in fields if getattr(self, name) is not None]
        span = OPERATION_SPANS[self.operation]
        if span is None:
            for name in (*given, *(["magnitude"] if self.magnitude is not None else [])):
                raise ValueError(f"{self.operation} has one effect and no strength; leave {name} out")
            return self
        field = f"range_{span.unit}"
        if given and given != [field]:
            wrong = next(name for name in given if name != field)
            raise ValueError(f"a range of {self.operation} is told by {field}, not by {wrong}")
        if bool(given) == (self.magnitude is not None):
            got = "both" if given else "neither"
            raise ValueError(f"{self.operation} needs either magnitude or {field}, got {got}")
        if self.interval is not None:
            low, high = self.interval
            if not span.lowest <= low <= high <= span.highest:
                raise ValueError(
                    f"{field} of {self.operation}: expected [low, high] within {span.lowest:g} to {span.highest:g}, "
                    f"got {list(self.interval)}"
                )
        return self

    @model_serializer(mode="wrap")
    def _omit_absent_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class RandAugmentStep(StrictModel):
    """RandAugment on a share of the images."""

    rand_augment: RandAugmentSettings
    rate: UnitInterval = 1.0


class TrivialAugmentStep(StrictModel):
    """TrivialAugment on a share of the images."""

    trivial_augment: TrivialAugmentSettings
    rate: UnitInterval = 1.0


class AugMixStep(StrictModel):
    """AugMix on a share of the images."""

    aug_mix: AugMixSettings
    rate: UnitInterval = 1.0


class OneOfStep(StrictModel):
    """One of several steps, drawn for each image by ``weights``; evenly without them."""

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


class SequenceStep(StrictModel):
    """Several steps in turn; with ``rate``, all of them or none."""

    sequence: Annotated[tuple[Step, ...], Field(strict=False, min_length=1)]
    rate: UnitInterval = 1.0


_STEPS: dict[str, type[StrictModel]] = {
    "operation": OperationStep,
    "rand_augment": RandAugmentStep,
    "trivial_augment": TrivialAugmentStep,
    "aug_mix": AugMixStep,
    "one_of": OneOfStep,
    "sequence": SequenceStep,
}


def _step_kind(value: Any) -> str:
    """Which step a mapping is, by its key; by the nearest one where it has none, so that the error tells that one's fields."""
    if isinstance(value, StrictModel):
        return type(value).__name__
    keys = [key for key in value if isinstance(key, str)] if isinstance(value, dict) else []
    named = [key for key in keys if key in _STEPS]
    close = [match for key in keys for match in difflib.get_close_matches(key, _STEPS, n=1, cutoff=0.6)]
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


class Mixing(StrictModel):
    """Joins images of a batch, and their labels alike.

    ``mixup`` blends two images (arXiv:1710.09412), ``cutmix`` puts a rectangle of one into the other (arXiv:1905.04899),
    ``both`` draws one of the two for each image. ``alpha``: both parameters of the Beta distribution of the share.
    ``rate``: the share of images that are joined with another.
    """

    name: Literal["mixup", "cutmix", "both"]
    alpha: Annotated[float, Field(gt=0.0, le=100.0)]
    rate: UnitInterval = 1.0


class Offline(StrictModel):
    """Augmented images made once, before training or before the stage, and then seen like any others.

    ``fraction``: how many, as a share of the images there are. ``keep_originals``: they come beside those they were made
    of, and an epoch, which stays as long, visits both in turn; otherwise they take their places. ``steps``, then ``mixing``
    among the made images: how they are made.
    """

    fraction: Annotated[float, Field(gt=0.0, le=4.0)]
    keep_originals: bool = True
    steps: Steps = ()
    mixing: Mixing | None = None

    @model_validator(mode="after")
    def _check_offline(self) -> Offline:
        if not self.steps and self.mixing is None:
            raise ValueError("expected steps, mixing, or both: without them the made images would be copies")
        if not self.keep_originals and self.fraction > 1.0:
            raise ValueError(f"fraction: expected at most 1 with keep_originals: false, got {self.fraction:g}")
        return self


class ClassSynthesis(StrictModel):
    """How images are made that fill up small classes: two images of the class joined by ``mixing``, then ``steps``.

    Both images are of one class, so the class keeps its label and the counts come out equal.
    """

    mixing: Mixing | None = Mixing(name="both", alpha=1.0, rate=0.5)
    steps: Steps = (RandAugmentStep(rand_augment=RandAugmentSettings(num_ops=2, magnitude=0.3)),)


class Augmentation(StrictModel):
    """What happens to a training image each time it is seen, in this order.

    ``fraction``: the share of images this happens to; the others are seen as they are. ``mixing`` has a rate of its own.
    ``orientation``: random flips and right-angle turns; a smear has no up and no down.
    ``framing``: strength 0-1 of random magnification and position; laboratories differ in pixel size and in how they crop.
    ``stain_jitter``: strength 0-1 of random stain intensity and hue, in optical density.
    ``rand_augment``: see there; absent means none. ``steps``: whatever else, in their order.
    ``mixing``: joins images of a batch, after all this.
    ``offline``: images made before training, which all this then happens to as well.
    ``engine``: ``bloodauto``, or ``keras_cv``, the reference: the layers of that archived package, which are slower, and
    whose images do not depend on the seed alone.
    """

    fraction: UnitInterval = 1.0
    orientation: bool = True
    framing: UnitInterval = 0.0
    stain_jitter: UnitInterval = 0.0
    rand_augment: RandAugmentSettings | None = None
    steps: Steps = ()
    mixing: Mixing | None = None
    offline: Offline | None = None
    engine: Engine = "bloodauto"
