"""What training minimises, and how classes of unequal size are treated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bloodauto.recipe.strict import Strict


class Loss(Strict):
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
