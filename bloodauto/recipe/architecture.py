"""The network of a recipe: input, backbone, head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bloodauto.recipe.strict import Listed, Strict


class Input(Strict):
    """What the network sees. Images of another size are resized inside the network.

    ``filters``: run on the resized images in this order, inside the network and so in the exported model.
    """

    size_px: Annotated[int, Field(ge=32, le=640)] = 96
    filters: Annotated[tuple[Literal["normalise_stain"], ...], Listed] = ()


class Backbone(Strict):
    """The pre-trained part.

    ``weights``: ``imagenet``, ``none`` (random), or the path of a weights file.
    ``batch_norm``: what unfrozen batch normalisation does in fine-tuning. ``train``: learns scale, shift and statistics;
    ``freeze_statistics``: learns scale and shift, keeps the pre-trained statistics; ``freeze``: learns nothing.
    """

    name: str
    weights: str = "imagenet"
    batch_norm: Literal["train", "freeze_statistics", "freeze"] = "train"


class Head(Strict):
    """From the backbone's features to the classes: pooling, dropout, dense layers each followed by dropout, logits."""

    pooling: Literal["avg", "max"] = "avg"
    dense_units: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Listed] = ()
    activation: Literal["relu", "swish", "leaky_relu", "gelu"] = "relu"
    dropout: Annotated[float, Field(ge=0.0, le=0.9)] = 0.2
