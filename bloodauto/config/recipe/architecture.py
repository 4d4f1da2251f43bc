"""The network of a recipe: input, backbone, head."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bloodauto.config.base_model import ListField, StrictModel

Filter = Literal["grey", "sobel", "remove_background", "normalise_stain", "standardise", "standardise_density"]


class Input(StrictModel):
    """What the network sees. Images of another size are resized inside the network.

    ``filters``: run on the resized images in this order, inside the network and so in the exported model. ``grey``: luma
    alone; ``sobel``: edges; ``remove_background``: white but for what absorbs red, as nuclei do; ``normalise_stain``: the
    empty slide's colour and the strength of the stain brought to one reference; ``standardise``, ``standardise_density``: each
    channel of each image brought to one mean and deviation, of its grey levels or of its optical density.
    """

    size_px: Annotated[int, Field(ge=32, le=640)] = 96
    filters: Annotated[tuple[Filter, ...], ListField] = ()


class Backbone(StrictModel):
    """The pre-trained part.

    ``weights``: ``imagenet``, ``none`` (random), or the path of a weights file.
    ``batch_norm``: what unfrozen batch normalisation does in fine-tuning. ``train``: learns scale, shift and statistics;
    ``freeze_statistics``: learns scale and shift, keeps the pre-trained statistics; ``freeze``: learns nothing.
    ``blocks``, ``width``: of ``own_cnn`` alone (4 and 16 unless said otherwise): how often the image is halved, and the
    filters of the first block, doubled from block to block.
    """

    name: str
    weights: str = "imagenet"
    batch_norm: Literal["train", "freeze_statistics", "freeze"] = "train"
    blocks: Annotated[int, Field(ge=1, le=6)] | None = None
    width: Annotated[int, Field(ge=4, le=128)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_cnn_has_a_size(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("name") == "own_cnn":
            return {"blocks": 4, "width": 16, **value}
        return value

    @model_validator(mode="after")
    def _a_size_belongs_to_own_cnn(self) -> Backbone:
        size = (self.blocks, self.width)
        if self.name == "own_cnn" and None in size:
            raise ValueError("own_cnn needs blocks and width, not null; leave them out for 4 and 16")
        if self.name != "own_cnn" and size != (None, None):
            raise ValueError(f"blocks and width belong to own_cnn, not to {self.name}; leave them out")
        return self

    @property
    def label(self) -> str:
        """What tells architectures apart: the name, and the size of an own CNN."""
        return f"{self.name}_{self.blocks}x{self.width}" if self.name == "own_cnn" else self.name


class Head(StrictModel):
    """From the backbone's features to the classes: pooling, normalisation, dropout, dense layers, logits.

    ``pooling``: ``avg``, ``max``, or ``gem``, the generalised mean (Radenovic et al., arXiv:1711.02512) with its power fixed
    at 3, where the paper's learning starts and about where it ends.
    ``normalisation``: of the pooled features.
    ``dense_units``: one dense layer each, with ``activation``, followed by dropout.
    ``dropout``: before the first dense layer. ``dense_dropout``: after each; null: as ``dropout``.
    ``l2``: on the kernels of all dense layers, the logits' included: what is added to the loss for each squared weight.
    """

    pooling: Literal["avg", "max", "gem"] = "avg"
    normalisation: Literal["none", "batch", "layer"] = "none"
    dense_units: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], ListField] = ()
    activation: Literal["relu", "swish", "leaky_relu", "gelu"] = "relu"
    dropout: Annotated[float, Field(ge=0.0, le=0.9)] = 0.2
    dense_dropout: Annotated[float, Field(ge=0.0, le=0.9)] | None = None
    l2: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
