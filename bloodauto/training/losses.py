"""The loss of a recipe, and class weights as a part of targets and sample weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bloodauto.config.recipe import Loss
from bloodauto.errors import RecipeError
from bloodauto.models.step_settings import StepSetting
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


class AdjustableLoss(keras.losses.Loss):
    """The loss of logits (batch, classes) against one-hot or mixed targets (batch, classes), as a recipe says.

    The values are those of Keras' ``CategoricalCrossentropy`` and ``CategoricalFocalCrossentropy``. What the recipe says is in
    settings, so a step that was traced once serves every loss.

    Args:
        loss: The loss of a recipe.
        num_classes: Number of classes.

    Attributes:
        settings: The state; a network that is trained with the loss has to hold it.
    """

    def __init__(self, loss: Loss, num_classes: int) -> None:
        super().__init__(name="loss")
        self._num_classes = num_classes
        self._is_focal = StepSetting(0.0, name="is_focal")
        self._gamma = StepSetting(0.0, name="gamma")
        self._alpha = StepSetting(np.ones(num_classes), name="alpha")
        self._smoothing = StepSetting(0.0, name="label_smoothing")
        self.settings = [self._is_focal, self._gamma, self._alpha, self._smoothing]
        self.configure(loss)

    def configure(self, loss: Loss) -> None:
        """Takes over another recipe's loss.

        Args:
            loss: The loss.
        """
        self._is_focal.assign(1.0 if loss.name == "focal" else 0.0)
        self._gamma.assign(0.0 if loss.gamma is None else loss.gamma)
        self._alpha.assign(np.broadcast_to(1.0 if loss.alpha is None else loss.alpha, (self._num_classes,)))
        self._smoothing.assign(loss.label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each image, shape (batch,).

        Args:
            y_true: Targets, shape (batch, classes).
            y_pred: Logits, shape (batch, classes).
        """
        y_pred = ops.convert_to_tensor(y_pred)
        smoothing = ops.convert_to_tensor(self._smoothing.state)
        targets = ops.cast(y_true, y_pred.dtype) * (1 - smoothing) + smoothing / self._num_classes
        gamma, alpha = ops.convert_to_tensor(self._gamma.state), ops.convert_to_tensor(self._alpha.state)

        def focal() -> Any:
            return keras.losses.categorical_focal_crossentropy(
                targets, y_pred, alpha=alpha, gamma=gamma, from_logits=True
            )

        def cross_entropy() -> Any:
            return keras.losses.categorical_crossentropy(targets, y_pred, from_logits=True)

        return ops.cond(ops.greater(self._is_focal.state, 0.5), focal, cross_entropy)


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
