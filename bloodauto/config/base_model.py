"""What all parts of the grammar share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StrictModel(BaseModel):
    """No unknown fields, no silent conversion (``"0.1"`` is no number), no infinity, no change after creation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


#: YAML has lists, not tuples; everything else stays strict.
ListField = Field(strict=False)
