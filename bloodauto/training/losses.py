"""The loss of a recipe, and class weights as a part of targets and sample weights."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from bloodauto.config.recipe import Loss
from bloodauto.errors import RecipeError
from bloodauto.types import Floats, Targets

#: Beta of the effective number of images (Cui et al., arXiv:1901.05555).
_EFFECTIVE_NUMBER_BETA = 0.999


def check_loss(loss: Loss, num_classes: int) -> None:
    """Checks a loss against the classes, which the grammar does not know.

    Args:
        loss: The loss.
        num_classes: Number of classes of the data.

    Raises:
        RecipeError: The focal loss has alpha factors for another number of classes.
    """
    if isinstance(loss.alpha, tuple) and len(loss.alpha) != num_classes:
        raise RecipeError(
            f"loss.alpha: expected {num_classes} factors, one for each class, got {len(loss.alpha)}; "
            "class_weights: balanced finds factors itself."
        )


def build_loss(loss: Loss) -> keras.losses.Loss:
    """The loss of logits (batch, classes) against one-hot or mixed targets (batch, classes).

    Args:
        loss: The loss of a recipe.
    """
    if loss.name == "focal":
        assert loss.gamma is not None
        return keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0 if loss.alpha is None else loss.alpha,
            gamma=loss.gamma,
            from_logits=True,
            label_smoothing=loss.label_smoothing,
        )
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=loss.label_smoothing)


def class_weights(loss: Loss, counts: Floats) -> NDArray[np.float32]:
    """One weight per class, whose mean over the images is 1.

    ``effective_number`` uses beta = 0.999 (Cui et al., arXiv:1901.05555).

    Args:
        loss: Names the rule.
        counts: Images of each class, shape (classes,).

    Returns:
        float32, shape (classes,).

    Example:
        >>> weights = class_weights(Loss(class_weights="balanced"), np.array([10.0, 30.0]))
        >>> [round(float(weight), 3) for weight in weights]
        [2.0, 0.667]
    """
    counts = np.maximum(counts, 1).astype(np.float64)
    if loss.class_weights == "none":
        return np.ones(len(counts), dtype=np.float32)
    beta = _EFFECTIVE_NUMBER_BETA
    weights = 1 / counts if loss.class_weights == "balanced" else (1 - beta) / (1 - beta**counts)
    return (weights / np.average(weights, weights=counts)).astype(np.float32)


def weight_targets(targets: Targets, weights: NDArray[np.float32]) -> tuple[Targets, NDArray[np.float32]]:
    """Class weights as sample weights, with the same cross-entropy.

    A target that mixes classes of different weights moves towards the heavier class; a one-hot target stays.

    Args:
        targets: float32, shape (n, classes).
        weights: float32, shape (classes,).

    Returns:
        Targets of shape (n, classes) and sample weights of shape (n,), float32.
    """
    weighted = targets * weights
    total = weighted.sum(axis=1)
    return weighted / total[:, None], total
