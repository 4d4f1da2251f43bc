"""The network of a recipe: input, backbone, head."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bloodauto.config.validation import ListField
from bloodauto.run.artifacts.base import Record

Filter = Literal["grey", "sobel", "remove_background", "normalise_stain", "standardise", "standardise_density"]


class Input(Record):
    """What the network sees. Images of another size are resized inside the network.

    Attributes:
        size_px: Side of the square input in pixels.
        filters: Applied to the resized images in this order, inside the network and so in the exported model. ``grey``: luma
            in all channels; ``sobel``: edges; ``remove_background``: white but for what absorbs red, as nuclei do;
            ``normalise_stain``: the empty slide's colour and the strength of the stain brought to one reference;
            ``standardise``: per-channel standardisation of each image; ``standardise_density``: the same of its optical
            density.
    """

    size_px: Annotated[int, Field(ge=32, le=640)] = 96
    filters: Annotated[tuple[Filter, ...], ListField] = ()


class Backbone(Record):
    """The part of the network that turns images into features.

    Attributes:
        name: ``own_cnn`` or a network of ``keras.applications``; the reference lists them.
        weights: ``imagenet``, ``none`` (random), or the path of a weights file.
        batch_norm: What unfrozen batch normalisation does in fine-tuning. ``train``: scale, shift and statistics are trained;
            ``freeze_statistics``: scale and shift are trained, the pre-trained statistics are kept; ``freeze``: all are kept.
        blocks: Of ``own_cnn`` alone: how often the image is halved; absent: 4.
        width: Of ``own_cnn`` alone: filters of the first block, doubled from block to block; absent: 16.
    """

    name: str
    weights: str = "imagenet"
    batch_norm: Literal["train", "freeze_statistics", "freeze"] = "train"
    blocks: Annotated[int, Field(ge=1, le=6)] | None = None
    width: Annotated[int, Field(ge=4, le=128)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_own_cnn_size(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("name") == "own_cnn":
            return {"blocks": 4, "width": 16, **value}
        return value

    @model_validator(mode="after")
    def _check_own_cnn_size(self) -> Backbone:
        size = (self.blocks, self.width)
        if self.name == "own_cnn" and None in size:
            raise ValueError("own_cnn needs blocks and width, not null; leave them out for 4 and 16")
        if self.name != "own_cnn" and size != (None, None):
            raise ValueError(f"blocks and width belong to own_cnn, not to {self.name}; leave them out")
        return self

    @property
    def label(self) -> str:
        """The name, with the size of an ``own_cnn``: what distinguishes architectures."""
        return f"{self.name}_{self.blocks}x{self.width}" if self.name == "own_cnn" else self.name


class Head(Record):
    """From the backbone's features to the classes: pooling, normalisation, dropout, dense layers, logits.

    Attributes:
        pooling: ``avg``, ``max``, or ``gem``, the generalised mean (Radenovic et al., arXiv:1711.02512). Deviation: its
            power is fixed at 3, where the paper's training starts and about where it ends.
        normalisation: Of the pooled features.
        dropout: Before the first dense layer.
        dense_units: Units of each dense layer; each is followed by dropout.
        activation: Of the dense layers.
        dense_dropout: After each dense layer; absent: as ``dropout``.
        l2: Factor of the squared kernel weights of all dense layers, the logits' included, in the loss.
    """

    pooling: Literal["avg", "max", "gem"] = "avg"
    normalisation: Literal["none", "batch", "layer"] = "none"
    dense_units: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], ListField] = ()
    activation: Literal["relu", "swish", "leaky_relu", "gelu"] = "relu"
    dropout: Annotated[float, Field(ge=0.0, le=0.9)] = 0.2
    dense_dropout: Annotated[float, Field(ge=0.0, le=0.9)] | None = None
    l2: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
