"""The recipe: everything one training needs, as data.

A recipe is YAML on disk and a strict frozen model in memory. ``Recipe.id`` is the hash of its canonical form, so that two
recipes that would train the same network have the same id, whatever order their fields were written in.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bloodauto.errors import RecipeError
from bloodauto.files import YamlDocument, dump_yaml, read_yaml
from bloodauto.grammar_errors import explain


class _Strict(BaseModel):
    """No unknown fields, no silent conversion (``"0.1"`` is no number), no infinity, no change after creation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


#: YAML has lists, not tuples; everything else stays strict.
_Listed = Field(strict=False)


class Input(_Strict):
    """What the network sees. Images of another size are resized inside the network."""

    size_px: Annotated[int, Field(ge=32, le=640)] = 96


class Backbone(_Strict):
    """The pre-trained part.

    ``weights``: ``imagenet``, ``none`` (random), or the path of a weights file.
    ``batch_norm``: what unfrozen batch normalisation does in fine-tuning. ``train``: learns scale, shift and statistics;
    ``freeze_statistics``: learns scale and shift, keeps the pre-trained statistics; ``freeze``: learns nothing.
    """

    name: str
    weights: str = "imagenet"
    batch_norm: Literal["train", "freeze_statistics", "freeze"] = "train"


class Head(_Strict):
    """From the backbone's features to the classes: pooling, dropout, dense layers each followed by dropout, logits."""

    pooling: Literal["avg", "max"] = "avg"
    dense_units: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], _Listed] = ()
    activation: Literal["relu", "swish", "leaky_relu", "gelu"] = "relu"
    dropout: Annotated[float, Field(ge=0.0, le=0.9)] = 0.2


class Loss(_Strict):
    """``cross_entropy`` or ``focal`` (Lin et al., arXiv:1708.02002), each with optional class weights.

    ``class_weights``: ``none``, ``balanced`` (inverse frequency) or ``effective_number`` (Cui et al., arXiv:1901.05555).
    """

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    label_smoothing: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    class_weights: Literal["none", "balanced", "effective_number"] = "none"

    @model_validator(mode="after")
    def _gamma_belongs_to_focal(self) -> Loss:
        if self.name == "focal" and self.gamma is None:
            raise ValueError("focal loss needs gamma (2.0 is the paper's choice)")
        if self.name != "focal" and self.gamma is not None:
            raise ValueError(f"gamma belongs to the focal loss, not to {self.name}")
        return self


class RandAugmentSettings(_Strict):
    """RandAugment (Cubuk et al., arXiv:1909.13719): ``num_ops`` operations an image, at ``magnitude`` in 0-1.

    ``rate``: the chance of each drawn operation to be applied. ``magnitude_std``: noise on the magnitude.
    ``operations``: a named set of the augmentation engine, or names of operations.
    """

    num_ops: Annotated[int, Field(ge=1, le=8)]
    magnitude: Annotated[float, Field(ge=0.0, le=1.0)]
    rate: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    magnitude_std: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    operations: str | Annotated[tuple[str, ...], _Listed] = "standard"


class Augmentation(_Strict):
    """What happens to a training image each time it is seen, in this order.

    ``orientation``: random flips and right-angle turns; a smear has no up and no down.
    ``framing``: strength 0-1 of random magnification and position; laboratories differ in pixel size and in how they crop.
    ``stain_jitter``: strength 0-1 of random stain intensity and hue, in optical density.
    ``rand_augment``: see there; absent means none.
    """

    orientation: bool = True
    framing: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    stain_jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    rand_augment: RandAugmentSettings | None = None


class LastBlocks(_Strict):
    """Unfreezes the backbone's last ``blocks`` blocks; a block is a stretch of layers the registry names."""

    blocks: Annotated[int, Field(ge=1, le=32)]
    kinds: Annotated[tuple[Literal["conv", "dense"], ...], _Listed] = ()


class LastLayers(_Strict):
    """Unfreezes the backbone's last ``layers`` layers; ``kinds`` restricts it to convolution and dense layers."""

    layers: Annotated[int, Field(ge=1, le=2000)]
    kinds: Annotated[tuple[Literal["conv", "dense"], ...], _Listed] = ()


class Optimizer(_Strict):
    """``weight_decay`` is decoupled (Loshchilov & Hutter, arXiv:1711.05101) for every optimizer."""

    name: Literal["adam", "adamw", "nadam", "lion", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None


class Schedule(_Strict):
    """The learning rate over one stage, as a factor of the optimizer's ``learning_rate``.

    ``warmup_fraction``: share of the stage with a linear rise. ``cosine`` then falls to ``final_factor`` along a half cosine,
    ``exponential`` geometrically, ``constant`` stays.
    """

    name: Literal["constant", "cosine", "exponential"] = "cosine"
    warmup_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    final_factor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01


class Stage(_Strict):
    """One stretch of training: what is unfrozen, how it is optimised, for how long.

    ``patience_epochs``: stop the stage when the objective has not improved for so many epochs; absent means never.
    """

    epochs: Annotated[int, Field(ge=1, le=1000)]
    unfreeze: Literal["none", "all"] | LastBlocks | LastLayers = "all"
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    patience_epochs: Annotated[int, Field(ge=1)] | None = None


class Source(_Strict):
    """Where a declared recipe comes from and what was published of it."""

    title: str
    published: dict[str, float] = {}
    notes: str = ""


class Recipe(_Strict):
    """Everything one training needs."""

    name: str = ""
    source: Source | None = None
    input: Input = Input()
    backbone: Backbone
    head: Head = Head()
    loss: Loss = Loss()
    augmentation: Augmentation = Augmentation()
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]

    @property
    def total_epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def canonical(self) -> dict[str, Any]:
        """The fields that decide the training, defaults filled in; name and source left out."""
        return self.model_dump(mode="json", exclude={"name", "source"})

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical form."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_yaml(self) -> str:
        """The recipe as YAML, all defaults written out."""
        return dump_yaml(self.model_dump(mode="json"))


def parse_recipe(value: Any, *, origin: YamlDocument | str) -> Recipe:
    """Plain values -> a recipe.

    Raises:
        RecipeError: every problem found, each with its place, what was expected, what came and the nearest valid name.
    """
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe, origin)) from None


def load_recipe(path: Path) -> Recipe:
    """Reads one recipe file.

    Raises:
        RecipeError: as ``read_yaml`` and ``parse_recipe``.
    """
    document = read_yaml(path)
    return parse_recipe(document.value, origin=document)
