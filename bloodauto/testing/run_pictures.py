"""Pictures for runs of the run factory: plain discs, none of them of a cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bloodauto.data.pictures import jpeg_of
from bloodauto.run.artifacts import (
    CleanedPicture,
    ConfusionPictures,
    DataPictures,
    Ensemble,
    HeldOutTest,
    Picture,
    PredictedPicture,
    PredictionPictures,
    ResultPictures,
    ShiftFamily,
    ShiftLevel,
)

_SIZE_PX = 32
_SEVERITIES = (3, 4, 5)
_FAMILIES = (("defocus", "optics"), ("jpeg", "sensor"), ("stain_hue", "stain"), ("combined_shift", "combined"))


def make_picture(number: int) -> Picture:
    """A disc whose colour depends on the number."""
    rows, columns = np.mgrid[:_SIZE_PX, :_SIZE_PX]
    image = np.full((_SIZE_PX, _SIZE_PX, 3), 235, np.uint8)
    inside = (rows - _SIZE_PX / 2) ** 2 + (columns - _SIZE_PX / 2) ** 2 < 100
    image[inside] = (40 + 53 * number % 180, 40 + 97 * number % 180, 150)
    return Picture(name=f"img/{number:04d}.png", jpeg=jpeg_of(image))


def make_data_pictures(classes: Sequence[str]) -> DataPictures:
    """Three images of each class, and one excluded by cleaning."""
    return DataPictures(
        classes={
            name: tuple(make_picture(3 * label + index) for index in range(3)) for label, name in enumerate(classes)
        },
        cleaned=(
            CleanedPicture(
                picture=make_picture(99),
                label=classes[0],
                finding="exact_duplicate",
                action="excluded",
                reason="the same pixels as img/0003.png",
            ),
        ),
    )


def make_result_pictures(ensemble: Ensemble, test: HeldOutTest) -> ResultPictures:
    """Pictures of every cell of the confusion matrix that has images, a mistake, a doubt, a marked image, the shift suite."""
    cells = [
        (row, column) for row, counts in enumerate(test.confusion) for column, images in enumerate(counts) if images
    ]

    def predicted(number: int, true: str, label: str) -> PredictedPicture:
        return PredictedPicture(
            picture=make_picture(number),
            true_class=true,
            predicted_class=label,
            probability=0.9 - number / 100,
            saliency=make_picture(number + 50).jpeg,
        )

    first, second = test.classes[:2]
    levels = tuple(ShiftLevel(severity=severity, correct=14 - severity, images=12) for severity in _SEVERITIES)
    return ResultPictures(
        ensemble=ensemble.ensemble_id,
        predictions=PredictionPictures(
            source="held-out test images",
            confusion=tuple(
                ConfusionPictures(true_index=row, predicted_index=column, pictures=(make_picture(10 * row + column),))
                for row, column in cells
            ),
            confident_mistakes=(predicted(1, first, second),),
            uncertain_correct=(predicted(2, first, first),),
            abstained=(predicted(3, second, second),),
        ),
        shift_original=make_picture(0).jpeg,
        shift=tuple(
            ShiftFamily(family=family, group=group, levels=levels, example=make_picture(4).jpeg)
            for family, group in _FAMILIES
        ),
        augmentation=make_picture(5).jpeg,
        augmentation_source=ensemble.members[0].name,
    )
