"""The stages of a training: what is unfrozen, how it is optimised, for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bloodauto.recipe.strict import Listed, Strict


class LastBlocks(Strict):
    """Unfreezes the backbone's last ``blocks`` blocks; a block is a stretch of layers the registry names."""

    blocks: Annotated[int, Field(ge=1, le=32)]
    kinds: Annotated[tuple[Literal["conv", "dense"], ...], Listed] = ()


class LastLayers(Strict):
    """Unfreezes the backbone's last ``layers`` layers; ``kinds`` restricts it to convolution and dense layers."""

    layers: Annotated[int, Field(ge=1, le=2000)]
    kinds: Annotated[tuple[Literal["conv", "dense"], ...], Listed] = ()


class Optimizer(Strict):
    """``weight_decay`` is decoupled (Loshchilov & Hutter, arXiv:1711.05101) for every optimizer."""

    name: Literal["adam", "adamw", "nadam", "lion", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None


class Schedule(Strict):
    """The learning rate over one stage, as a factor of the optimizer's ``learning_rate``.

    ``warmup_fraction``: share of the stage with a linear rise. ``cosine`` then falls to ``final_factor`` along a half cosine,
    ``exponential`` geometrically, ``constant`` stays.
    """

    name: Literal["constant", "cosine", "exponential"] = "cosine"
    warmup_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    final_factor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01


class Stage(Strict):
    """One stretch of training: what is unfrozen, how it is optimised, for how long.

    ``patience_epochs``: stop the stage when the objective has not improved for so many epochs; absent means never.
    """

    epochs: Annotated[int, Field(ge=1, le=1000)]
    unfreeze: Literal["none", "all"] | LastBlocks | LastLayers = "all"
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    patience_epochs: Annotated[int, Field(ge=1)] | None = None
