"""What training minimises."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bloodauto.config.base_model import ListField, StrictModel

Positive = Annotated[float, Field(gt=0.0, le=1000.0)]


class Loss(StrictModel):
    """``cross_entropy`` or ``focal`` (Lin et al., arXiv:1708.02002), each with optional smoothing and class weights.

    ``alpha``: of the focal loss alone. A number multiplies the whole loss, as Keras' default of 0.25 does; a list is the
    paper's alpha, one factor for each class in the order of the labels, and takes the place of ``class_weights``.
    ``class_weights``: ``none``, ``balanced`` (inverse frequency) or ``effective_number`` (Cui et al., arXiv:1901.05555), by
    the class counts that training sees, so after ``imbalance.sampling``.
    """

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    alpha: Positive | Annotated[tuple[Positive, ...], ListField] | None = None
    label_smoothing: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    class_weights: Literal["none", "balanced", "effective_number"] = "none"

    @model_validator(mode="after")
    def _check_dependent_fields(self) -> Loss:
        if self.name == "focal" and self.gamma is None:
            raise ValueError("focal loss needs gamma (2.0 is the paper's choice)")
        for field in ("gamma", "alpha"):
            if self.name != "focal" and getattr(self, field) is not None:
                raise ValueError(f"{field} belongs to the focal loss, not to {self.name}")
        if isinstance(self.alpha, tuple) and self.class_weights != "none":
            raise ValueError("alpha as a list weighs the classes, and so does class_weights; leave one of the two out")
        return self
