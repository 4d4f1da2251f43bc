"""How classes of unequal size are treated."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from bloodauto.config.base_model import StrictModel
from bloodauto.config.recipe.augmentation import ClassSynthesis

Sampling = Literal["none", "oversample", "undersample", "smote", "borderline_smote", "synthesise"]


class Imbalance(StrictModel):
    """How often the images of rare classes are seen.

    ``oversample``: images of smaller classes are repeated until all classes are as large as the largest; ``undersample``: of
    larger classes only as many as the smallest has are used. Which ones is drawn once, from the training's seed.
    ``smote`` (Chawla et al., arXiv:1106.1813) and ``borderline_smote`` (Han et al., doi:10.1007/11538059_91): smaller classes
    are filled up with blends of two similar images of the class, made once. ``synthesise``: they are filled up with images made
    as ``synthesise`` says, once as well; its default where it is absent.

    An epoch has as many steps whatever the sampling: it visits as many images as there are before sampling, and the next
    one goes on where it left off. So epochs cost the same, and learning curves compare.
    """

    sampling: Sampling = "none"
    synthesise: ClassSynthesis | None = None

    @model_validator(mode="after")
    def _check_synthesis(self) -> Imbalance:
        if self.synthesise is not None and self.sampling != "synthesise":
            raise ValueError(
                f"synthesise belongs to sampling: synthesise, not to sampling: {self.sampling}; leave it out"
            )
        return self
