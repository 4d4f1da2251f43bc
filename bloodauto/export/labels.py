"""Makes the ``labels.json`` of an exported model: class names, input images, competition labels, abstention rule."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from bloodauto.data.dataset import COMPETITION_CLASSES
from bloodauto.run.artifacts import AbstentionRule, Labels, ModelInput


def labels_of(model: keras.Model, class_names: Sequence[str], abstention: AbstentionRule | None = None) -> Labels:
    """Describes the inputs and outputs of a model.

    Args:
        model: of ``build_ensemble_model``.
        class_names: one for each output, in their order.
        abstention: when an image gets no prediction; None: always a prediction.
    """
    _, height_px, width_px, _ = model.input_shape
    classes = model.output_shape[-1]
    assert len(class_names) == classes, f"expected {classes} class names, got {len(class_names)}"
    return Labels(
        classes=tuple(class_names),
        input=ModelInput(height_px=height_px, width_px=width_px),
        competition_labels=competition_labels(class_names),
        abstention=abstention,
    )


def competition_labels(class_names: Sequence[str]) -> tuple[int, ...]:
    """The competition's label of each output.

    Args:
        class_names: one for each output.

    Returns:
        The competition's numbers where the classes are its eight, in whatever order and case; otherwise the outputs
        are numbered in their order.

    Example:
        >>> competition_labels(("Eosinophil", "basophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil",
        ...                     "platelet"))
        (1, 0, 2, 3, 4, 5, 6, 7)
        >>> competition_labels(("ring", "blast"))
        (0, 1)
    """
    names = [name.strip().lower() for name in class_names]
    if sorted(names) == sorted(COMPETITION_CLASSES):
        return tuple(COMPETITION_CLASSES.index(name) for name in names)
    return tuple(range(len(names)))
