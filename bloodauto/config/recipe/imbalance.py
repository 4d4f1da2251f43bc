"""How classes of unequal size are treated."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from bloodauto.config.recipe.augmentation import ClassSynthesis
from bloodauto.run.artifacts.base import Record

Sampling = Literal["none", "oversample", "undersample", "smote", "borderline_smote", "synthesise"]


class Imbalance(Record):
    """How often the images of each class are used.

    An epoch has the same number of steps whatever the sampling: it uses as many images as there are before sampling, and the
    next epoch continues where it stopped. So epochs cost the same, and learning curves can be compared.

    Attributes:
        sampling: ``oversample``: images of smaller classes are repeated until all classes are as large as the largest.
            ``undersample``: of larger classes only as many images as the smallest class has are used. Which ones is drawn once,
            from the training's seed. ``smote`` (Chawla et al., arXiv:1106.1813) and ``borderline_smote`` (Han et al.,
            doi:10.1007/11538059_91): smaller classes are filled with blends of two similar images of the class, made once.
            ``synthesise``: they are filled with synthetic images, made once.
        synthesise: How synthetic images are made; absent: the defaults. Only with ``sampling: synthesise``.

    Example:
        >>> Imbalance(sampling="oversample").synthesise is None
        True
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
