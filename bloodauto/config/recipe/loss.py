"""What training minimises."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bloodauto.config.validation import ListField
from bloodauto.run.artifacts.base import Record

Factor = Annotated[float, Field(gt=0.0, le=1000.0)]


class Loss(Record):
    """Cross-entropy, or the focal loss (Lin et al., arXiv:1708.02002), with optional label smoothing and class weights.

    Attributes:
        name: Which loss.
        gamma: Exponent of the focal loss alone; the paper uses 2.
        alpha: Of the focal loss alone. A number multiplies the whole loss, as Keras' default of 0.25 does. A list is the
            paper's alpha, one factor for each class in the order of the labels, and replaces ``class_weights``.
        label_smoothing: Fraction of each target that is spread evenly over all classes.
        class_weights: ``balanced``: inverse frequency; ``effective_number``: Cui et al., arXiv:1901.05555. Both follow the
            class counts that training sees, so after ``imbalance.sampling``.
    """

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    alpha: Factor | Annotated[tuple[Factor, ...], ListField] | None = None
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
            raise ValueError("alpha as a list weights the classes, and so does class_weights; leave one of the two out")
        return self
