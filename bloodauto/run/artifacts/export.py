"""The side files of an export: what must be known of the model beside its weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from bloodauto.run.artifacts.base import Artifact, Count, Record
from bloodauto.run.artifacts.evaluation import AbstentionRule


class ModelInput(Record):
    """The images that an exported model takes.

    Attributes:
        height_px: of every image.
        width_px: of every image.
        channels: their order.
        dtype: of the pixels.
        lowest: lowest pixel value.
        highest: highest pixel value.
    """

    height_px: Annotated[int, Field(ge=1)]
    width_px: Annotated[int, Field(ge=1)]
    channels: Literal["RGB"] = "RGB"
    dtype: Literal["uint8"] = "uint8"
    lowest: Literal[0] = 0
    highest: Literal[255] = 255


class Labels(Artifact):
    """``labels.json``: what the outputs of an exported model mean and which images it takes.

    Attributes:
        classes: names in the order of the outputs, each once.
        input: the images.
        competition_labels: the competition's label of each output.
        abstention: when an image gets no prediction; None: always a prediction.
    """

    FILE = "labels.json"
    MEND = "Restore the file or export again."

    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    input: ModelInput
    competition_labels: tuple[Count, ...]
    abstention: AbstentionRule | None

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            raise ValueError("each class once")
        return classes
